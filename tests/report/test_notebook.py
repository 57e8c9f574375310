"""Objects in a notebook: a run's rows as a frame, a run and an equation as HTML that needs no script."""

import math
import sys

import pytest

import se_framework as se
from se_framework.errors import ConfigError, RunDirectoryError
from tests.support.composing import compose
from tests.support.fake_runs import w2
from tests.support.reported import Page, frame, rows_of, shown_run, write_table

EVIL = "<script>alert(1)</script>"


def test_terms_are_a_frame_by_round(tmp_path):
    pytest.importorskip("pandas")
    rows = rows_of(3) | {"note": ["", "odd", ""], "late": ["", "", 2.5], "D": [1, "nan", "inf"]}
    found = se.RunDirectory(shown_run(tmp_path / "run", rows=rows)).terms
    assert found.index.name == "round" and found.index.tolist() == [10, 20, 30]
    assert found["total"].tolist() == rows["total"] and found["note"].tolist() == ["", "odd", ""]
    assert math.isnan(found["late"].iloc[0]) and found["late"].iloc[2] == 2.5
    assert found["D"].iloc[0] == 1 and math.isnan(found["D"].iloc[1]) and math.isinf(found["D"].iloc[2])


def test_terms_of_an_ensemble_are_by_member_and_round(tmp_path):
    pytest.importorskip("pandas")
    path = shown_run(tmp_path / "run")
    write_table(path / "members.csv", {"round": [1, 1, 2, 2], "member": [0, 1, 0, 1], "D": [1, 5, 2, 6]})
    found = se.RunDirectory(path).terms
    assert found.loc[1, "D"].tolist() == [5, 6] and found.index.names == ["member", "round"]


def test_terms_that_cannot_be_had_are_one_sentence(tmp_path, monkeypatch):
    path = shown_run(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pandas", None)
        with pytest.raises(ConfigError, match="pip install pandas"):
            _ = se.RunDirectory(path).terms
    pytest.importorskip("pandas")
    (path / "metrics.csv").unlink()
    with pytest.raises(RunDirectoryError, match="has no rows yet"):
        _ = se.RunDirectory(path).terms
    with pytest.raises(RunDirectoryError, match="is not a run directory"):
        _ = se.RunDirectory(tmp_path).terms


def test_a_run_shows_its_state_scores_curves_and_samples_escaped(tmp_path):
    path = shown_run(tmp_path / "run", scores={EVIL: w2(0.25)}, warnings=[EVIL])
    frame(path / "curves.png", 10), frame(path / "samples.png", 20)
    found = Page(se.RunDirectory(path)._repr_html_())
    assert found.problems == [] and not found.scripts and EVIL in found.text
    assert [a["alt"] for a in found.all("img")] == ["curves", "samples"]
    assert "finished after 100 rounds" in found.text and "0.250 \u00b1 0.01" in found.text


def test_a_run_without_a_summary_shows_its_last_frame_and_no_run_says_so(tmp_path):
    path = shown_run(tmp_path / "run", scores=None, frames=[0, 100])
    found = Page(se.RunDirectory(path)._repr_html_())
    assert [a["alt"] for a in found.all("img")] == ["last frame"]
    assert "is not a run directory" in se.RunDirectory(tmp_path)._repr_html_()


def test_an_equation_shows_its_symbols_players_and_scalar():
    equation = compose("wgan_gp", ["data=ring8", "device=cpu"]).equation
    found = Page(equation._repr_html_())
    assert found.problems == [] and found.all("math") and not found.scripts
    count = {role.name: sum(p.numel() for p in role.module.parameters()) for role in equation.roles()}
    assert f"phi ascends {count['phi']:,} parameters" in found.text
    assert f"theta descends {count['theta']:,} parameters" in found.text
    assert "Wasserstein1" in found.text and f"T = {equation.auxiliary.scalar_name}" in found.text
