"""SIGKILL at any moment, full disks, spoilt files: a run goes on from a complete checkpoint or says why not."""

import json

import numpy as np
import pytest

from se_framework.errors import RunDirectoryError
from se_framework.runs.directory import RunDirectory
from se_framework.runs.lock import locked
from tests.support.runs import play

KILLS = """
import random, time
root, kills, seed, way, more = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:]
rounds = 240
typed = ["experiment=vanilla_gan", "data=moons", "model.width=16", "metric.network.width=16", *SHORT,
         f"loop.rounds={rounds}", "loop.checkpoint_every=3", "loop.evaluate_every=20", "loop.keep_best=2", *more]
evaluation.score_row = lambda assembly, state: {"to_minimise": float(state.round % 70)}
draw = random.Random(seed)

def at_a_step_of_a_write():
    # Die inside the write of a file: when it is opened, half written, synced, renamed, or an old one is dropped.
    left = [draw.randrange(1, 120)]
    def countdown():
        left[0] -= 1
        if left[0] == 0 and way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if left[0] == 0:
            raise OSError(28, "No space left on device")
    for module, name in ((os, "fsync"), (os, "replace"), (os, "open")):
        def call(*a, real=getattr(module, name), **k):
            countdown()
            found = real(*a, **k)
            countdown()
            return found
        setattr(module, name, call)
    import builtins
    def opened(path, mode="r", *a, real=builtins.open, **k):
        file = real(path, mode, *a, **k)
        if mode == "wb":
            write = file.write
            class Half:
                def __enter__(self): return self
                def __exit__(self, *e): file.close()
                def write(self, content):
                    half = len(content) // 2
                    write(content[:half]); file.flush(); countdown(); write(content[half:])
                def flush(self): file.flush()
                def fileno(self): return file.fileno()
            return Half()
        return file
    files.open = opened

assert wait(start(root / "whole", typed)) == 0
moments, killed, resumed, fallback, run = {"write": 0, "random": 0}, 0, 0, 0, 0
while killed < kills:
    cut = root / f"cut{run}"
    begun, chain = False, 0
    while True:
        overrides = [f"resume={cut}"] if (cut / "config.yaml").exists() else typed
        resumed += overrides is not typed
        if killed >= kills or chain == 12:
            code = wait(start(cut, overrides))
            assert code == 0, code
            break
        kind = draw.choice(["write", "random"]) if way == "killed" else "write"
        pid = start(cut, overrides, at_a_step_of_a_write if kind == "write" else None)
        if kind == "random":
            time.sleep(draw.uniform(0.02, 1.2))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        draw.random()  # the child has a copy of the generator: its next draw must be another one
        code = wait(pid)
        if code == 0:
            break
        assert code == (-signal.SIGKILL if way == "killed" else 1), code
        killed, chain, moments[kind] = killed + 1, chain + 1, moments[kind] + 1
    found = differences(root / "whole", cut)
    assert not found, found
    assert [int(r["round"]) for r in rows(cut)] == list(range(1, rounds + 1))
    assert rows(root / "whole", "scores.csv") == rows(cut, "scores.csv")
    left = sorted(f.name for f in (cut / "checkpoints").iterdir())
    assert left == sorted(f.name for f in (root / "whole" / "checkpoints").iterdir()), left
    run += 1
print(json.dumps({"kills": killed, "in the write of a file": moments["write"], "at a random time": moments["random"],
                  "runs": run, "starts that went on": resumed, "rows lost or doubled": 0, "runs that differ": 0}))
"""


