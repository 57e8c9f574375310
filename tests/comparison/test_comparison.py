"""Which is best, and is that sure: rows, verdicts and the sentence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import se_framework as se
from se_framework.comparison.comparison import compare
from se_framework.comparison.runs import read_runs
from se_framework.errors import ConfigError, RunDirectoryError
from tests.support.fake_runs import fail, fake_rows, fake_run, fake_sweep, w2

TIED = {"kl": [0.5, 0.52, 0.54], "gan": [0.51, 0.515, 0.55]}
WON = {"kl": [0.5, 0.52, 0.54], "gan": [0.9, 0.921, 0.939], "renyi": [1.5, 1.52, 1.543]}


def compared(folder, *more, **options):
    return compare(read_runs([folder, *more]), **options)


def by_name(found):
    return {row.label.removeprefix("divergence="): row for row in found.objectives}


# -- rows -------------------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_seed_alone_are_one_row(tmp_path):
    found = compared(fake_rows(tmp_path, WON))
    assert [row.label for row in found.objectives] == ["divergence=kl", "divergence=gan", "divergence=renyi"]
    assert found.columns == ("divergence",) and found.score == "w2" and found.tasks == ("",)
    for row, values in zip(found.objectives, WON.values(), strict=True):
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        np.testing.assert_allclose([row.mean, row.low, row.high], [np.mean(values), low, high], rtol=1e-9)
        assert [point.value for point in row.points] == values and row.n == 3
        assert [point.seed for point in row.points] == [0, 1, 2] and row.references == {"real_vs_real": 0.1}
    best, gan, renyi = found.objectives
    p = [stats.ttest_rel(*pair).pvalue for pair in [(WON["kl"], WON["gan"]), (WON["kl"], WON["renyi"]),
                                                    (WON["gan"], WON["renyi"])]]  # fmt: skip
    order = np.argsort(p)
    holm = dict(zip(order, np.maximum.accumulate(np.sort(p) * [3, 2, 1]), strict=True))
    np.testing.assert_allclose([gan.p_alone, renyi.p_alone, gan.p, renyi.p], [p[0], p[1], holm[0], holm[1]], rtol=1e-9)
    assert best.p is None and gan.paired and (best.verdict, gan.verdict) == ("best", "worse")
    np.testing.assert_allclose(gan.difference, np.mean(WON["gan"]) - np.mean(WON["kl"]), rtol=1e-12)


def test_other_seeds_are_not_paired(tmp_path):
    for seed, (one, other) in enumerate(zip(TIED["kl"], TIED["gan"], strict=True)):
        fake_run(tmp_path / f"kl{seed}", ["divergence=kl"], seed, one)
        fake_run(tmp_path / f"gan{seed}", ["divergence=gan"], seed + 10, other)
    row = by_name(compared(tmp_path))["gan"]
    assert not row.paired
    np.testing.assert_allclose(row.p, stats.ttest_ind(TIED["kl"], TIED["gan"], equal_var=False).pvalue, rtol=1e-9)


def test_what_was_trained_otherwise_is_another_row(tmp_path):
    for rounds in (50, 100):
        words = f"loop.rounds={rounds}", f"loop.horizon={rounds}"  # a run keeps what null was resolved to
        fake_rows(tmp_path / str(rounds), {"kl": [0.5 + rounds, 0.51 + rounds]}, *words)
    fail(fake_run(tmp_path / "at once", ["divergence=kl"], 2))  # before that
    found = compared(tmp_path)
    assert [row.label for row in found.objectives] == ["loop.rounds=50", "loop.rounds=100"]
    assert [row.counts for row in found.objectives] == [{"finished": 2}, {"finished": 2, "failed": 1}]


def test_the_order_in_which_runs_are_found_is_nothing(tmp_path):
    fake_rows(tmp_path, WON)
    runs = read_runs([tmp_path])
    assert compare(runs[::-1]).sentence == compare(runs).sentence


def test_higher_and_nearer_are_better_where_a_score_says_so(tmp_path):
    def scores(value):
        nearer = w2(value, better="nearer", references={"real": 0.0, "perfect": 0.9})
        return {"w2": w2(value, better="higher"), "share": nearer, "real": nearer | {"references": {"real": 1.5}}}

    for name, values in {"kl": [0.5, 0.51], "gan": [0.86, 0.85], "renyi": [1.4, 1.42]}.items():
        for seed, value in enumerate(values):
            fake_run(tmp_path / f"{name}{seed}", [f"divergence={name}"], seed, scores(value))
    names = {score: list(by_name(compared(tmp_path, score=score))) for score in ("w2", "share", "real")}
    assert names == {"w2": ["renyi", "gan", "kl"], "share": ["gan", "kl", "renyi"], "real": ["renyi", "gan", "kl"]}
    row = by_name(compared(tmp_path))["kl"]
    np.testing.assert_allclose([row.mean, row.difference], [0.505, 0.505 - 1.41], rtol=1e-12)
    assert row.difference_low < row.difference < row.difference_high < 0
    nearer = by_name(compared(tmp_path, score="share"))["renyi"]  # of distances: |1.41 - 0.9| less |0.855 - 0.9|
    np.testing.assert_allclose(nearer.difference, 0.51 - 0.045, rtol=1e-9)


def test_two_runs_of_a_seed_are_one_repeat(tmp_path):
    fake_rows(tmp_path, TIED)
    fake_run(tmp_path / "again", ["divergence=kl"], 2, 0.58)
    found = compared(tmp_path)
    row = by_name(found)["kl"]
    assert row.n == 3 and len(row.points) == 4
    np.testing.assert_allclose(row.mean, np.mean([0.5, 0.52, 0.56]), rtol=1e-12)
    assert "divergence=kl has 2 runs of seed 2: they are one repeat, their mean" in found.notes


# -- what has no value ------------------------------------------------------------------------------------------------


def test_runs_without_a_value_are_counted_and_named(tmp_path):
    fake_rows(tmp_path, {"kl": [0.5, 0.52, None], "gan": [0.7, math.nan, 0.9], "renyi": [None, None]})
    fake_run(tmp_path / "cut", ["divergence=gan"], 3)
    found = compared(tmp_path)
    rows = by_name(found)
    assert [row.verdict for row in found.objectives] == ["best", "tied", "no value"]
    assert rows["kl"].counts == {"finished": 2, "failed": 1} and rows["kl"].n == 2
    assert rows["gan"].counts == {"finished": 3, "not finite": 1, "stopped": 1} and rows["gan"].n == 2
    assert rows["renyi"].mean is None and rows["renyi"].counts == {"failed": 2} and len(rows["renyi"].points) == 2
    failed, stopped = found.notes
    assert failed.startswith("3 runs are failed and not in the means: ") and failed.count("output is inf") == 1
    assert all(str(tmp_path / name) in failed for name in ("kl-2", "renyi-0", "renyi-1"))
    assert stopped == f"1 run is stopped and not in the means: {tmp_path / 'cut'} (it has no summary.json)"
    assert "divergence=renyi has no value; 1 of its 3 runs has no value." in found.sentence


def test_scores_of_a_run_that_has_not_finished_are_not_its_scores(tmp_path):
    fake_rows(tmp_path, TIED)
    fake_run(tmp_path / "short", ["divergence=kl"], 3, 0.0, rounds=50)
    row = by_name(compared(tmp_path))["kl"]
    assert row.n == 3 and row.counts == {"finished": 3, "stopped": 1}
    assert row.points[-1].value is None and "of round 50 of 100" in row.points[-1].why


def test_a_row_of_infinite_values_is_not_the_best(tmp_path):
    fake_rows(tmp_path, {"kl": [-math.inf, -math.inf], "gan": [0.5, 0.6]})
    found = compared(tmp_path)
    assert found.objectives[0].label == "divergence=gan" and found.objectives[1].counts["not finite"] == 2


def test_nothing_has_finished(tmp_path):
    found = compared(fake_rows(tmp_path, {"kl": [None, None], "gan": [None]}))
    assert found.score is None and found.sentence == "none of 3 runs has a score, so nothing is compared."
    assert [by_name(found)[name].counts for name in ("kl", "gan")] == [{"failed": 2}, {"failed": 1}]
    assert str(found).count("failed") >= 3


def test_a_run_of_which_nothing_is_known_is_named(tmp_path):
    fake_rows(tmp_path, TIED)
    (fake_run(tmp_path / "torn") / "config.yaml").write_text("[")
    assert any("1 run is unreadable" in note and "torn" in note for note in compared(tmp_path).notes)
    (alone,) = read_runs([tmp_path / "torn"])
    assert compare([alone]).sentence == "nothing is known of these runs." and "torn" in str(compare([alone]))


def test_a_job_without_a_run_stands_in_the_row_of_its_words(tmp_path):
    jobs = [
        ("kl", 0, 0.5),
        ("kl", 1, 0.6),
        ("kl", 2, "killed"),
        ("gan", 0, 0.7),
        ("gan", 1, 0.9),
        ("renyi", 0, "failed"),
    ]
    found = compared(fake_sweep(tmp_path, jobs))
    rows = by_name(found)
    assert list(rows) == ["kl", "gan", "renyi"] and found.columns == ("divergence",)
    assert rows["kl"].counts == {"finished": 2, "killed": 1} and rows["renyi"].settings == {"divergence": "renyi"}


# -- the sentence -----------------------------------------------------------------------------------------------------


def test_a_planted_winner_is_named(tmp_path):
    assert compared(fake_rows(tmp_path, WON)).sentence == (
        "divergence=kl is best in w2 (0.520, 95 % interval 0.470 to 0.570, 3 seeds): divergence=gan and "
        "divergence=renyi are worse (p < 0.0001 after Holm)."
    )


def test_a_planted_tie_cannot_be_told(tmp_path):
    said = compared(fake_rows(tmp_path, TIED)).sentence
    p = stats.ttest_rel(TIED["kl"], TIED["gan"]).pvalue
    assert said == (
        "divergence=kl has the best w2 (0.520, 95 % interval 0.470 to 0.570, 3 seeds), which is not sure: "
        f"divergence=gan cannot be told from it (p {p:.2g} after Holm)."
    )


def test_many_are_counted(tmp_path):
    rows = {name: [k + 1.5, k + 1.52, k + 1.54 + k / 100] for k, name in enumerate(["renyi", "kl", "gan", "jeffreys"])}
    said = compared(fake_rows(tmp_path, {"alpha": [0.5, 0.53, 0.54], "le_cam": [0.51, 0.5, 0.57], **rows})).sentence
    assert "which is not sure: divergence=le_cam cannot be told from it" in said and "; 4 others are worse (p " in said
    winner = compared(fake_rows(tmp_path / "b", {"alpha": [0.5, 0.53, 0.54], **rows})).sentence
    assert "divergence=alpha is best in w2" in winner and "): all 4 others are worse (p " in winner
    tied = compared(fake_rows(tmp_path / "c", {name: [0.5, 0.53 + k, 0.1 * k] for k, name in enumerate(rows)})).sentence
    assert "3 others cannot be told from it (p " in tied


def test_with_one_seed_nothing_is_sure(tmp_path):
    said = compared(fake_rows(tmp_path, {"kl": [0.5], "gan": [5.0]})).sentence
    assert said == (
        "divergence=kl has the best w2 (0.5, 1 seed), but with one seed each nothing is sure: train more (seed=0,1,2)."
    )
    said = compared(fake_run(tmp_path / "renyi", ["divergence=renyi"], 3, 0.1), tmp_path).sentence
    assert "nothing is sure" in said


def test_one_configuration_is_nothing_to_compare(tmp_path):
    found = compared(fake_rows(tmp_path, {"kl": [0.5, 0.52, 0.54]}))
    assert found.columns == () and found.sentence == (
        "there is one configuration only, so nothing is compared: "
        "its w2 (0.520, 95 % interval 0.470 to 0.570, 3 seeds)."
    )


def test_the_verdict_is_the_test_that_is_simulated(tmp_path):
    """Forty draws, near the edge of the test: the sentence says what scipy's paired t says."""
    draw, verdicts = np.random.default_rng(0), set()
    runs = read_runs([fake_rows(tmp_path, {"kl": [0.0] * 4, "gan": [0.0] * 4})])
    for _ in range(40):
        values = draw.standard_normal((2, 4)) + [[0], [2.2]]
        for own, value in zip(
            sorted(runs, key=lambda r: (r.settings["divergence"] != "kl", r.seed)), values.flat, strict=True
        ):
            own.scores["w2"]["value"] = value
        found = compare(runs)
        worse = stats.ttest_rel(*values).pvalue <= 0.05
        verdicts.add(worse)
        assert found.objectives[1].verdict == ("worse" if worse else "tied")
        assert ("cannot be told" in found.sentence) != worse
    assert verdicts == {True, False}


