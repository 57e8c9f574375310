"""Data read when it is needed: the batches of the same data in memory, bit for bit, whatever befalls the readers."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from se_framework import compose
from se_framework.data import ArrayData, ImageFolder, StreamedArray, StreamedData, StreamedImages, TensorData, as_data
from se_framework.data import workers as workers_module
from se_framework.data.moments import Moments
from se_framework.errors import DataError
from se_framework.randomness import stream_seed
from se_framework.runs.directory import RunDirectory
from tests.support.commands import PATIENCE, TRAIN, script, start, until
from tests.support.datasets import Augmented, N, Plain, Slow

ROOT = Path(__file__).parents[2]
F64 = torch.float64


@pytest.fixture(autouse=True)
def nobody_is_left():
    """No test leaves a process behind; what was killed may take a moment to be gone."""
    before = set(multiprocessing.active_children())
    yield
    until(lambda: set(multiprocessing.active_children()) <= before, "the end of every process that the test started")


@pytest.fixture
def array_file(tmp_path):
    rows = np.random.default_rng(0).normal(1000, [5, 0.1, 40], (N, 3)).astype(np.float32)
    rows[:, 1] = 0.1  # a constant feature
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "labels.npy", np.arange(N) % 3)
    return tmp_path / "rows.npy"


@pytest.fixture
def image_files(tmp_path):
    for i in range(N):
        folder = tmp_path / "images" / "abc"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "images"


def the_pairs(array_file, image_files, workers):
    """Return (resident, streamed) for every kind of data that has both."""
    labels = array_file.with_name("labels.npy")
    yield ArrayData(array_file, labels=labels), StreamedArray(array_file, workers, labels=labels)
    yield ArrayData(array_file, standardize=False), StreamedArray(array_file, workers, standardize=False)
    yield ImageFolder(image_files, size=4, labels=True), StreamedImages(image_files, workers, size=4, labels=True)
    rows = torch.stack([x for x, _ in (Plain()[i] for i in range(N))])
    resident = TensorData(rows, labels=torch.arange(N) % 3, standardize=True)
    yield resident, StreamedData(Plain(), workers, standardize=True, classes=3)


def alike(one, two):
    """Whether two batches have the same points, of the same type, and the same labels."""
    same_x = one.x.dtype == two.x.dtype and torch.equal(one.x, two.x)
    return same_x and (one.context is two.context is None or torch.equal(one.context, two.context))


# What a run asks for: batches in order, the next one twice (a logged round), and now and then another.
ORDER = [0, 1, 2, 2, 3, 2, 1, 4, 5, 17, 6, 7, 7, 8, 9, 40, 41, 10, 11, 12]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_streamed_batches_are_those_of_memory(array_file, image_files, workers):
    for resident, streamed in the_pairs(array_file, image_files, workers):
        assert (resident.event_shape, resident.image_shape) == (streamed.event_shape, streamed.image_shape)
        assert (resident.train_size, resident.classes, resident.name == streamed.name or resident.name == "tensor") == (
            streamed.train_size, streamed.classes, True
        )  # fmt: skip
        for dtype in (torch.float32, F64):
            torch.set_default_dtype(dtype)
            assert resident.dtype == streamed.dtype == dtype
            with streamed.prefetch(0, 5, 3):
                for index in ORDER:
                    assert alike(resident.batch(5 * index, 5, 3), streamed.batch(5 * index, 5, 3))
                    assert alike(resident.batch(8 * index, 8, 1), streamed.batch(8 * index, 8, 1))
        torch.set_default_dtype(torch.float32)
        with streamed.prefetch(37, 5, 3):  # resumed in the middle of an epoch, after batches of other sizes
            for start in (37, 42, 42, 47):
                assert alike(resident.batch(start, 5, 3), streamed.batch(start, 5, 3))
        assert alike(resident.batches(17, 5, [3, 4]), streamed.batches(17, 5, [3, 4]))
        assert alike(resident.held_out(2, 1), streamed.held_out(2, 1))
        assert alike(resident.held_out(99), streamed.held_out(99))
        assert torch.equal(resident.rows("train", torch.tensor([3, 1])), streamed.rows("train", torch.tensor([3, 1])))
        for _ in range(2):  # what was given away cannot change what is kept
            given = streamed.batch(10, 5, 3)
            assert alike(resident.batch(10, 5, 3), given)
            for part in (given.x, given.context):
                part is None or part.zero_()
        user = resident.to_user(resident.batch(5, 5, 3).x)
        assert torch.equal(user, streamed.to_user(streamed.batch(5, 5, 3).x))


def test_workers_serve_what_is_asked_for_in_order(monkeypatch):
    """The main process reads nothing itself while batches come in order, the extra draw of a logged round included."""
    data = StreamedData(Plain(), workers=2)
    with data.prefetch(15, 5, 0):
        monkeypatch.setattr(data.source, "read", lambda request: pytest.fail("read in the main process"))
        for index in (3, 3, 4, 5, 5, 6):
            data.batch(5 * index, 5, 0)
        with pytest.raises(pytest.fail.Exception, match="read in the main process"):
            data.batch(20, 5, 0)
        data.batch(35, 5, 0)


def test_the_loop_reads_ahead(monkeypatch):
    """Every batch of a run comes from a worker, those of logged rounds included."""
    data, here = StreamedData(Plain(), workers=2), []
    read = data.source.read
    counted = lambda request: (multiprocessing.parent_process() or here.append(request), read(request))[1]  # noqa: E731
    monkeypatch.setattr(data.source, "read", counted)
    monkeypatch.setattr(
        "se_framework.training.loop.watch", lambda *a: []
    )  # the monitors look at a few rows of their own
    compose("vanilla_gan", ["loop.rounds=6", "loop.batch_size=5", "loop.log_every=2", "progress=false"], data).train()
    assert not here
    data.batch(0, 5, 0)
    assert len(here) == 1  # the count can fail


# -- randomness of an item --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes:UserWarning")
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_augmentation_is_a_function_of_seed_epoch_and_row(workers):
    data = StreamedData(Augmented(), workers)
    torch.manual_seed(5), np.random.seed(6), random.seed(7)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with data.prefetch(0, 6, 11):  # batch 3 crosses the end of the first epoch
        epochs = torch.cat([data.batch(6 * i, 6, 11).x for i in range(7)]).split(21)
    assert torch.equal(states[0], torch.random.get_rng_state()) and states[2] == random.getstate()
    assert (states[1] == np.random.get_state()[1]).all()
    for epoch, rows in enumerate(epochs):
        for x in rows:
            row = int(x[2])
            seed = stream_seed(11, epoch, f"row {row}")
            torch.manual_seed(seed), np.random.seed(seed % 2**32), random.seed(seed)
            want = torch.tensor([row, float(torch.rand(())), np.random.rand(), random.random()])
            assert torch.equal(x[2:], want)
    noise = [{tuple(x) for x in rows[:, 3:].tolist()} for rows in epochs]
    assert [len(part) for part in noise] == [21, 21] and not noise[0] & noise[1]
    assert data.batch(0, 6, 12).x[0, 3] != data.batch(0, 6, 11).x[0, 3]
    assert torch.equal(data.held_out(9).x, data.held_out(9).x)


def test_a_dataset_from_python_stays_random_and_one_with_a_generator_of_its_own_is_refused():
    data = as_data(Augmented())
    assert not torch.equal(data.batch(0, 21, 0).x.sort(0).values, data.batch(21, 21, 0).x.sort(0).values)

    class Own(Plain):
        draws = torch.Generator()

        def __getitem__(self, i):
            return torch.rand(2, generator=self.draws)

    with pytest.raises(DataError, match="item 0 of the Own is another one when read again under the same seed"):
        StreamedData(Own())


def test_workers_that_are_spawned_read_the_same(image_files, monkeypatch):
    monkeypatch.setattr(workers_module, "START", "spawn")  # where there is no safe fork
    resident, streamed = ImageFolder(image_files, size=4), StreamedImages(image_files, 1, size=4)
    with streamed.prefetch(0, 5, 3):
        for index in range(6):
            assert alike(resident.batch(5 * index, 5, 3), streamed.batch(5 * index, 5, 3))


class Sums(Plain):
    """Computes, on as many threads as there are."""

    def __getitem__(self, i):
        return (torch.arange(300_000.0) / 7 + i).sum()[None]


def test_threads_of_the_main_process_neither_hang_nor_change_a_worker():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        (torch.rand(700, 700) @ torch.rand(700, 700)).sum()  # the pool of threads that a fork does not carry over
        batches = []
        for workers in (0, 2):
            data = StreamedData(Sums(), workers)
            with data.prefetch(0, 8, 0):
                batches.append(torch.cat([data.batch(8 * i, 8, 0).x for i in range(3)]))
        assert torch.equal(*batches) and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


# -- units ------------------------------------------------------------------------------------------------------------


def test_moments_in_chunks_are_those_of_numpy():
    draw = np.random.default_rng(0)
    x = draw.normal(1e4, [1, 30], (10_000, 2))
    moments = Moments()
    for part in np.split(x, [1, 1, 700, 9000]):
        moments.add(torch.as_tensor(part))
    loc, scale = moments.result()
    # Sums of 1e4 deviations in float64: a relative error of at most 1e4 * 2^-52 for the spread, 1e4 spacings of the
    # mean for what its rounding adds.
    assert np.allclose(loc, x.mean(0), rtol=1e4 * 2**-52) and np.allclose(scale, x.std(0), rtol=1e-8)
    assert abs(float(scale[0]) - 1) < 5 / (2 * 10_000) ** 0.5


def test_standardisation_leaves_held_out_rows_alone(array_file):
    data = StreamedArray(array_file)
    rows = torch.as_tensor(np.load(array_file)).double()
    train = rows[data._index["train"]]
    assert torch.allclose(data.loc, train.mean(0), rtol=1e-14) and float(data.scale[1]) == 1
    assert torch.allclose(data.scale[0], train.std(0, unbiased=False)[0], rtol=1e-12)
    assert not torch.allclose(data.loc, rows.mean(0), rtol=1e-6)
    streamed = StreamedData(torch.utils.data.TensorDataset(rows.float()), workers=2, standardize=True)
    assert torch.equal(streamed.loc, data.loc) and torch.equal(streamed.scale, data.scale)


# -- what goes wrong --------------------------------------------------------------------------------------------------


class Broken(Plain):
    bad = 13

    def __getitem__(self, i):
        if i == self.bad:
            raise OSError("the disk\nis gone")
        return self.x[i]


class Unlike(Plain):
    def __getitem__(self, i):
        return torch.zeros(3) if i == 13 else self.x[i]


class NotANumber(Plain):
    def __getitem__(self, i):
        return torch.full((2,), float("nan")) if i == 13 else self.x[i]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Broken(), r"item 13 of the Broken cannot be read \(OSError: the disk\); mend"),
        (Unlike(), r"item 13 of the Unlike has shape \(3,\) .* item 0 \(2,\)"),
        (NotANumber(), "item 13 of the NotANumber has NaN or infinite values"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(dataset, message, workers):
    data = StreamedData(dataset, workers)
    with pytest.raises(DataError, match=f"^{message}") as caught, data.prefetch(0, 5, 0):
        for index in range(6):
            data.batch(5 * index, 5, 0)
    assert "\n" not in str(caught.value)


def test_streams_refused(tmp_path, array_file, image_files):
    np.save(tmp_path / "objects.npy", np.array([{}] * 5), allow_pickle=True)
    np.save(tmp_path / "complex.npy", np.ones(9) * 1j)
    np.save(tmp_path / "few.npy", np.ones((3, 2)))
    np.save(tmp_path / "number.npy", np.array(1.0))
    np.save(tmp_path / "text.npy", np.array(["a"] * 9))
    bad = np.ones((300_000, 5))
    bad[250_000, 3] = bad[299_999, 1] = np.nan  # in the last of six chunks
    np.save(tmp_path / "nan.npy", bad)
    (tmp_path / "rows.csv").write_text("1,2\n" * 9)
    (tmp_path / "cut.npy").write_bytes(array_file.read_bytes()[:-8])
    cases = [
        ("no.npy", {}, "no file"),
        ("objects.npy", {}, "never unpickled"),
        ("complex.npy", {}, "complex"),
        ("few.npy", {}, "has 3 rows"),
        ("number.npy", {}, "is a single number"),
        ("text.npy", {}, "values of type <U1"),
        ("nan.npy", {}, "has 2 NaN or infinite values, the first in row 250001 of 300000"),
        ("rows.csv", {}, "cannot be read row by row, only .npy files can"),
        ("cut.npy", {}, "not a readable .npy file"),
        ("rows.npy", {"workers": -1}, "workers must be at least 0"),
        ("rows.npy", {"held_out_fraction": 1.0}, "data.held_out_fraction"),
    ]
    for name, options, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            StreamedArray(tmp_path / name, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is a TensorData; give a map-style Dataset"):
        StreamedData(lambda: TensorData(torch.rand(9, 2)))
    with pytest.raises(DataError, match=r"item \d+ of the Plain has the label 2, data.classes is 2"):
        StreamedData(Plain(), classes=2).batch(0, 21, 0)
    with pytest.raises(DataError, match="data.classes must be at least 2"):
        StreamedData(Plain(), classes=1)
    assert StreamedData(Plain).event_shape == (2,)
    data = StreamedArray(array_file)
    np.save(array_file, np.ones((9, 3)))
    with pytest.raises(DataError, match=r"was replaced by an array of shape \(9, 3\)"):
        data.batch(0, 5, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images(image_files, workers):
    (image_files / "a" / "bad.png").write_text("no image")
    data = StreamedImages(image_files, workers, size=4)
    with pytest.raises(DataError, match="a/bad.png' cannot be read as an image"), data.prefetch(0, 4, 0):
        for index in range(6):
            data.batch(4 * index, 4, 0)
    with pytest.warns(UserWarning, match="1 of 24 files in .* left out, the first is 'a/bad.png'"):
        data = StreamedImages(image_files, workers, size=4, skip_broken=True)
    with pytest.warns(UserWarning, match="1 of 24"):
        resident = ImageFolder(image_files, size=4, skip_broken=True)
    assert data.skipped == ("a/bad.png",) and alike(data.batch(36, 9, 0), resident.batch(36, 9, 0))


def test_a_killed_worker_is_named_and_nothing_hangs():
    data = StreamedData(Slow(), workers=2)
    started = time.monotonic()
    with pytest.raises(DataError, match="^a process that reads Slow ended .*lower workers") as caught:
        with data.prefetch(0, 5, 0):
            data.batch(0, 5, 0)
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            for index in range(1, 100):
                data.batch(5 * index, 5, 0)
    # torch looks after its workers every 5 seconds; a loader that hangs would wait for ever.
    assert time.monotonic() - started < PATIENCE and "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), RuntimeError("DataLoader worker")])
def test_a_worker_that_ends_while_it_hands_over_is_named_and_other_errors_are_not_its_fault(error, monkeypatch):
    def broken():
        raise error
        yield

    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
    worker.start()
    with pytest.raises(type(error)):
        next(workers_module._received(broken(), "rows", [worker]))
    # The connection breaks a moment before the process is gone: it dies when the reader looks whether it has.
    wait = workers_module.wait
    monkeypatch.setattr(workers_module, "wait", lambda sentinels, timeout: (worker.kill(), wait(sentinels))[1])
    with pytest.raises(DataError, match="^a process that reads rows ended"):
        next(workers_module._received(broken(), "rows", [worker]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_outlive_the_signals_of_their_group(number):
    data = StreamedData(Plain(), workers=2)
    with data.prefetch(0, 5, 0):
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, number)
        batches = [data.batch(5 * i, 5, 0) for i in range(20)]
    assert all(alike(batch, data.batch(5 * i, 5, 0)) for i, batch in enumerate(batches))


class Stuck(Plain):
    def __getitem__(self, i):
        if multiprocessing.parent_process() is not None:
            time.sleep(2 * PATIENCE)
        return self.x[i]


def test_a_worker_stuck_in_a_row_does_not_keep_the_end_waiting():
    data = StreamedData(Stuck(), workers=2)
    started = time.monotonic()
    with data.prefetch(0, 5, 0):
        time.sleep(0.2)
    assert time.monotonic() - started < PATIENCE  # a row takes twice as long


def test_an_error_in_the_loop_ends_the_workers():
    data = StreamedData(Plain(), workers=2)
    with pytest.raises(RuntimeError, match="^in the loop$"), data.prefetch(0, 5, 0):
        data.batch(0, 5, 0)
        raise RuntimeError("in the loop")


# -- whole runs -------------------------------------------------------------------------------------------------------

# Forked from one process that has torch already, as in tests/reliability/test_resume.py.
DRIVER = """
import json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import se_framework
from se_framework.training import loop
from se_framework.commands import train
from se_framework.config.composing import compose

