"""The page of one run: everything on it is the run's, it needs nothing else, and it runs nobody's text."""

import base64
import hashlib
import io
import json
import re
import sys

import pytest
from PIL import Image

import se_framework as se
from se_framework.comparison.report.build import Maker, report
from se_framework.comparison.report.charts import SPECS, compiled, runtime
from se_framework.comparison.report.html import figure, script_json, text, uncertain
from se_framework.comparison.report.page import page
from se_framework.errors import ConfigError, RunDirectoryError
from tests.support.fake_runs import fail, w2
from tests.support.reported import Page, frame, rows_of, shown_run, write_table

EVIL = "</script><script>document.title='taken'</script>\"'><img src=x onerror=alert(1)>"


def made(*paths, **options):
    """Return the page of runs, without looking at a critic unless that is asked for."""
    return Page(page(Maker(list(paths), **({"critic": False} | options)).content()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    scores = {"w2": w2(0.25, references={"real_vs_real": 0.1, "real_vs_real_sd": 0.02}),
              "nll": {"why": "the model has no density", "n": 10, "seed": 0}}  # fmt: skip
    path = shown_run(folder / "run", ["divergence=kl"], 3, scores, frames=[0, 200, 400], warnings=["saturated critic"])
    write_table(path / "scores.csv", {"round": [25, 50], "to_minimise": [2, 1], "w2": [2.0, 1.0]})
    frame(path / "samples.png", 200)
    return path


@pytest.fixture(scope="module")
def found(run):
    return made(run)


# -- one file ---------------------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_reaches_for_nothing(found):
    assert found.problems == []
    for name, attributes in found.elements:
        for key in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), (name, key, value)
    styles = re.findall(r"<style>(.*?)</style>", found.html, flags=re.S)
    assert len(styles) == 1 and "url(" not in styles[0] and "@import" not in styles[0]
    assert not re.search(r"cdn|unpkg|jsdelivr|googleapis", found.html, flags=re.I)


def test_only_our_scripts_run_and_a_static_page_connects_to_nothing(found):
    (policy,) = [a["content"] for a in found.all("meta", http_equiv="Content-Security-Policy")]
    allowed = set(re.findall(r"'sha256-(.*?)'", policy))
    plain = [body for attributes, body in found.scripts if "type" not in attributes]
    assert {base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in plain} == allowed
    assert len(plain) == 2 and "unsafe-eval" not in policy and "script-src 'unsafe-inline'" not in policy
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy


def test_a_page_is_read_on_a_phone_and_by_keyboard(found):
    assert found.all("meta", name="viewport") and found.all("html", lang="en")
    for box in (a for n, a in found.elements if a.get("class") == "box"):
        assert box.get("tabindex") == "0" or "symbols" in found.html, box
    for attributes in found.all("input") + found.all("button") + found.all("img"):
        named = attributes.get("aria-label") or attributes.get("alt") or attributes.get("name")
        assert named or attributes.get("class") in ("sort", "play"), attributes


def test_a_thousand_rows_stay_below_three_megabytes(tmp_path):
    path = shown_run(tmp_path / "run", rows=rows_of(1000))
    assert len(made(path).html.encode()) < 3 * 10**6


def test_every_kind_of_chart_compiles_and_reads_the_data_the_page_hands_in():
    for kind, spec in SPECS.items():
        names = {source["name"] for source in compiled(spec)["data"]}
        wanted = {"plane": {"cells", "points", "arrows"}, "bars": {"bars"}}.get(kind.split("-")[0])
        assert (wanted or {"line", "band", "dots", "marks"}) <= names, kind


# -- what is on it ----------------------------------------------------------------------------------------------------


def test_every_column_is_a_chart_of_its_own_values(run, found):
    charts = found.charts()
    rows = rows_of(5)
    for name, title in {"D": "D: divergence D(q, p)", "total": "total", "phi_gradient": "phi_gradient"}.items():
        (line,) = charts[title]["data"]["line"]
        assert line["x"] == rows["round"] and line["y"] == [float(f"{v:.6g}") for v in rows[name]]
        assert charts[title]["data"]["dots"] == charts[title]["data"]["line"] and not charts[title]["data"]["band"]
    assert not {"round", "samples", "to_minimise"} & set(charts)


def test_scores_over_rounds_stand_beside_their_references(found):
    data = found.charts()["w2"]["data"]
    assert data["line"][0]["x"] == [25, 50] and data["line"][0]["y"] == [2, 1]
    assert data["marks"] == [{"y": [0.1]}]  # the reference, not its spread


def test_the_score_table_has_value_error_reference_and_direction(found):
    head, first, second = found.table("scores")
    assert head == ["score", "value", "references", "better"]
    assert first == [
        "w2",
        "0.250 \u00b1 0.01 unit of the data; n 1000, seed 0",
        "real_vs_real 0.100 \u00b1 0.02",
        "lower",
    ]
    assert second == ["nll", "not computed: the model has no density"]


def test_every_symbol_of_the_equation_is_bound_to_its_class_and_values(run, found):
    rows = {row[1]: row[2] for row in found.table("what stands for each symbol")}
    assert rows["the divergence"] == "KL()" and rows["the data"] == "Ring8(labels=False)"
    assert rows["the model"].startswith("MLPGenerator(width=128") and rows["weight of the divergence"] == "1.0"
    symbols = {a["data-symbol"] for n, a in found.elements if n in ("mi", "msub") and "data-symbol" in a}
    assert symbols == {a["data-symbol"] for a in found.all("tr") if "data-symbol" in a}
    assert "KL \u00b7 Dual \u00b7 MLPCritic \u00b7 MLPGenerator \u00b7 Ring8" in found.text


def test_summands_have_symbols_too(tmp_path):
    path = shown_run(tmp_path / "run", ["plus={more:{weight: 2.0}}"])
    rows = {row[1]: row[2] for row in made(path).table("what stands for each symbol")}
    assert "weight 2.0" in rows["added as plus.more"]


def test_frames_are_in_order_each_with_its_round(found):
    (frames,) = found.data["frames"].values()
    assert [one["round"] for one in frames] == [0, 200, 400]
    shades = [Image.open(io.BytesIO(base64.b64decode(one["uri"].partition(",")[2]))).convert("L") for one in frames]
    assert [image.getpixel((0, 0)) for image in shades] == [10, 20, 30]
    (slider,) = found.all("input", type="range")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "2")