def test_shared_seeds_that_say_the_contrary_do_not_make_it_worse(tmp_path):
    """Best over its own four seeds, and surely worse at the two that both have."""
    fake_rows(tmp_path, {"kl": [0.5, 0.6, -9.0, -9.0], "gan": [0.4, 0.5001]})
    row = by_name(compared(tmp_path))["gan"]
    assert row.paired and row.p < 0.05 and row.difference < 0 and row.verdict == "tied"


# -- several data sets ------------------------------------------------------------------------------------------------


def on_tasks(folder, tasks):
    for task, rows in tasks.items():
        fake_rows(folder / task, rows, f"data={task}")
    return compared(folder)


def test_data_sets_are_ranked_apart_and_never_pooled(tmp_path):
    far = {name: [100 * value for value in values] for name, values in WON.items()}
    found = on_tasks(
        tmp_path,
        {"ring8": WON, "moons": far, "grid25": {"kl": [9.0, 9.1, 9.2], "gan": [1.0, 1.1, 1.2], "renyi": [None]}},
    )
    assert set(found.tasks) == {"ring8", "moons", "grid25"} and found.columns == ("divergence",)
    assert [rank.label for rank in found.ranks] == ["divergence=kl", "divergence=gan", "divergence=renyi"]
    assert found.ranks[0].ranks == {"ring8": 1, "moons": 1, "grid25": 2} and found.ranks[2].ranks["grid25"] == 3
    low, high = stats.t.interval(0.95, 2, 4 / 3, stats.sem([1, 1, 2]))
    np.testing.assert_allclose(
        [found.ranks[0].mean, found.ranks[0].low, found.ranks[0].high], [4 / 3, low, high], rtol=1e-9
    )
    assert found.ranks[0].middle is None  # of three tasks there is no middle half
    for task in found.tasks:
        assert f"{task}: divergence=" in found.sentence
    assert "Over 3 tasks divergence=kl has the least mean rank, 1.33" in found.sentence