train.finish = lambda *_: 0.0
short = ["experiment=vanilla_gan", "loop.rounds=9", "loop.batch_size=5", "loop.log_every=2", "loop.checkpoint_every=3"]
short += ["progress=false", "device=cpu", "model.width=8", "metric.network.width=8"]

def child(directory, overrides, kill_at=None):
    pid = os.fork()
    if pid == 0:
        play = loop.play_round
        def killed(state, *rest):
            if state.round == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return play(state, *rest)
        loop.play_round = killed
        train.train_run(compose(None, overrides), directory, overrides)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

for kind, data in json.loads(sys.argv[1]).items():
    typed = [*short, *data]
    whole, cut, early = (Path("runs", kind) / name for name in ("whole", "cut", "early"))
    assert child(whole, [*typed, "workers=0"]) == 0
    assert child(cut, [*typed, "workers=2"], kill_at=7) == -signal.SIGKILL
    assert child(cut, [f"resume={cut}", "trust=[tests]", "workers=1", "loop.log_every=1"]) == 0
    if kind != "dataset":  # before the first checkpoint there is no state, so the kind of data makes no difference
        continue
    assert child(early, [*typed, "workers=1"], kill_at=2) == -signal.SIGKILL
    assert child(early, [f"resume={early}", "trust=[tests]", "workers=2"]) == 0
