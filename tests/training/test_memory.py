"""A run's memory does not grow with its rounds."""

import json

import pytest

from tests.support.runs import play

CURVE = """
rounds, warm = int(sys.argv[2]), int(sys.argv[3])
typed = [f"experiment={sys.argv[4]}", *SHORT, "loop.batch_size=64", f"loop.rounds={rounds}", "loop.log_every=50",
         "loop.checkpoint_every=500"]
played, curve = loop.play_round, []

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

def weighed(state, *rest):
    if state.round >= warm and state.round % (rounds // 20) == 0:
        curve.append((state.round, resident()))
    return played(state, *rest)

loop.play_round, train.finish = weighed, lambda *a: 0.0
train.train_run(compose(None, typed), Path(sys.argv[1]), typed)
curve.append((rounds, resident()))
print(json.dumps(curve))
"""


@pytest.mark.soak
@pytest.mark.parametrize("experiment", ["vanilla_gan", "wgan_gp", "sinkhorn"])
def test_memory_is_flat(experiment, tmp_path, soak, record):
    """``make test`` plays the one whose graphs are the largest: two derivatives deep, of two players."""
    rounds, warm = (20_000, 2_000) if soak else (1_000, 520)
    if experiment != "wgan_gp" and not soak:
        pytest.skip("in make soak only")
    done = play(CURVE, tmp_path, rounds, warm, experiment, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    curve = json.loads(done.stdout.splitlines()[-1])
    growth = curve[-1][1] / curve[0][1] - 1
    record(f"memory_{experiment}", {
        "rounds": rounds, "growth after warm-up": round(growth, 5), "MiB by round": [[t, b >> 20] for t, b in curve],
    })  # fmt: skip
    assert growth < 0.01, curve
