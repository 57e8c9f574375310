"""Ten thousand spoilt runs: every file of a run, every command; a result, or exit code 1 and one sentence.

Each case is a fork of this process, with a clock, and may take one GiB more than it.
"""

import os
import random
import re
import resource
import secrets
import signal
import sys
import warnings

import pytest

import se_framework as se
from se_framework.__main__ import main
from se_framework.commands import compare, evaluate, export, report, sample, train
from se_framework.config.composing import compose
from se_framework.errors import SEError
from tests.support.bad_input import exit_code
from tests.support.commands import small_scores
from tests.support.spoiling import copy_of, spoil

CASES = (10_000, 60)
"""In ``make soak`` and in ``make test``."""
SECONDS, BYTES = 10, 2**30
"""Of processor time, so that a busy machine fails no case, and of memory beyond that of a start."""
HANGS = 20 * SECONDS
"""Seconds by the clock after which a case waits for something that never comes."""
QUIET = ["progress=false", "device=cpu", "loop.log_every=1", "loop.batch_size=8"]
GAME = ["experiment=vanilla_gan", "metric=mlp_r1", "model.width=4", "metric.network.width=4", "data=ring8", *QUIET]
KEPT = ["loop.rounds=2", "loop.checkpoint_every=1", "loop.evaluate_every=1", "loop.keep_best=1"]


def trained(where, *more):
    """Return the directory of a run."""
    overrides = [*GAME, *KEPT, *more]
    train.train_run(compose(None, overrides), where, overrides)
    return where


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with pictures and an average, an ensemble, and a run that failed; no case changes them."""
    home = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        small_scores(patch)
        found = [
            trained(home / "one", "loop.picture_every=1", "players.theta.ema=0.9"),
            trained(home / "many", "ensemble.size=2"),
        ]
        with pytest.raises(SEError):
            trained(home / "failed", "optimizer.lr=1e38")
        yield [*found, home / "failed"]


def reproduce():
    """Play a failed step again, as a user's own program does."""
    try:
        print(se.reproduce(sys.argv[1]))
    except SEError as error:
        print(f"se-reproduce: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def commands_of(run, kept):
    """Return what may be done with a run: name, entry function, words."""
    one = ["member=1"] if kept.name == "many" else []
    found = [
        ("se-sample", sample.main, [str(run), "n=3", *one]),
        ("se-eval", evaluate.main, [str(run), "n=20", *one]),
        ("se-export", export.main, [str(run), "out=w.safetensors", *one]),
        ("se-sample", sample.main, [str(run), "n=3", "checkpoint=best", *one]),
        ("se-train", main, [f"resume={run}", "loop.rounds=3", "device=cpu"]),
        ("se-train", main, [f"resume={run}", "loop.rounds=3", "device=cpu"]),
        ("se-compare", compare.main, [str(run), str(kept)]),
        ("se-report", report.main, [str(run), "out=report.html", *one]),
    ]
    return [("se-reproduce", reproduce, [str(run)])] if kept.name == "failed" else found


def answered(program, entry, words, folder):
    """Return what is wrong with the answer of a command, None if nothing, and its seconds of processor time."""
    out, err = folder / "out", folder / "err"
    size = int(re.search(r"VmSize:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024
    child = os.fork()
    if child == 0:
        code = 99
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(HANGS)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, size + BYTES))
            for number, file in ((1, out), (2, err)):
                os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
            os.chdir(folder)
            sys.argv = [program, *words]
            warnings.simplefilter("default")
            code = exit_code(entry)
            sys.stdout.flush(), sys.stderr.flush()
        finally:
            os._exit(code if isinstance(code, int) else 98)
    _, status, used = os.wait4(child, 0)
    seconds, said = used.ru_utime + used.ru_stime, err.read_text(errors="replace")
    shown = said + out.read_text(errors="replace")
    lines = said.splitlines()
    for wrong, what in (
        (os.WIFSIGNALED(status), f"signal {os.WTERMSIG(status)}"),
        (os.WEXITSTATUS(status) not in (0, 1), f"code {os.WEXITSTATUS(status)}"),
        ("Traceback" in shown, "a traceback"),
        (os.WEXITSTATUS(status) == 1 and not (lines and lines[-1].startswith(f"{program}: ")), "no sentence"),
        (not all(c.isprintable() or c in "\n\t" for c in shown), "escapes"),
        (any(len(line) > 1500 for line in shown.splitlines()), "a page"),
    ):
        if wrong:
            return f"{what}: {said[-900:]}", seconds
    return None, seconds


@pytest.mark.soak
def test_a_spoilt_run_is_refused_in_a_sentence_or_read(runs, soak, record, tmp_path, monkeypatch):
    seed = secrets.randbelow(2**32) if soak else 0
    print(f"seed {seed}")
    small_scores(monkeypatch, drawn=soak)
    # Vega's compiler reserves more addresses than a case may have: specifications stay as they are.
    monkeypatch.setattr("se_framework.comparison.report.charts.runtime", lambda: "")
    monkeypatch.setattr("se_framework.comparison.report.charts._compiled", lambda spec: spec)
    problems, slowest, counts = [], 0.0, {}
    for i in range(*map(int, os.environ["SPOILT"].split(","))) if "SPOILT" in os.environ else range(CASES[not soak]):
        draw = random.Random(f"{seed}/{i}")
        kept = runs[draw.choices((0, 1, 2), (6, 3, 1))[0]]
        run = copy_of(kept, tmp_path / "run")
        done = spoil(run, draw)
        program, entry, words = draw.choice(commands_of(run, kept))
        problem, seconds = answered(program, entry, words, tmp_path)
        problems += [f"case {i}: {kept.name}/{done}, {program} {words[1:]}: {problem}"] if problem else []
        slowest, counts[program] = max(slowest, seconds), counts.get(program, 0) + 1
    assert not problems, f"{len(problems)} of {sum(counts.values())}:\n" + "\n".join(problems)
    record("spoilt_runs", {"seed": seed, "cases": counts, "slowest": round(slowest, 1)})