"""


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def gone(group):
    """Return whether a process group has no member left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_killed_run_resumed_with_other_workers_is_the_uninterrupted_one(tmp_path, array_file, image_files):
    kinds = {
        "array": ["data=array_streamed", f"data.path={array_file}"],
        "images": ["data=image_folder_streamed", f"data.path={image_files}", "data.size=4", "data.labels=true"],
        "dataset": ["data=dataset", "data.dataset=tests.support.datasets.Augmented"],
    }
    process = start([sys.executable, "-c", DRIVER, json.dumps(kinds)], tmp_path, session=True)
    done = process.wait()
    assert done.returncode == 0, done.stderr
    clock = {"seconds", "samples_per_second"}
    for kind in kinds:
        names = ("whole", "cut", *(["early"] if kind == "dataset" else []))
        runs = [RunDirectory(tmp_path / "runs" / kind / name) for name in names]
        whole, *others = (run.load_checkpoint()[0] for run in runs)
        assert whole["round"] == 9 and all(same(whole, other) for other in others), kind
        tables = [{int(r["round"]): {k: v for k, v in r.items() if k not in clock} for r in run.rows()} for run in runs]
        assert all(tables[0][k] == tables[1][k] for k in tables[0]), kind  # which logged more often from its kill on
        assert tables[0] == tables[-1] or kind != "dataset"
    until(lambda: gone(process.pid), "the workers of a killed process, which look for it every 5 seconds")


