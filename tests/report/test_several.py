"""The page of several runs: the comparison's own figures, maps over two choices, bands over seeds, pictures."""

import pytest

from se_framework.comparison import compare
from se_framework.comparison.report import charts
from se_framework.comparison.report.build import Maker
from se_framework.comparison.report.page import page
from se_framework.errors import ConfigError, RunDirectoryError
from tests.support.fake_runs import fail, w2
from tests.support.reported import Page, frame, rows_of, shown_run, without_vega, write_table

GRID = {("kl", "mlp"): (1.0, 1.2), ("kl", "mlp_r1"): (0.5, 0.6), ("pearson", "mlp"): (2.0, 2.2)}
EVIL = "<script>alert('x')</script>\""


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Leave Vega out: what is drawn is tested in a browser."""
    with without_vega():
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three objectives of two seeds each, the j-th with D = 100 j + seed + k / 1024 in row k; one that failed."""
    folder = tmp_path_factory.mktemp("several") / "sweep"
    for j, ((divergence, metric), values) in enumerate(GRID.items()):
        for seed, value in enumerate(values):
            rows = rows_of(5) | {"D": [100 * j + seed + k / 1024 for k in range(5)]}
            scores = {"w2": w2(value), "modes": w2(8.0 - j, better="higher")}
            words = [f"divergence={divergence}", f"metric={metric}"]
            path = shown_run(folder / f"{divergence}-{metric}-{seed}", words, seed, scores, rows)
            frame(path / "samples.png", 50 * (j + 1))
    fail(shown_run(folder / "pearson-mlp_r1-0", ["divergence=pearson", "metric=mlp_r1"], 0, None))
    return folder


@pytest.fixture(scope="module")
def found(runs):
    return made(runs, x="divergence", y="metric")


def made(*paths, **options):
    return Page(page(Maker(list(paths), **options).content()))


def test_the_table_is_the_comparisons_with_its_sentence(runs, found):
    own = compare([runs])
    assert found.problems == [] and own.sentence in found.text and "7 runs of 4 objectives" in found.text
    head, *rows = found.table("comparison")
    column = {name: k for k, name in enumerate(head)}
    assert {"metric", "divergence", "w2", "verdict"} <= set(column) and len(rows) == len(own.objectives)
    for row, objective in zip(rows, own.objectives, strict=True):
        assert row[column["divergence"]] == objective.settings["divergence"]
        assert row[column["metric"]] == objective.settings["metric"]
        if objective.mean is not None:
            assert row[column["w2"]].split()[0] == f"{objective.mean:.5g}"
            assert row[column["interval"]].split()[0] == f"{objective.low:.5g}".replace("-", "\u2212")
        assert row[column["seeds"]] == str(objective.n)
    assert "1 failed" in rows[-1][column["runs"]] and rows[-1][column["w2"]] == "\u2013"
    values = [float(a["data-value"]) for a in found.all("td", **{"class": "number"}) if a.get("data-value")]
    assert values[0] == pytest.approx(0.55, rel=1e-12)  # cells are sorted by their number, not by their text


def test_every_run_is_listed_with_what_became_of_it(found):
    head, *rows = found.table("every run")
    assert head[:3] == ["run", "seed", "status"] and len(rows) == 7
    status = {row[0]: row[2] for row in rows}
    assert status["pearson-mlp_r1-0"] == "failed" and status["kl-mlp-1"] == "finished"


def test_a_map_holds_the_mean_of_each_pair_of_choices(found):
    (found,) = found.data["maps"].values()
    assert found["axes"][found["x"]] == "divergence" and found["axes"][found["y"]] == "metric"
    assert found["measures"] == ["w2", "modes"] and found["better"] == ["lower", "higher"]
    place = {axis: k for k, axis in enumerate(found["axes"])}
    means = {(r["at"][place["divergence"]], r["at"][place["metric"]]): r["values"] for r in found["rows"]}
    for j, (pair, values) in enumerate(GRID.items()):
        assert means[pair] == [pytest.approx(sum(values) / 2), 8.0 - j]
    assert means["pearson", "mlp_r1"] == [None, None]


def test_axes_may_be_exchanged_and_an_unknown_one_is_refused(runs):
    (found,) = made(runs, x="metric", y="divergence").data["maps"].values()
    assert (found["axes"][found["x"]], found["axes"][found["y"]]) == ("metric", "divergence")
    with pytest.raises(ConfigError, match="x=metrik: the runs do not differ in it: did you mean 'metric'"):
        made(runs, x="metrik")
    with pytest.raises(ConfigError, match="y=model"):
        made(runs, y="model")


