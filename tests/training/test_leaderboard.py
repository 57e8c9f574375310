"""The leaderboard: its cells, equal processor time, rows that survive a kill, failures that are counted, its pages."""

from __future__ import annotations

import json
import re
from statistics import mean
from types import SimpleNamespace

import pytest

import se_framework as se
from benchmarks.leaderboard import __main__, cell, store, tables
from benchmarks.leaderboard.grid import GRIDS, PARTS, SYSTEMS, Cell, cells
from se_framework.comparison.comparison import compare
from se_framework.errors import ConfigError, NonFiniteError
from tests.support.commands import ROOT, small_scores

TINY = "experiment=vanilla_gan model.width=8 metric.network.width=8 loop.batch_size=16"


# -- cells ------------------------------------------------------------------------------------------------------------


def test_cells_are_choices_that_ship_and_stand_once():
    for name in GRIDS:
        found = cells(name)
        assert len({(own.data, own.words) for own in found}) == len(found) == len({store.folder_of(o) for o in found})
        for own in found:
            assert own.parts and set(own.parts) <= set(PARTS)
            for word in (f"data={own.data}", *own.words.split()):
                group, _, choice = word.partition("=")
                assert "." in group or (ROOT / "configs" / group / f"{choice}.yaml").is_file(), word
    both = next(own for own in cells("tables") if own.objective == "jensen_shannon mlp_r1")
    assert both.parts == ("constraints", "divergences")
    assert list(dict.fromkeys(own.objective for own in cells("tables")))[: len(SYSTEMS)] == list(SYSTEMS)


def test_one_line_makes_a_system(monkeypatch):
    monkeypatch.setitem(SYSTEMS, "mine", "experiment=gmmn")
    assert sum(own.objective == "mine" for own in cells("tables")) == 3


# -- equal processor time ---------------------------------------------------------------------------------------------


def clocked(monkeypatch, per_round, refuse=(), stopped=None):
    """Let rounds cost what is planted, those that warm up 1 s each; ensembles in ``refuse`` say no when they train."""
    clock = [0.0]
    monkeypatch.setattr(cell, "time", SimpleNamespace(process_time=lambda: clock[0]))

    def compose(_, words):
        many = int(next(word for word in words if word.startswith("ensemble.size=")).partition("=")[2])
        player = SimpleNamespace(parameters=[SimpleNamespace(numel=lambda: 7)])
        own = SimpleNamespace(state=SimpleNamespace(players=[player]))
        own.members, own.config, done = [own], SimpleNamespace(loop=SimpleNamespace()), [0]

        def train():
            if many in refuse:
                raise refuse[many]
            rounds = own.config.loop.rounds - done[0]
            clock[0] += rounds * (1.0 if done[0] < cell.WARM else per_round * many)
            done[0] += rounds
            return SimpleNamespace(stopped_by=stopped)

        own.train = train
        return own

    monkeypatch.setattr(se, "compose", compose)


def test_a_round_costs_what_is_planted_and_warming_up_nothing(monkeypatch):
    for refuse, stacked in (({}, True), ({3: ConfigError("one run")}, False)):
        clocked(monkeypatch, 0.02, refuse)
        found, seconds, numbers = cell.calibrate([], 10.0, (0, 1, 2))
        assert (found, numbers) == (stacked, 7) and seconds == pytest.approx(0.02, rel=1e-9)  # sums of 40 roundings


def test_a_signal_while_rounds_are_timed_ends_the_leaderboard(monkeypatch):
    clocked(monkeypatch, 0.02, stopped=15)
    with pytest.raises(SystemExit, match="143"):
        cell.calibrate([], 10.0, (0, 1, 2))


def test_of_what_cannot_train_rounds_are_a_guess_and_what_is_not_legal_is_no_run(monkeypatch):
    clocked(monkeypatch, 0.02, {3: NonFiniteError("nan"), 1: NonFiniteError("nan")})
    assert cell.calibrate([], 10.0, (0, 1, 2)) == (True, 0.01, None)
    clocked(monkeypatch, 0.02, {3: ConfigError("no"), 1: ConfigError("wrong key")})
    with pytest.raises(ConfigError, match="wrong key"):
        cell.calibrate([], 10.0, (0, 1, 2))
    monkeypatch.undo()
    with pytest.raises(cell.NotLegalError, match="1-Lipschitz"):
        cell.calibrate([*TINY.split(), "divergence=wasserstein1", "metric=mlp", "data=ring8"], 0.1, (0, 1))