def test_sigterm_to_the_group_finishes_the_round_and_leaves_nobody(tmp_path):
    """A cluster signals every process: the round under way gets its rows, the run is saved, and nobody is left."""
    typed = ["experiment=vanilla_gan", "data=dataset", "data.dataset=tests.support.datasets.Slower", "workers=2",
             "loop.rounds=100000", "loop.batch_size=5", "loop.checkpoint_every=2", "hydra.run.dir=run"]  # fmt: skip
    process = start([*TRAIN, *typed], tmp_path, session=True)
    until(lambda: list((tmp_path / "run" / "checkpoints").glob("round_*")), "a checkpoint")
    os.killpg(process.pid, signal.SIGTERM)
    done = process.wait()
    said = done.stderr
    assert done.returncode == 128 + signal.SIGTERM, said
    assert "stopped after round" in said and "Traceback" not in said and "worker" not in said
    until(lambda: gone(process.pid), "the workers, which end before the run does")
    reached = RunDirectory(tmp_path / "run").load_checkpoint()[0]["round"]
    assert f"stopped after round {reached} " in said


# A process of its own, as the peak of the resident memory cannot be put back.
MEMORY = """
import resource, sys, torch
torch.set_num_threads(1)
import se_framework as se
from divergences import GAN
from models import MLPCritic, MLPGenerator
from se_framework.data import StreamedArray, TensorData
def train(data, **more):
    made = (MLPGenerator(event_shape=data.event_shape, width=8), MLPCritic(event_shape=data.event_shape, width=8))
    parts = {"divergence": GAN(), "auxiliary": se.Dual()}
    equation = se.StandardEquation(model=made[0], metric=se.Metric(made[1], se.R1(0.1)), **parts)
    return se.train(se.TrainState(equation), data, rounds=30, batch_size=64, log_every=10, progress=False, **more)
train(TensorData(torch.randn(999, 500)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = StreamedArray(sys.argv[1])
print(data.fingerprint())
train(data)
for i in range(450):  # every page is touched, and let go again
    data.batch(200 * i, 200, 0)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_of_a_mapped_array_is_bounded(tmp_path):
    """100,000 rows of 500 numbers, 200 MB of them."""
    rows = np.lib.format.open_memmap(tmp_path / "big.npy", mode="w+", dtype=np.float32, shape=(100_000, 500))
    rows[::1000] = np.random.default_rng(0).normal(size=(100, 500))
    rows.flush()
    del rows
    done = script(MEMORY, tmp_path / "big.npy")
    assert done.returncode == 0, done.stderr
    # Chunks take some 10 MB; 64 KiB of the file are mapped around each row of a batch, 13 MB.
    assert float(done.stdout.splitlines()[-1]) < 50


class Meeting(Plain):
    """A process that reads its first row waits there for another one that does."""

    def __init__(self):
        super().__init__()
        self.others, self.met = multiprocessing.get_context("fork").Barrier(2), False

    def __getitem__(self, i):
        if not self.met and multiprocessing.parent_process() is not None:
            self.others.wait(PATIENCE)
            self.met = True
        return self.x[i]


def test_two_workers_read_at_once():
    """No clock: neither would come to an end alone."""
    data = StreamedData(Meeting(), 2)
    with data.prefetch(0, 5, 0):
        for index in range(4):
            assert alike(data.batch(5 * index, 5, 0), StreamedData(Plain(), 0).batch(5 * index, 5, 0))
