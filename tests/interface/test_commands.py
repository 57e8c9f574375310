"""The commands as a user meets them: as processes, in a directory of their own."""

import json
import os
import signal
import sys

import numpy as np
import pytest

from tests.support.commands import EVALUATE, ROOT, SAMPLE, SHORT, SMALL_SCORES, TRAIN, call, fresh, start, timed, until


def quickly(arguments, folder):
    """Return a finished process that loaded none of the heavy libraries.

    Its processor seconds are compared with those of importing Hydra, which every command must: other work of the
    machine slows both down. (Three times as many were measured, and thirty with torch.)
    """
    program = "import atexit, sys\nheavy = {'torch', 'matplotlib', 'scipy'}\n"
    program += "atexit.register(lambda: print(sorted(heavy & {*sys.modules})))\n"
    program += "from se_framework.__main__ import main\nmain()"
    _, unit = timed([sys.executable, "-c", "import hydra"], folder)
    process, seconds = timed([sys.executable, "-c", program, *arguments], folder)
    assert process.stdout.splitlines()[-1] == "[]" and seconds < 8 * unit
    return process


def test_help_lists_the_groups_and_is_quick(tmp_path):
    process = quickly(["--help"], tmp_path)
    assert process.returncode == 0
    for part in (
        "experiment= ",
        "divergence=   alpha cross_entropy energy",
        "metric= ",
        "auxiliary= ",
        "se-train resume=RUN_DIR",
    ):
        assert part in process.stdout
    assert not list(tmp_path.iterdir())


def test_a_mistyped_name_is_one_quick_sentence_and_leaves_nothing(tmp_path):
    process = quickly(["divergence=klx"], tmp_path)
    assert process.returncode == 1
    assert (
        process.stderr.count("\n") == 1 and "did you mean 'kl'" in process.stderr and "Traceback" not in process.stderr
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "overrides", [["optimizer.lr=abc"], ["divergence=sinkhorn"], ["data=array", "data.path=no.npy"]]
)
def test_a_refused_run_leaves_no_directory(tmp_path, overrides):
    process = call([*TRAIN, *overrides], tmp_path)
    assert process.returncode == 1 and process.stderr.count("\n") == 1 and "Traceback" not in process.stderr
    assert not list(tmp_path.iterdir())


def test_full_error_shows_the_traceback(tmp_path):
    process = call([*TRAIN, "divergence=sinkhorn"], tmp_path, HYDRA_FULL_ERROR="1")
    assert process.returncode == 1 and "Traceback" in process.stderr and "IncompatibleError" in process.stderr


def test_dry_run_prints_the_equation_and_writes_nothing(tmp_path):
    process = call([*TRAIN, *SHORT, "dry_run=true"], tmp_path)
    assert process.returncode == 0 and process.stdout.startswith("min_theta max_phi min_q")
    assert not list(tmp_path.iterdir())


def test_cfg_job_prints_the_composed_configuration(tmp_path):
    process = call([*TRAIN, "experiment=wgan_gp", "--cfg", "job"], tmp_path)
    assert process.returncode == 0 and "_target_: divergences.Wasserstein1" in process.stdout


