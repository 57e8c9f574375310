"""se-compare as a user meets it, and what a run records for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import se_framework as se
from se_framework.commands.costs import Costs, logged_seconds
from se_framework.commands.train import train_run
from se_framework.comparison.runs import read_runs
from se_framework.config.composing import compose
from se_framework.config.schema import validate
from tests.support.commands import environment, fresh, small_scores
from tests.support.fake_runs import fake_rows

COMPARE = [sys.executable, "-m", "se_framework.commands.compare"]
WON = {"kl": [0.5, 0.52, 0.54], "gan": [0.9, 0.921, 0.939]}
SHORT = ["data=ring8", "loop.batch_size=16", "loop.log_every=2", "device=cpu", "progress=false"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return fake_rows(tmp_path_factory.mktemp("runs") / "a=b", WON)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Return what runs the command in this process, as its code, output and errors."""
    from se_framework.commands import compare

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["se-compare", *map(str, words)])
        try:
            compare.main()
            code = 0
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


def test_the_command_prints_a_table_and_loads_nothing_heavy(runs):
    program = "import atexit, sys\natexit.register(lambda: print(sorted({'torch', 'matplotlib'} & {*sys.modules})))\n"
    program += "from se_framework.commands.compare import main\nmain()"
    done = fresh([sys.executable, "-c", program, runs.name], runs.parent)  # a directory may be called a=b
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "divergence=kl is best in w2 (0.520, 95 % interval 0.470 to 0.570, 3 seeds)" in done.stdout


def test_who_reads_the_first_line_alone_ends_nothing(runs, tmp_path):
    with subprocess.Popen([*COMPARE, runs], cwd=tmp_path, env=environment(), stdout=-1, stderr=-1) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 0


def test_help_lists_all(command):
    code, told, _ = command("--help")
    assert code == 0
    for word in ("RUN_OR_SWEEP...", "--score", "--by", "--level", "--format", "--out", "markdown"):
        assert word in told


@pytest.mark.parametrize("ending, start", [(".md", "| divergence |"), (".csv", "task,divergence,"), (".json", "{\n"),
                                           (".tex", "% "), (".html", "<table>"), (".txt", "divergence ")])  # fmt: skip
def test_a_file_is_of_the_kind_that_its_ending_says(ending, start, command, runs, tmp_path):
    code, told, _ = command(runs, f"out=table{ending}")
    assert code == 0 and told.splitlines()[-1] == f"se-compare: 6 runs in table{ending}"
    assert (tmp_path / f"table{ending}").read_text().startswith(start)
    assert command(runs, f"out=table{ending}", "format=json")[0] == 0
    assert json.loads((tmp_path / f"table{ending}").read_text())["score"] == "w2"


@pytest.mark.parametrize(
    "words, said",
    [
        (["scor=w2"], "unknown key 'scor': did you mean 'score'?"),
        (["score=w3"], "score=w3: none of the 6 finished runs has it: known: w2"),
        (["format=pdf"], "format=pdf: no such format; known: csv, html, json, latex, markdown, text"),
        (["out=table.pdf"], "out: table.pdf must end in .txt or .csv or"),
        (["out=nowhere/t.md"], "the directory nowhere does not exist"),
        (["level=x"], "level must be a number, got 'x'"),
        (["level=2"], "level must lie in 0.5..1, below 1, got 2"),
        (["by=nothing"], "by=nothing: no run has that key"),
        (["nowhere"], "nowhere is no run: it does not exist"),
        (["w2"], "w2 is no run: it does not exist"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(words, said, command, runs, tmp_path):
    code, told, error = command(runs, *words)
    assert code == 1 and said in error and error.count("\n") == 1 and not told
    assert not list(tmp_path.iterdir())


def test_without_a_directory(command):
    assert "a run directory is needed: se-compare RUN_OR_SWEEP..." in command()[2]


# -- what a run records -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2])
def test_a_finished_run_tells_its_parameters_and_seconds(size, tmp_path, monkeypatch):
    small_scores(monkeypatch)
    for picture in ("commands.train.curves", "assembly.Assembly.plot"):
        monkeypatch.setattr(f"se_framework.{picture}", lambda *_, **__: None)
    words = [*SHORT, "loop.rounds=4", f"ensemble.size={size}"]
    outcome = train_run(validate(compose("vanilla_gan", words)), tmp_path / "run", words)
    found = read_runs([outcome.directory])
    alone = se.compose("vanilla_gan", [*SHORT, "loop.rounds=4"])
    numbers = {"theta": alone.model, "phi": alone.metric}
    assert found[0].players == {k: sum(p.numel() for p in part.parameters()) for k, part in numbers.items()}
    assert [own.status for own in found] == ["finished"] * size and found[0].clock == "processor"
    assert found[0].parameters == sum(found[0].players.values()) and 0 < found[0].seconds and 0 < found[0].wall
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert sum(own.seconds for own in found) == pytest.approx(told["processor_seconds"], rel=1e-12)


def test_the_clock_of_a_resumed_run_starts_again_in_its_rows():
    rows = [{"seconds": s} for s in (1.0, 3.0, 0.5, 2.0, 0.25)]
    assert logged_seconds(rows) == 3.0 + 2.0 + 0.25 and logged_seconds([]) == 0 and logged_seconds([{}]) == 0
    for nonsense in ("0x10", "", "nan", float("nan"), float("inf"), -5.0):  # a table that anybody may have written
        assert logged_seconds([{"seconds": 3.0}, {"seconds": nonsense}, {"seconds": 4.0}]) == 4.0


def test_of_a_resumed_run_the_wall_is_known_as_far_as_its_rows_tell():
    assembly = se.compose("vanilla_gan", [*SHORT, "loop.rounds=2"])
    assembly.state.round, assembly.state.history = 1, [{"round": 1.0, "seconds": 100.0}]
    spent = Costs(assembly).spent(assembly)
    assert 100 <= spent["seconds"] < 1000 and "processor_seconds" not in spent
    assembly.state.history = []
    assert "seconds" not in Costs(assembly).spent(assembly)