def test_curves_are_means_with_bands_over_seeds_in_one_colour_per_objective(runs, found):
    data = found.charts()["D: divergence D(q, p)"]["data"]
    ranked = sorted(compare([runs]).objectives, key=lambda row: (row.rank is None, row.rank or 0))
    labels = [row.label for row in ranked]
    lines = {one["s"]: one for one in data["line"]}
    order = {pair: j for j, pair in enumerate(GRID)}
    for k, row in enumerate(ranked[:3]):
        j = order[row.settings["divergence"], row.settings["metric"]]
        assert lines[row.label]["y"][0] == pytest.approx(100 * j + 0.5)
        band = next(one for one in data["band"] if one["s"] == row.label)
        assert (band["low"][0], band["high"][0]) == (100 * j, 100 * j + 1)
        assert band["c"] == lines[row.label]["c"] == f"var(--series-{k + 1})"
    assert set(lines) <= set(labels)


def test_pictures_stand_beside_each_other_one_for_each_objective(found):
    alts = [a["alt"] for a in found.all("img") if a.get("alt", "").startswith("samples of")]
    assert len(alts) == 3 and all("seed 0" in alt for alt in alts) and any("pearson" in alt for alt in alts)


def test_symbols_say_over_what_they_vary(found):
    rows = {row[1]: row[2] for row in found.table("what stands for each symbol")}
    assert rows["the divergence"] == "varies: KL() | Pearson()" and rows["the data"] == "Ring8(labels=False)"


def test_members_of_an_ensemble_with_settings_of_their_own_are_rows_with_their_own_lines(tmp_path):
    words = ["ensemble={size: 2, values: {equation.beta: [1.0, 2.0]}}"]
    members = {"members": {"0": 0.5, "1": 0.7}}
    path = shown_run(tmp_path / "a", words, scores={"w2": w2(0.6) | members}, members=2)
    write_table(path / "members.csv", {"round": [1, 1, 2, 2], "member": [0, 1, 0, 1], "D": [1, 5, 2, 6]})
    other = shown_run(tmp_path / "b", ["divergence=kl"], scores=0.1)
    data = made(path, other).charts()["D: divergence D(q, p)"]["data"]
    assert sorted(line["y"] for line in data["line"] if len(line["y"]) == 2) == [[1, 2], [5, 6]]


def test_a_run_that_cannot_be_read_does_not_take_the_page_with_it(tmp_path):
    for seed in range(2):
        shown_run(tmp_path / f"r{seed}", ["divergence=kl"], seed)
    (tmp_path / "r0" / "away").symlink_to(tmp_path)
    assert "symbolic link out of the run directory" in made(tmp_path).text


def test_text_of_strangers_is_escaped_here_too(tmp_path):
    for seed, name in enumerate((EVIL, "kl")):
        path = shown_run(tmp_path / f"r{seed}", ["divergence=kl"], seed, {"w2": w2(1.0 + seed), EVIL: w2(1.0)})
        if name == EVIL:
            config = (path / "config.yaml").read_text()
            (path / "config.yaml").write_text(
                config.replace("divergences.KL", f"'{EVIL.replace(chr(39), chr(39) * 2)}'")
            )
    found = made(tmp_path)
    assert found.problems == [] and EVIL not in found.html and len(found.scripts) == 3
    assert EVIL in found.text or "alert('x')" in found.text


def test_runs_without_rows_or_scores_are_refused(tmp_path):
    for name in "ab":
        path = shown_run(tmp_path / name, [f"seed={ord(name)}"], scores=None)
        (path / "metrics.csv").unlink()
    with pytest.raises(RunDirectoryError, match="holds no run with rows"):
        made(tmp_path)
    assert "0 finished" not in made(tmp_path, live=True).text


def test_only_as_many_objectives_are_drawn_as_there_are_colours(tmp_path):
    names = [
        "kl",
        "pearson",
        "gan",
        "jensen_shannon",
        "reverse_kl",
        "neyman",
        "le_cam",
        "jeffreys",
        "squared_hellinger",
    ]
    for k, name in enumerate(names):
        shown_run(tmp_path / name, [f"divergence={name}"], 0, float(k))
    found = made(tmp_path)
    lines = found.charts()["D: divergence D(q, p)"]["data"]["line"]
    assert len(lines) == 8 == len({line["c"] for line in lines}) and not any("hellinger" in line["s"] for line in lines)
    assert "Of 9 objectives the best 8 are drawn" in found.text
    assert set(charts.SPECS) >= {chart["kind"] for chart in found.data["charts"].values()}
