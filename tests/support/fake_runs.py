"""Run directories without training: the files that a finished, failed or killed run leaves, with scores of choice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from se_framework.config.composing import compose
from se_framework.config.files import config_dir
from se_framework.config.schema import validate
from se_framework.runs.sweeps import record_job


@cache
def base() -> DictConfig:
    """Return the configuration of the experiment."""
    return validate(compose("vanilla_gan", ["device=cpu", "loop.rounds=100"]))


@cache
def configuration(*words: str) -> str:
    """Return the YAML that a run of these words keeps: choices of groups, and values by dotted key."""
    found = base().copy()
    for word in words:
        key, _, value = word.partition("=")
        part = config_dir() / key / f"{value}.yaml"
        node = OmegaConf.load(part) if part.is_file() else yaml.safe_load(value.replace(":[", ": ["))
        OmegaConf.update(found, key, node, merge=False, force_add=True)
    return OmegaConf.to_yaml(validate(found))


def w2(value: float, **more: Any) -> dict[str, Any]:
    """Return the entry of a score that is better lower."""
    known = {"references": {"real_vs_real": 0.1}}
    return (
        {"value": value, "se": 0.01, "n": 1000, "seed": 0, "better": "lower", "unit": "unit of the data"} | known | more
    )


def fake_run(
    path: Path,
    words: Sequence[str] = (),
    seed: int = 0,
    scores: Mapping[str, Any] | float | None = None,
    rounds: int = 100,
    **summary: Any,
) -> Path:
    """Write a run.

    Args:
        path: its directory.
        words: overrides of the experiment.
        seed: of the run.
        scores: entries by name, or the value of w2 alone; None leaves out the summary.
        rounds: that the summary tells.
        summary: what else it holds.
    """
    path.mkdir(parents=True)
    text = configuration(*words).replace("\nseed: 0\n", f"\nseed: {seed}\n")
    (path / "config.yaml").write_text(text)
    data = next((word for word in words if word.startswith("data=")), "data=ring8")
    (path / "data.json").write_text(json.dumps({"name": data, "fingerprint": f"sha256:{data}"}))
    if scores is not None:
        found = {"w2": w2(scores)} if isinstance(scores, (int, float)) else scores
        content = {"round": rounds, "samples": rounds, "last_row": {"seconds": 2.0}, "scores": found, "warnings": []}
        (path / "summary.json").write_text(json.dumps(content | summary))
    return path


def fail(path: Path) -> None:
    """Let a run without a summary have failed."""
    (path / "failure").mkdir()
    record = {"player": "phi", "round": 7, "term": "E_q_f", "source": "the metric's output is inf"}
    (path / "failure" / "failure.json").write_text(json.dumps(record))


def fake_rows(folder: Path, rows: Mapping[str, Sequence[float | None]], *words: str) -> Path:
    """Write runs of divergences at seeds 0, 1, ...: their w2, None for a run that failed."""
    for name, values in rows.items():
        for seed, value in enumerate(values):
            run = fake_run(folder / f"{name}-{seed}", [f"divergence={name}", *words], seed, value)
            if value is None:
                fail(run)
    return folder


def fake_sweep(folder: Path, jobs: Sequence[tuple[str, int, float | str]]) -> Path:
    """Write a sweep over divergences and seeds: each job's w2, or the status of one that came to no run."""
    for job, (name, seed, became) in enumerate(jobs):
        own, words = folder / str(job), ["experiment=vanilla_gan", f"divergence={name}", f"seed={seed}"]
        if isinstance(became, str):
            record_job(own, job, words, became, error=f"it {became}")
        else:
            record_job(own, job, words, "finished", became, fake_run(own, [f"divergence={name}"], seed, became))
    return folder


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold a lock as another process does."""
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program, file], stdin=-1, stdout=-1) as process:
        process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()