def test_a_shared_rank_is_told_as_one(tmp_path):
    one = {"kl": [0.5, 0.6], "gan": [0.7, 0.8]}
    found = on_tasks(tmp_path, {"ring8": one, "moons": {"kl": one["gan"], "gan": one["kl"]}})
    assert found.sentence.endswith("Over 2 tasks divergence=gan and divergence=kl share the least mean rank, 1.5.")


def test_ranks_among_fewer_are_no_mean_and_four_tasks_have_a_middle_half(tmp_path):
    tasks = dict.fromkeys(("ring8", "moons", "grid25", "checkerboard"), {"kl": [0.5, 0.6], "gan": [0.7, 0.8]})
    tasks["moons"] = {"kl": [0.5, 0.6], "gan": [0.1, 0.2], "renyi": [0.8, 0.9]}
    found = on_tasks(tmp_path, tasks)
    ranks = {rank.label: rank for rank in found.ranks}
    assert ranks["divergence=renyi"].mean is None and ranks["divergence=kl"].middle == stats.trim_mean(
        [1, 2, 1, 1], 0.25
    )


def test_another_key_may_separate_tasks(tmp_path):
    fake_rows(tmp_path / "a", TIED, "optimizer.lr=0.1")
    fake_rows(tmp_path / "b", WON, "optimizer.lr=0.2")
    found = compared(tmp_path, by="optimizer.lr")
    assert found.tasks == ("0.1", "0.2") and found.columns == ("divergence",)
    with pytest.raises(ConfigError, match="by=optimiser.lr: no run has that key: did you mean 'optimizer.lr'"):
        compared(tmp_path, by="optimiser.lr")