# -- rows -------------------------------------------------------------------------------------------------------------


def planted(monkeypatch, stacked=True):
    monkeypatch.setattr(cell, "calibrate", lambda *_: (stacked, 0.1, 7))


def test_a_row_has_every_seed_and_what_it_spent(tmp_path, monkeypatch):
    small_scores(monkeypatch)
    (tmp_path / "runs" / "ensemble").mkdir(parents=True)  # left by a kill
    (tmp_path / "runs" / "ensemble" / "config.yaml").write_text("seed: 0\n")
    for stacked in (True, False):
        planted(monkeypatch, stacked)
        row = cell.play(Cell("mine", "ring8", TINY, ("systems",)), 0.4, tmp_path / "runs", seeds=(3, 4))
        assert row["rounds"] == 4 and [run["seed"] for run in row["runs"]] == [3, 4] and row["stacked"] is stacked
        assert all(run["status"] == "finished" and run["rounds"] == 4 for run in row["runs"])
        assert all(run["processor_seconds"] > 0 for run in row["runs"]) and "w2" in row["scores"]
        assert json.loads(json.dumps(row)) == row
        (own,) = compare(store.outcomes([row]), "w2").objectives
        assert own.mean == pytest.approx(mean(run["scores"]["w2"] for run in row["runs"]), rel=1e-12)
    config = (tmp_path / "runs" / "seed_3" / "config.yaml").read_text()
    assert "ema: 0.0" in config  # a twentieth of four rounds is less than one: no average


def test_runs_that_fail_are_counted(tmp_path, monkeypatch):
    planted(monkeypatch)
    words = f"{TINY} divergence=kl metric=mlp optimizer.lr=1e30"
    row = cell.play(Cell("far", "ring8", words, ("systems",)), 1.0, tmp_path / "runs", seeds=(0, 1))
    assert [(run["seed"], run["status"]) for run in row["runs"]] == [(0, "failed"), (1, "failed")]
    assert all("inf" in run["why"] or "nan" in run["why"].lower() for run in row["runs"])
    (own,) = compare(store.outcomes([row])).objectives
    assert own.counts == {"failed": 2} and own.verdict == "no value"


def fake_row(objective, values, data="ring8", budget=10.0, spent=10.0, words=None, part="systems"):
    """Make a row of c2st by seed, None for a run that failed."""
    runs = [
        {"seed": k, "status": "finished", "why": None, "rounds": 5, "processor_seconds": spent, "wall_seconds": 1.0,
         "scores": {"c2st": value}} if value is not None
        else {"seed": k, "status": "failed", "why": "it is nan", "scores": {}}
        for k, value in enumerate(values)
    ]  # fmt: skip
    known = {"c2st": {"unit": "accuracy", "better": "nearer", "n": 9, "seed": 0, "references": {"perfect": 0.5}}}
    return {
        "objective": objective, "data": data, "words": words or f"experiment={objective}", "parts": [part],
        "budget": budget, "stacked": True, "rounds": 5, "seconds_per_round": 2.0, "parameters": 7, "runs": runs,
        "scores": known, "machine": {},
    }  # fmt: skip


def test_a_leaderboard_that_was_killed_goes_on(tmp_path, monkeypatch):
    played = []

    def play(own, budget, folder):
        if len(played) == 1:
            raise KeyboardInterrupt
        played.append((own.objective, budget))
        return fake_row(own.objective, [0.6, 0.7], words=own.words, budget=budget)

    monkeypatch.setattr(__main__, "play", play)
    words = ["--grid", "tiny", "--budget", "2", "--results", str(tmp_path / "r"), "--page", str(tmp_path / "p.md")]
    with pytest.raises(KeyboardInterrupt):
        __main__.main(words)
    assert [name for name, _ in played] == ["jensen_shannon mlp_r1"]
    monkeypatch.setattr(__main__, "play", lambda own, *_: fake_row(own.objective, [0.6], words=own.words, budget=2.0))
    __main__.main(words)
    kept = store.read(tmp_path / "r")
    assert [len(row["runs"]) for row in kept.values()] == [2, 1], "the first row is that of before the kill"
    assert "2 of 2 cells" in (tmp_path / "p.md").read_text()
    monkeypatch.setattr(__main__, "play", play)
    played[:] = []
    with pytest.raises(KeyboardInterrupt):  # another budget is another leaderboard
        __main__.main([*words[:3], "3", *words[4:]])
    assert played == [("jensen_shannon mlp_r1", 3.0)] and len(store.read(tmp_path / "r")) == 3