@pytest.mark.soak
def test_killed_at_any_moment(tmp_path, soak, record):
    done = play(KILLS, tmp_path, 200 if soak else 12, 1, "killed", timeout=3000 if soak else 300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 12 and found["in the write of a file"] > 0 and found["at a random time"] > 0
    record("kill", found)


def rows_file(home):
    """Return a file of rows that is read as a stream."""
    np.save(home / "rows.npy", np.random.default_rng(0).standard_normal((400, 2)))
    return home / "rows.npy"


OTHERS = {
    "an ensemble": lambda home: ["killed", "ensemble.size=2"],
    "a sum": lambda home: [
        "killed", "model=realnvp", "model.couplings=2",
        "+divergence@plus.nll.divergence=cross_entropy",
        "+auxiliary@plus.nll.auxiliary=data", "+plus.nll.weight=0.1",
    ],
    "a stream": lambda home: ["killed", "data=array_streamed", f"data.path={rows_file(home)}", "workers=1"],
    "pictures": lambda home: ["killed", "loop.picture_every=30"],
    "a full disk": lambda home: ["refused"],
}  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("kind", OTHERS)
def test_killed_at_any_moment_whatever_is_trained(kind, tmp_path, soak, record):
    if not soak:
        pytest.skip("sixty kills of each kind of run")
    way, *more = OTHERS[kind](tmp_path)
    done = play(KILLS, tmp_path, 60, 2, way, *more, timeout=6000)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 60
    record(f"kill_{kind.split()[-1]}", found)


FAULTS = """
root = Path(sys.argv[1])
typed = ["experiment=vanilla_gan", "data=moons", *SHORT, "loop.checkpoint_every=2", "loop.rounds=8"]
assert wait(start(root / "whole", typed)) == 0

def full_disk():  # the system refuses any file longer than 4 kB, as a full disk would in the midst of a checkpoint
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

def nobody():  # root may write anywhere; what was read before stays readable
    built = train.assembly_of
    def then_nobody(config, **rest):
        found = built(config, **rest)
        if os.geteuid() == 0:
            os.setuid(65534)
        return found
    train.assembly_of = then_nobody

def stop_in(signum):
    played = loop.play_round
    def stopped(state, *rest):
        if state.round == 4:
            os.kill(os.getpid(), signum)
        return played(state, *rest)
    def plant():
        loop.play_round = stopped
    return plant

def newest(run):
    return RunDirectory(run).checkpoints()[0]

def case(name):
    print(f"--- {name}", file=sys.stderr, flush=True)
    return root / name

run = case("full")
assert child(run, typed, kill_at=5) == -signal.SIGKILL
kept = newest(run).read_bytes()
assert wait(start(run, [f"resume={run}"], full_disk)) == 1
assert newest(run).name == "round_00000004.safetensors" and newest(run).read_bytes() == kept
assert not list(run.rglob("*.tmp"))
assert wait(start(run, [f"resume={run}"])) == 0 and not differences(root / "whole", run)

import shutil, tempfile
case("readonly")
outside = Path(tempfile.mkdtemp())  # pytest's own folder lets nobody else in
os.chmod(outside, 0o755)
run = outside / "readonly"
assert child(run, typed, kill_at=5) == -signal.SIGKILL
os.chmod(run, 0o555)
before = {f: f.read_bytes() for f in run.rglob("*") if f.is_file()}
assert wait(start(run, [f"resume={run}"], nobody)) == 1
os.chmod(run, 0o755)
assert before == {f: f.read_bytes() for f in run.rglob("*") if f.is_file()}
shutil.rmtree(outside)

for number, (name, spoil) in enumerate({
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-7]),
    "flipped": lambda file: file.write_bytes(bytes([b ^ (i == 3000) for i, b in enumerate(file.read_bytes())])),
    "emptied": lambda file: file.write_bytes(b""),
    "gone": lambda file: file.unlink(),
}.items()):
    run = case(name)
    assert child(run, typed, kill_at=5) == -signal.SIGKILL
    spoil(newest(run))
    assert wait(start(run, [f"resume={run}"])) == 0 and not differences(root / "whole", run)

run = case("all spoilt")
assert child(run, typed, kill_at=5) == -signal.SIGKILL
for file in RunDirectory(run).checkpoints():
    file.write_bytes(file.read_bytes()[:100])
before = (run / "metrics.csv").read_bytes()
assert wait(start(run, [f"resume={run}"])) == 1 and (run / "metrics.csv").read_bytes() == before

run = case("two")
import time
def slow():
    played = loop.play_round
    def waiting(state, *rest):
        if state.round == 2:
            time.sleep(3600)  # until it is killed
        return played(state, *rest)
    loop.play_round = waiting
first = start(run, typed, slow)
while not (run / "metrics.csv").exists():
    time.sleep(0.05)
print(f"first: process {first} on", file=sys.stderr, flush=True)
assert wait(start(run, [f"resume={run}"])) == 1
os.kill(first, signal.SIGKILL)
assert wait(first) == -signal.SIGKILL
assert wait(start(run, [f"resume={run}"])) == 0 and not differences(root / "whole", run)

for signum in (signal.SIGTERM, signal.SIGINT):
    run = case(signum.name)
    assert wait(start(run, typed, stop_in(signum))) == 128 + signum
    assert newest(run).name == "round_00000005.safetensors"
    assert wait(start(run, [f"resume={run}"])) == 0 and not differences(root / "whole", run)
"""


def test_faults_of_disks_files_and_neighbours(tmp_path):
    done = play(FAULTS, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    said = {part.split("\n")[0]: part for part in done.stderr.split("--- ")[1:]}
    assert "checkpoints/round_00000006.safetensors cannot be written (File too large)" in said["full"]
    assert "readonly cannot be written to (Permission denied)" in said["readonly"]
    assert "it is cut short, or no checkpoint of ours; the one before is used" in said["truncated"]
    assert "round_00000004.safetensors: its checksum does not hold; the one before is used" in said["flipped"]
    assert "round_00000004.safetensors: it is cut short, or no checkpoint of ours" in said["emptied"]
    assert all(
        "restored round_00000002.safetensors" in said[name] for name in ("truncated", "flipped", "emptied", "gone")
    )
    assert "no checkpoint in" in said["all spoilt"] and "can be read (round_00000004" in said["all spoilt"]
    owner = said["two"].split("first: ")[1].split(" on")[0]
    assert f"two is in use by {owner} on " in said["two"] and "wait until it ends" in said["two"]
    for name in ("SIGTERM", "SIGINT"):
        assert "stopped after round 5 of 8; go on with: se-train resume=" in said[name]


def test_the_checkpoints_of_a_finished_run_are_not_made_up(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_json("summary.json", {})
    with pytest.raises(RunDirectoryError, match="is a finished run, but its checkpoints are gone"):
        run.load_checkpoint()


def test_the_lock_may_be_taken_again_by_its_holder(tmp_path):
    with locked(tmp_path), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