# -- what cannot be compared ------------------------------------------------------------------------------------------


def test_runs_without_a_common_score_are_refused_and_told_which_have_which(tmp_path):
    for seed in range(3):
        fake_run(tmp_path / f"a{seed}", ["divergence=kl"], seed, 0.5)
    fake_run(tmp_path / "b", ["divergence=gan"], 0, {"nll": w2(0.5)})
    with pytest.raises(ConfigError, match=r"no score in common \(w2 3 of 4, first .*a0; nll 1 of 4, first .*b\)"):
        compared(tmp_path)
    found = compared(tmp_path, score="w2")
    assert by_name(found)["gan"].counts == {"finished": 1, "no score": 1}
    assert by_name(found)["gan"].points[0].why == "it has no w2"
    with pytest.raises(ConfigError, match="score=w3: none of the 4 finished runs has it: known: nll, w2"):
        compared(tmp_path, score="w3")


@pytest.mark.parametrize(
    "key, value, words",
    [("unit", "pixels", "unit is unit of the data"), ("better", "higher", "direction is lower"),
     ("n", 7, "number of samples is 1000"), ("bound", "lower bound of x", "bound is -")],
)  # fmt: skip
def test_a_score_that_is_not_measured_alike_is_refused(key, value, words, tmp_path):
    fake_rows(tmp_path, TIED)
    fake_run(tmp_path / "other", ["divergence=renyi"], 0, {"w2": w2(0.5, **{key: value})})
    with pytest.raises(ConfigError, match=f"score=w2 is not measured alike: its {words} in .* and {value} in .*other"):
        compared(tmp_path)