def test_warnings_failures_versions_and_configuration_are_told(tmp_path, found):
    assert "saturated critic" in found.text and "torch" in found.text
    assert "seed: 3" in found.text and "_target_: divergences.KL" in found.text
    path = shown_run(tmp_path / "run", scores=None)
    fail(path)
    failed = made(path)
    assert "failed after round 50 of 100" in failed.text
    assert "E_q_f was ? in round 7, player phi, step ?: the metric's output is inf" in failed.text


def test_an_ensemble_is_a_band_from_the_least_to_the_greatest(tmp_path):
    path = shown_run(tmp_path / "run", ["ensemble.size=3"])
    rounds = [t for t in (10, 20) for _ in range(3)]
    write_table(path / "members.csv", {"round": rounds, "member": [0, 1, 2] * 2, "D": [1, 2, 6, 4, 5, 9]})
    found = made(path)
    data = found.charts()["D: divergence D(q, p)"]["data"]
    (band,) = data["band"]
    assert (band["x"], band["low"], band["high"]) == ([10, 20], [1, 4], [6, 9])
    assert data["line"][0]["y"] == [3, 6] and "mean of 3 members" in found.text


def test_values_that_are_not_finite_are_gaps_and_counted(tmp_path):
    rows = rows_of(4) | {"D": [1, "nan", "inf", 2]}
    found = made(shown_run(tmp_path / "run", rows=rows))
    assert found.charts()["D: divergence D(q, p)"]["data"]["line"][0]["y"] == [1, None, None, 2]
    assert "2 values not finite: gaps" in found.text


def test_a_run_without_summary_or_with_spoilt_files_stands_and_says_what_is_missing(tmp_path):
    path = shown_run(tmp_path / "run", scores=None)
    (path / "eval.json").write_text("{")
    (path / "versions.json").write_text("[]")
    found = made(path)
    assert "not finished: 50 of 100 rounds logged" in found.text and "it is not JSON" in found.text
    assert "it holds no names with values" in found.text
    (path / "config.yaml").write_text("loop: {rounds: many}\n")
    assert "The configuration cannot be read" in made(path).text


