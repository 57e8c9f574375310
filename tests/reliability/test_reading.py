"""Whatever is read from a run directory goes through one reader: regular files, of limited size, typed."""

import json
import os
import shutil
import threading

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import se_framework as se
from se_framework.commands import train
from se_framework.config.composing import compose
from se_framework.config.resuming import newest_run
from se_framework.config.saved import MOST_WORKERS, saved_config
from se_framework.errors import LONGEST, ConfigError, DataError, RunDirectoryError, SEError, printable
from se_framework.pictures.frames import animate
from se_framework.pictures.plots import MOST_PANELS, _columns
from se_framework.reading import UnreadableError, parse_json, read_bytes, read_json
from se_framework.runs.checkpoint import decode, encode
from se_framework.runs.directory import RunDirectory
from se_framework.runs.files import append_row, read_rows
from se_framework.runs.lock import locked
from se_framework.runs.sweeps import table
from tests.support.commands import ROOT, VERIFY, fresh
from tests.support.runs import unscored

TINY = [
    "experiment=wgan_gp",
    "data=ring8",
    "model.width=4",
    "metric.network.width=4",
    "loop.rounds=2",
    "loop.batch_size=8",
    "loop.log_every=1",
    "progress=false",
    "device=cpu",
    "players.theta.ema=0.9",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of our own."""
    return unscored(tmp_path_factory.mktemp("run") / "run", TINY)


@pytest.fixture
def run(finished, tmp_path):
    """A copy to be spoilt."""
    return RunDirectory(shutil.copytree(finished, tmp_path / "run"))


def resume(run, rounds=3):
    typed = [f"resume={run.path}", f"loop.rounds={rounds}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "finish", lambda *a: 0.0)
        train.train_run(compose(None, typed), run.path, typed)


# -- the reader -------------------------------------------------------------------------------------------------------


def link(file):
    (file.parent / "real").write_text("{}")
    file.symlink_to("real")


def sparse(file):
    with open(file, "wb") as stream:
        stream.truncate(2**41)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "no regular file"),
        (os.mkdir, "a directory"),
        (link, "a symbolic link"),
        (sparse, "2199023255552 bytes"),
        (lambda f: f.write_text("[" * 101 + "]" * 101), "deeper than 100"),
        (lambda f: f.write_text("[" * 10**5), "not JSON"),
        (lambda f: f.write_text('{"a": ' + "9" * 5000 + "}"), "not JSON"),
        (lambda f: f.write_text("[1]"), "no names"),
    ],
)
def test_only_regular_files_of_limited_size_are_read(make, words, tmp_path):
    make(tmp_path / "a.json")
    with pytest.raises(UnreadableError, match=words):
        read_json(tmp_path / "a.json")


def test_a_device_is_no_file_even_through_a_link_that_is_followed(tmp_path):
    (tmp_path / "a").symlink_to("/dev/zero")
    with pytest.raises(UnreadableError, match="no regular file"):
        read_bytes(tmp_path / "a", 10, links=True)
    assert parse_json("[" * 100 + "]" * 100)


FILES = ("config.yaml", "data.json", "metrics.csv", "scores.csv", "checkpoints/round_00000002.safetensors", ".lock")


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_a_run_hangs_nobody(name, run):
    """Who opens one to read waits for a writer: 20 seconds are enough to see that nobody does."""
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    found = []

    def attempt():
        try:
            resume(run)
            found.append(None)
        except SEError as error:
            found.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert found and (found[0] is None or name.rpartition("/")[2] in found[0])


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no column 'round'"),
        ("round,D\nx,2\n", "line 2 has 'x' for round"),
        ("round,D\n,2\n", "has '' for round"),
        ("round,D\n-1,2\n", "has '-1' for round"),
        ("round,D\n1e999,2\n", "for round"),
        ("round,D\nnan,2\n", "for round"),
        ("round," + ",".join(f"c{i}" for i in range(1000)) + "\n", "1001 columns"),
        ("round,round\n1,2\n", "some of one name"),
        ("round,D\n1," + "9" * 200_000 + "\n", "none of a table"),
    ],
)
def test_a_table_that_is_none_is_refused_and_left_as_it_is(text, words, run):
    run.metrics_file.write_text(text)
    calls = (lambda: resume(run), lambda: se.load(run.path))
    for call in calls if words == "no column 'round'" else (run.rows,):
        with pytest.raises(RunDirectoryError, match=words) as error:
            call()
        assert str(run.metrics_file) in str(error.value) and len(str(error.value)) < LONGEST
    assert run.metrics_file.read_text() == text


def test_a_table_of_scores_has_its_columns(run):
    run.scores_file.write_text("round,w2\n1,2\n")
    with pytest.raises(RunDirectoryError, match="no column 'to_minimise'"):
        run.best()
    run.scores_file.write_text("round,to_minimise\n1.0,0.5\n2,nan\n")
    assert run.best() == []  # round 1 has no checkpoint, and round 2 no number


def test_a_table_of_many_cells_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("se_framework.runs.tables.MOST_CELLS", 10)
    (tmp_path / "a.csv").write_text("round,D\n" + "1,2\n" * 5)
    assert len(read_rows(tmp_path / "a.csv")) == 5
    (tmp_path / "a.csv").write_text("round,D\n" + "1,2\n" * 6)
    with pytest.raises(RunDirectoryError, match="more than 10 cells"):
        read_rows(tmp_path / "a.csv")


def test_an_empty_table_is_given_its_header(tmp_path):
    (tmp_path / "a.csv").touch()
    append_row(tmp_path / "a.csv", {"round": 1.0, "D": 0.5})
    assert read_rows(tmp_path / "a.csv") == [{"round": "1", "D": "0.5"}]


def test_as_many_columns_are_drawn_as_end(tmp_path):
    names = [f"c{i}" for i in range(900)]
    (tmp_path / "a.csv").write_text(f"round,{','.join(names)}\n1{',2' * 900}\n")
    assert list(_columns(tmp_path / "a.csv")) == names[:MOST_PANELS]


# -- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", '{"fingerprint": 3}', "[" * 5000, '{"fingerprint": "' + "x" * 2**22 + '"}']
)
def test_a_record_of_the_data_that_is_none_is_refused(text, run):
    (run.path / "data.json").write_text(text)
    with pytest.raises(RunDirectoryError, match="data.json cannot be read"):
        resume(run)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{}",
        '{"round": "x"}',
        '{"round": 9, "scores": 3}',
        '{"round": 9, "scores": {"w2": {"value": null}}}',
        "[" * 5000,
    ],
)
def test_a_summary_that_is_none_is_no_finished_run(text, run):
    (run.path / "summary.json").write_text(text)
    assert train.finished_score(run, saved_config(run)) is None


def test_a_job_of_a_sweep_that_left_no_result_costs_its_own_row_only(tmp_path):
    for name, text in {
        "0": "[",
        "1": '{"job": "x", "overrides": []}',
        "2": '{"job": 2, "overrides": ["a=1"], "score": 3}',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
    assert table(sorted(tmp_path.glob("*/result.json"))).splitlines()[1:] == ["2,,3,1,,"]


# -- checkpoints ------------------------------------------------------------------------------------------------------


def put(path, value):
    """Return what puts a value into a state, under a path."""

    def change(state):
        *parents, last = (int(name) if name.lstrip("-").isdigit() else name for name in path.split("/"))
        for name in parents:
            state = state[name]
        state[last] = value

    return change


MOMENT = "players/theta/optimizer/state/0"
WEIGHT = "equation/model.body.0.weight"
SPOILT = {
    "players": (put("players", 5), "players 5"),
    "round": (put("round", "x"), "round is not a count, but 'x'"),
    "huge round": (put("round", 10**30), "round is not a count"),
    "negative": (put("samples", -1), "samples is not a count"),
    "true": (put("samples", True), "samples is not a count"),
    "seed": (put("seed", [0]), "seed a list"),
    "format": (put("format", []), "format a list"),
    "a player": (put("players/theta", 3), "players.theta is not a mapping"),
    "steps": (put("players/phi/steps_taken", None), "steps_taken is not a count"),
    "no state": (put("players/theta/optimizer", None), "optimizer.state"),
    "a moment": (put(MOMENT, None), "parameter 0 holds None"),
    "a moment's shape": (put(f"{MOMENT}/exp_avg", torch.zeros(3)), "exp_avg has shape \\(3,\\)"),
    "a moment's type": (put(f"{MOMENT}/exp_avg", torch.zeros(1, dtype=torch.bool)), "type torch.bool"),
    "no moment": (put(f"{MOMENT}/exp_avg", None), "cannot step from it"),
    "a number": (put(f"{MOMENT}/exp_avg_sq", 3), "exp_avg_sq is no tensor but 3"),
    "another parameter": (put("players/theta/optimizer/state/x", {}), "parameter 'x': there are"),
    "a parameter before the first": (put("players/theta/optimizer/state/-1", {}), "parameter -1: there are"),
    "one after the last": (put("players/theta/optimizer/state/99", {}), "parameter 99: there are"),
    "no average": (put("players/theta/average", None), "average is not a mapping"),
    "the average": (put("players/theta/average/n_averaged", torch.zeros(9)), "n_averaged has shape"),
    "weights": (put("equation", []), "equation is not a mapping"),
    "members": (put("members", 5), ""),
    # A tensor of none or of several numbers has no answer to a comparison.
    **{f"{key}, tensors": (put(key, torch.zeros(n)), "of this run|is not|holds|tensor") for n, key in
       enumerate(["round", "seed", "format", "samples", "players", "equation", "best", "players/phi/steps_taken",
                  "players/phi/optimizer_type", "players/theta/average", MOMENT], start=0)},
    "no best round": (put("best", {"value": 1.0, "equation": {}}), "lacks best.round"),
    "best of no value": (put("best", {"round": 1, "value": [], "equation": {}}), "best.value is not a number"),
    "best weights": (put("best", {"round": 1, "value": 1.0, "equation": 3}), "best.equation is not a mapping"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_a_checkpoint_is_held_against_what_receives_it(name, run):
    """Its checksum holds: a stranger can compute one. What is refused leaves no number of the state changed."""
    file = run.checkpoints()[0]
    state = decode(file.read_bytes())
    change, words = SPOILT[name]
    change(state)
    file.write_bytes(encode(state))
    if not words:  # what nobody asks for is passed over
        assert se.load(run.path).state.round == 2
        return
    with pytest.raises(RunDirectoryError, match=words) as error:
        se.load(run.path)
    assert "the checkpoint" in str(error.value) or str(file) in str(error.value)


def test_a_weight_of_another_type_is_refused_by_name(run):
    file = run.checkpoints()[0]
    state = decode(file.read_bytes())
    name = next(iter(state["equation"]))
    state["equation"][name] = state["equation"][name].to(torch.complex64)
    file.write_bytes(encode(state))
    with pytest.raises(RunDirectoryError, match=f"{name} has shape .* and type torch.complex64"):
        se.load(run.path)


@pytest.mark.parametrize("key", ["members", "frozen"])
def test_the_members_of_an_ensemble_are_counted(key, tmp_path):
    typed = [*TINY, "ensemble.size=2", "loop.rounds=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "finish_ensemble", lambda *a: 0.0)
        train.train_run(compose(None, typed), tmp_path / "run", typed)
    file = RunDirectory(tmp_path / "run").checkpoints()[0]
    kept = decode(file.read_bytes())
    for value, member in ((5, None), ([1, 2], None), (None, 1)):
        file.write_bytes(encode(kept | {key: value}))
        with pytest.raises(RunDirectoryError, match="the checkpoint (holds|freezes)"):
            se.load(tmp_path / "run", member=member)


def test_a_checkpoint_far_too_large_is_not_read(run):
    file = run.checkpoints()[0]
    with open(file, "r+b") as stream:
        stream.truncate(2**40)
    for other in run.checkpoints()[1:]:
        other.unlink()
    with pytest.raises(RunDirectoryError, match="1099511627776 bytes, more than the"):
        se.load(run.path)


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_links_in_a_circle_are_no_files(run):
    (run.path / "samples.png").symlink_to("samples.png")
    assert se.load(run.path).state.round == 2


def test_a_lock_that_is_no_file_is_refused(run):
    os.mkfifo(run.path / "b")
    (run.path / ".lock").unlink(missing_ok=True)
    (run.path / "b").rename(run.path / ".lock")
    with pytest.raises(RunDirectoryError, match=".lock is no regular file"), locked(run.path):
        pass


def test_frames_are_whole_and_of_one_size(tmp_path):
    from PIL import Image

    Image.new("L", (8, 8)).save(tmp_path / "1.png")
    whole = (tmp_path / "1.png").read_bytes()
    for content in (whole[:-30], whole[:40]):
        (tmp_path / "2.png").write_bytes(content)
        with pytest.raises(RunDirectoryError, match="2.png is no picture of a round"):
            animate(tmp_path, tmp_path / "a.gif")
    Image.new("L", (4, 16)).save(tmp_path / "2.png")
    animate(tmp_path, tmp_path / "a.gif")  # black frames, each on white in the middle of both
    with Image.open(tmp_path / "a.gif") as joined:
        assert joined.size == (4, 8) and joined.n_frames == 2
        for number, black in enumerate((np.s_[2:6, :], np.s_[:, 1:3])):
            joined.seek(number)
            want = np.full((8, 4), 255)
            want[black] = 0
            assert (np.asarray(joined.convert("L")) == want).all(), np.asarray(joined.convert("L"))


@pytest.mark.parametrize("number", ["0x" + "f" * 6000, "9" * 5000, "0b" + "1" * 20_000, "0" + "7" * 9000])
def test_a_number_without_end_is_refused_and_hides_no_other_run(number, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.path, tmp_path / "outputs" / "a" / "good")
    bad = shutil.copytree(run.path, tmp_path / "outputs" / "a" / "bad")
    text = (bad / "config.yaml").read_text()
    (bad / "config.yaml").write_text(text.replace("seed: 0\n", f"seed: {number}\n"))
    (tmp_path / "outputs" / "a" / "gone").mkdir()
    (tmp_path / "outputs" / "a" / "gone" / "config.yaml").symlink_to("nowhere")
    with pytest.raises(RunDirectoryError, match="not YAML that we read"):
        saved_config(RunDirectory(bad))
    found = newest_run(compose(None, TINY), tmp_path / "outputs" / "a" / "new")
    assert found is not None and found.path.name == "good"


def test_the_workers_of_a_strangers_run_are_limited(run):
    config = OmegaConf.load(run.config_file)
    config.workers = 150
    run.write_config(OmegaConf.to_yaml(config))
    assert saved_config(run).workers == MOST_WORKERS < 150 or MOST_WORKERS >= 150


def test_what_a_file_says_is_printed_without_commands_to_the_terminal():
    said = str(ConfigError("a\x1b]0;gone\x07b\u202ec\x9bd\u00e9\nnext"))
    assert said == "a\\x1b]0;gone\\x07b\\u202ec\\x9bd\u00e9\nnext"
    long = str(DataError("x" * 689_000 + ": put it back"))
    assert len(long) < LONGEST and long.endswith(": put it back") and "characters]" in long
    assert printable("y" * 5000, longest=None) == "y" * 5000


def test_the_names_of_a_strangers_configuration_are_escaped(run):
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("seed: 0\n", 'seed: 0\n"\\x1b[2J\\x1b]0;x": 1\n'))
    with pytest.raises(ConfigError) as error:
        se.load(run.path)
    assert str(error.value).isprintable() and "\\x1b[2J" in str(error.value)
    assert json.dumps(str(error.value)).count("u001b") == 0


# -- a foreign folder -------------------------------------------------------------------------------------------------

MARK = "from pathlib import Path\nPath(__file__).with_name('mark').touch()\n"


@pytest.mark.parametrize("name", ["models", "divergences"])
def test_python_in_a_folder_with_packages_of_our_names_imports_nothing_of_them(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(MARK)
    code = "import sys; sys.path.insert(0, ''); import se_framework as se; se.compose('gmmn')"
    done = fresh([VERIFY[0], "-c", code], tmp_path)
    assert f"the package {name} is taken from {tmp_path / name}, not from {ROOT / name}" in done.stderr
    assert not list(tmp_path.rglob("mark"))


def test_se_verify_imports_nothing_of_the_folder_it_is_started_in(tmp_path):
    for name in ("models", "divergences", "pykeops", "hydra_plugins", "torchvision", "onnxscript"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(MARK)
    code = (
        "import sys; from se_framework.commands.verify import main; sys.argv[1:] = ['--filter', 'alpha family']; main()"
    )
    done = fresh([VERIFY[0], "-c", code], tmp_path)
    assert done.returncode == 0 and "claims hold" in done.stdout, done.stderr
    assert not list(tmp_path.rglob("mark"))