def test_what_is_not_legal_is_a_row_that_says_so(tmp_path, monkeypatch):
    def play(*_):
        raise cell.NotLegalError("no such equation")

    monkeypatch.setattr(__main__, "play", play)
    words = ["--grid", "tiny", "--results", str(tmp_path / "r"), "--page", str(tmp_path / "p.md")]
    __main__.main(words)
    assert "Not legal: jensen_shannon mlp_r1 on ring8; kl mlp_r1 on ring8." in (tmp_path / "p.md").read_text()


# -- pages ------------------------------------------------------------------------------------------------------------


def test_the_page_tells_what_is_missing_failed_or_off_the_budget(tmp_path):
    rows = [fake_row("a", [0.6, 0.61, 0.62]), fake_row("b", [0.7, None, 0.72], spent=12.0)]
    wanted = [Cell(own["objective"], "ring8", own["words"], ("systems",)) for own in rows]
    wanted.append(Cell("c", "moons", "experiment=c", ("systems",)))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    known = {store.key_of(own["data"], own["words"], own["budget"]): own for own in rows}
    known |= {store.key_of("ring8", "experiment=z", 99.0): fake_row("z", [0.5], budget=99.0)}
    tables.write(page, known, wanted, 10.0)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "\nold\n" not in text
    assert "2 of 3 cells, 6 runs at 10 processor seconds each" in text
    assert "Not played yet: 1 of systems on moons." in text
    assert "Without a score: b on ring8 seed 1." in text
    assert "Spent more than 10 % off the budget: b on ring8 12 s." in text
    assert "2, 1 failed" in text and "| a | 0.610" in text and "z" not in re.findall(r"^\| (\w+) ", text, re.M)
    tables.write(page, known, wanted, 10.0)
    assert page.read_text() == text


def test_data_sets_are_tasks_of_their_own():
    """Rows of two data sets may be judged by other numbers of points, and have ranks beside each other."""
    rows = [fake_row(name, values, data) for data in ("ring8", "moons") for name, values in
            {"a": [0.6, 0.61], "b": [0.7, 0.72]}.items()]  # fmt: skip
    for row in rows[2:]:
        row["scores"] = {"c2st": row["scores"]["c2st"] | {"n": 5}}
    found = compare(store.outcomes(rows), "c2st")
    assert found.tasks == ("ring8", "moons") and [rank.mean for rank in found.ranks] == [1, 2]


RESULTS = store.read(store.RESULTS)
CITED = re.compile(r"\((\w+): ([\w ]+), (\w+) ([\d.]+)\)")
"""(data: objective, score figure)"""


def test_the_guide_cites_only_rows_that_are_there():
    text = " ".join((ROOT / "docs" / "which_objective.md").read_text(encoding="utf-8").split())
    cited = CITED.findall(text)
    known = {(row["data"], row["objective"]): row for row in RESULTS.values() if row["budget"] == 10.0}
    assert len(cited) >= 5
    for data, objective, score, figure in cited:
        values = [run["scores"][score] for run in known[data, objective]["runs"] if score in run["scores"]]
        decimals = len(figure.partition(".")[2])
        assert values and f"{mean(values):.{decimals}f}" == figure, (data, objective, score, mean(values))


def test_the_table_of_the_docs_is_that_of_the_rows(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(tables.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    wanted = cells("tables")
    tables.write(page, store.renamed(RESULTS, wanted), wanted, 10.0)
    assert page.read_text(encoding="utf-8") == tables.PAGE.read_text(encoding="utf-8"), (
        "make the tables anew: python -m benchmarks.leaderboard --table"
    )