def test_train_refuse_kill_resume_sample_evaluate(tmp_path):
    whole = call([*TRAIN, *SHORT, "hydra.run.dir=whole", "loop.checkpoint_every=2"], tmp_path, SMALL_SCORES)
    assert whole.returncode == 0, whole.stderr
    assert "round 6/6" in whole.stderr and "samples/s" in whole.stderr  # plain lines: there is no terminal
    assert whole.stdout.splitlines()[-1].startswith("se-train: all in ") and "se-sample " in whole.stdout
    names = {p.name for p in (tmp_path / "whole").iterdir()}
    assert names == {
        "config.yaml",
        "versions.json",
        "data.json",
        "metrics.csv",
        "checkpoints",
        "samples.png",
        "curves.png",
        "summary.json",
    }

    again = call([*TRAIN, *SHORT, "hydra.run.dir=whole"], tmp_path)
    assert again.returncode == 1 and "holds a run already: go on with resume=" in again.stderr

    long = ["loop.rounds=100000", "loop.horizon=6", "loop.checkpoint_every=2", "hydra.run.dir=cut"]
    process = start([*TRAIN, *SHORT, *long], tmp_path)
    until(lambda: list((tmp_path / "cut" / "checkpoints").glob("round_*.safetensors")), "the first checkpoint")
    process.send_signal(signal.SIGTERM)  # finishes the round, saves, says how to go on
    assert process.wait().returncode == 128 + signal.SIGTERM
    missing = call([*TRAIN, "resume=nowhere"], tmp_path)
    assert missing.returncode == 1 and "resume=nowhere: not a run directory" in missing.stderr
    assert not (tmp_path / "nowhere").exists()
    drift = call([*TRAIN, "resume=cut", "divergence=kl"], tmp_path)
    assert drift.returncode == 1 and "would change the run (divergence._target_" in drift.stderr
    reached = int(sorted((tmp_path / "cut" / "checkpoints").glob("round_*.safetensors"))[-1].stem.split("_")[1])
    resumed = call([*TRAIN, "resume=cut", f"loop.rounds={reached + 7}"], tmp_path, SMALL_SCORES)
    assert resumed.returncode == 0 and f"restored round_{reached:08d}.safetensors" in resumed.stderr, resumed.stderr
    assert "WARNING: learning rates end at zero in round 6" in resumed.stderr

    drawn = call([*SAMPLE, "whole", "n=5", "seed=3", "out=a=b.npy"], tmp_path)
    assert drawn.returncode == 0 and np.load(tmp_path / "a=b.npy").shape == (5, 2)
    assert (
        call([*SAMPLE, "whole", "n=50", "out=x.png"], tmp_path).returncode == 0
        and (tmp_path / "x.png").stat().st_size > 5000
    )
    scored = call([*EVALUATE, "whole", "n=500"], tmp_path)
    assert scored.returncode == 0, scored.stderr
    found = json.loads((tmp_path / "whole" / "eval.json").read_text())["scores"]
    assert {"modes", "high_quality", "w2", "sliced_w2", "held_out_value"} <= set(found)
    assert found["held_out_value"]["bound"].startswith("lower bound of beta JensenShannon") and found["w2"]["seed"] == 0
    for bad, message in (
        (["nowhere"], "nowhere is not a run directory"),
        (["whole", "nn=3"], "did you mean 'n'"),
        (["whole", "n=x"], "n must be a whole number, got 'x'"),
        ([], "a run directory is needed"),
    ):
        process = call([*EVALUATE, *bad], tmp_path)
        assert process.returncode == 1 and message in process.stderr and process.stderr.count("\n") == 1


def test_what_a_refused_run_did_not_make_stays(tmp_path):
    (tmp_path / "mine" / "empty").mkdir(parents=True)
    os.utime(tmp_path / "mine" / "empty", (1, 1))
    process = call([*TRAIN, "divergence=sinkhorn", "hydra.run.dir=mine/empty"], tmp_path)
    assert process.returncode == 1 and (tmp_path / "mine" / "empty").is_dir()


def test_a_run_on_a_relative_path_without_rows_is_used_from_elsewhere(tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(200, 1)))
    own = ["experiment=mle_flow", "model=affine", "data=array", "data.path=rows.npy", "loop.batch_size=32"]
    early = call([*TRAIN, *own, "score=w3", "hydra.run.dir=run"], tmp_path)
    assert early.returncode == 1 and "se-train: score=w3: no such score; known: bits_per_dim, c2st," in early.stderr
    assert not (tmp_path / "run").exists()
    trained = call([*TRAIN, *own, "loop.rounds=3", "loop.log_every=0", "hydra.run.dir=run"], tmp_path, SMALL_SCORES)
    assert trained.returncode == 0 and (tmp_path / "run" / "summary.json").exists(), trained.stderr
    (tmp_path / "other").mkdir()
    scored = call([*EVALUATE, tmp_path / "run", "n=100"], tmp_path / "other")
    assert scored.returncode == 0 and "nll" in scored.stdout, scored.stderr


def test_users_modules_are_found_and_a_folder_called_models_replaces_nothing(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise RuntimeError('the wrong models')\n")
    (tmp_path / "mine.py").write_text("import torch\ndef h(u):\n    return torch.xlogy(u, u) + (u - 1) ** 2\n")
    (tmp_path / "own" / "divergence").mkdir(parents=True)
    (tmp_path / "own" / "divergence" / "mine.yaml").write_text("_target_: divergences.FDivergence\nh: mine.h\n")
    command = [*TRAIN, "--config-dir", "own", "divergence=mine", *SHORT, "dry_run=true"]
    process = fresh(command, tmp_path)
    assert process.returncode == 0 and "FDivergence(h=mine.h" in process.stdout, process.stderr
    (tmp_path / "own" / "divergence" / "kl.yaml").write_text("_target_: divergences.FDivergence\nh: mine.h\n")
    process = call(command, tmp_path)
    assert process.returncode == 1 and "kl.yaml, a name we ship too: rename it" in process.stderr


def test_importing_is_quick_and_loads_no_torch(tmp_path):
    code = "import sys, se_framework; assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    assert fresh([sys.executable, "-c", code], tmp_path).returncode == 0


def test_another_package_called_models_is_named_instead_of_used(tmp_path):
    other = tmp_path / "elsewhere" / "models"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise RuntimeError('the wrong models')\n")
    (tmp_path / "work").mkdir()
    process = fresh([*TRAIN, "dry_run=true"], tmp_path / "work", PYTHONPATH=f"{other.parent}{os.pathsep}{ROOT}")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert str(other) in process.stderr and str(ROOT / "models") in process.stderr