def test_what_adds_noise_is_said(tmp_path):
    fake_rows(tmp_path, TIED)
    fake_run(tmp_path / "other", ["divergence=renyi"], 0, {"w2": w2(0.5, seed=1)})
    (tmp_path / "other" / "data.json").write_text('{"fingerprint": "sha256:x"}')
    notes = compared(tmp_path).notes
    assert any("different evaluation seeds" in note for note in notes)
    assert any("different fingerprints under one name" in note for note in notes)


def test_a_score_that_ranks_nothing_is_refused(tmp_path):
    for name in ("kl", "gan"):
        bound = {"value": 0.5, "n": 10, "seed": 0, "bound": f"lower bound of {name}"}
        lost = {"value": 0.5, "better": "nearer", "n": 1, "seed": 0}
        fake_run(tmp_path / name, [f"divergence={name}"], 0, {"w2": w2(0.5), "held_out_value": bound, "lost": lost})
    for score in ("held_out_value", "lost"):
        with pytest.raises(ConfigError, match=f"score={score}: it ranks nothing"):
            compared(tmp_path, score=score)
    assert compared(tmp_path).score == "w2"


def test_options_out_of_range(tmp_path):
    for level in (0.3, 1.0, math.nan):
        with pytest.raises(ConfigError, match="level must lie in"):
            compared(fake_run(tmp_path / f"{level}", scores=1.0), level=level)
    with pytest.raises(ConfigError, match="there are no runs to compare"):
        compare([])


# -- from Python ------------------------------------------------------------------------------------------------------


def test_python_compares_paths(tmp_path):
    fake_rows(tmp_path, WON)
    found = se.compare([str(tmp_path)], score="w2", level=0.9)
    assert found.sentence == compared(tmp_path, level=0.9).sentence and "90 % interval" in found.sentence
    with pytest.raises(RunDirectoryError):
        se.compare([tmp_path / "nowhere"])


def test_failed_members_of_an_ensemble_are_counted(tmp_path):
    entry = {"w2": w2(0.6, members={"0": 0.5, "2": 0.7})}
    fake_run(tmp_path / "run", ["ensemble.size=3"], 0, entry, frozen={"1": "member 1: not finite"})
    (row,) = compared(tmp_path).objectives
    assert row.counts == {"finished": 2, "failed": 1} and row.mean == 0.6


def test_costs_are_means_of_the_clock_that_all_have(tmp_path):
    fake_run(tmp_path / "a", ["divergence=kl"], 0, 0.5, seconds=4.0, processor_seconds=1.0, parameters={"theta": 7})
    fake_run(tmp_path / "b", ["divergence=kl"], 1, 0.5, seconds=6.0, processor_seconds=2.0, parameters={"theta": 7})
    found = compared(tmp_path)
    assert (found.clock, found.objectives[0].seconds, found.objectives[0].parameters) == ("processor", 1.5, 7)
    fake_run(tmp_path / "c", ["divergence=kl"], 2, 0.5, seconds=8.0)
    found = compared(tmp_path)
    assert (found.clock, found.objectives[0].seconds) == ("wall", 6.0)
    fail(fake_run(tmp_path / "d", ["divergence=kl"], 3))
    assert compared(tmp_path).objectives[0].seconds == 6.0