def test_scores_of_se_eval_serve_where_there_is_no_summary(tmp_path):
    path = shown_run(tmp_path / "run", scores=None)
    (path / "eval.json").write_text(json.dumps({"round": 50, "scores": {"w2": w2(0.75)}}))
    found = made(path)
    assert found.table("scores")[1][1].startswith("0.750") and "after round 50" in found.text


# -- a stranger's text ------------------------------------------------------------------------------------------------


def test_text_of_a_stranger_is_text_wherever_it_stands(tmp_path):
    scores = {EVIL: w2(0.5, unit=EVIL, references={EVIL: 1.0}, better=EVIL, bound=EVIL), "x": {"why": EVIL}}
    rows = rows_of(3) | {EVIL: [1, 2, 3], "note": [EVIL, "", EVIL]}
    path = shown_run(tmp_path / "run", [], 0, scores, rows, warnings=[EVIL], frozen={"0": EVIL})
    write_table(path / "scores.csv", {"round": [1], "to_minimise": [1], EVIL: [1]})
    (path / "versions.json").write_text(json.dumps({EVIL: EVIL}))
    (path / "failure").mkdir()
    (path / "failure" / "failure.json").write_text(json.dumps({"term": EVIL, "source": EVIL}))
    config = (path / "config.yaml").read_text().replace("_target_: divergences.GAN", f"_target_: {json.dumps(EVIL)}")
    (path / "config.yaml").write_text(config)
    found = made(path)
    assert EVIL in config.encode().decode("unicode_escape") and found.problems == []
    assert found.text.count("<script>document.title='taken'</script>") >= 8  # as text, many times
    assert len(found.scripts) == 3 and not [a for a in found.all("img") if "onerror" in a]
    # Parsed again as the browser does: the data's own element ends where ours does.
    assert found.html.count("</script") == 3 and EVIL not in found.html


def test_json_in_a_script_holds_no_mark_that_ends_it():
    content = {"</script><!--": ["\u2028<!--]]>&", '"']}
    shown = script_json(content)
    assert json.loads(shown) == content and not set("<>&\u2028") & set(shown)
    with pytest.raises(ValueError, match="JSON"):
        script_json([float("nan")])


def test_text_is_escaped_for_attributes_and_cut_and_commands_no_terminal():
    assert text("<b a=\"1\" c='2'>&") == "&lt;b a=&quot;1&quot; c=&#x27;2&#x27;&gt;&amp;"
    assert "\x1b" not in text("\x1b[2J") and len(text("x" * 10**6)) < 1000


def test_links_out_of_a_strangers_run_show_nobodys_pictures(tmp_path):
    frame(tmp_path / "private" / "00000001.png", 7)
    path = shown_run(tmp_path / "run")
    (path / "frames").symlink_to(tmp_path / "private")
    with pytest.raises(RunDirectoryError, match="symbolic link out of the run directory"):
        made(path)


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_figures_have_five_digits_and_as_many_as_their_error_allows():
    assert figure(-1234.567) == "\u22121234.6" and figure(float("nan")) == "not a number"
    assert uncertain(0.123456, 0.0123) == "0.123 \u00b1 0.012" and uncertain(12.3, 4.0) == "12.3 \u00b1 4"
    assert uncertain(-0.5, None) == "\u22120.5" and uncertain(1.0, float("inf")) == "1"


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_shown_is_refused_and_leaves_no_file(tmp_path):
    out = tmp_path / "report.html"
    with pytest.raises(RunDirectoryError, match="is no run"):
        report(tmp_path / "absent", out)
    empty = shown_run(tmp_path / "empty", scores=None)
    (empty / "metrics.csv").unlink()
    with pytest.raises(RunDirectoryError, match="has no rows yet"):
        report(empty, out, critic=False)
    path = shown_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"must end in \.html"):
        report(path, tmp_path / "report.pdf", critic=False)
    with pytest.raises(ConfigError, match="x=divergence: a map needs runs that differ"):
        report(path, out, x="divergence", critic=False)
    assert not out.exists()


def test_a_missing_extra_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("se_framework.comparison.report.build.runtime", runtime.__wrapped__)  # without its memory
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ConfigError, match=r"pip install 'se-framework\[report\]'"):
        report(shown_run(tmp_path / "run"), tmp_path / "report.html")


def test_a_report_from_python_is_the_file_it_says(tmp_path):
    out = se.report(shown_run(tmp_path / "run"), out=tmp_path / "page.html", critic=False)
    assert out == tmp_path / "page.html" and Page(out.read_text()).problems == []
