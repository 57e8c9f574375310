"""The page docs/howto/tuning.md: its commands work as they stand, in an empty folder, with fewer rounds."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

import se_framework as se
from se_framework.commands.train import train_run
from se_framework.comparison.searches import curve
from se_framework.config.composing import compose
from se_framework.config.schema import validate
from se_framework.data import Ring8
from se_framework.errors import ConfigError
from se_framework.evaluation.evaluate import evaluate
from se_framework.evaluation.validation import POINTS, validated
from tests.support.commands import ROOT, SMALL_SCORES, environment, small_scores

PAGE = (ROOT / "docs" / "howto" / "tuning.md").read_text(encoding="utf-8")
MODULES = {"se-train": "se_framework", "se-compare": "se_framework.commands.compare"}
SHORT = ["loop.rounds=2", "loop.batch_size=16", "loop.log_every=0", "device=cpu", "progress=false"]
WORDS = ["data=ring8", *SHORT, "loop.early_stop=w2", "loop.patience=1000000", "score=validation"]


def commands(section):
    """Return the commands of a section of the page."""
    text = re.split(r"^## ", PAGE, flags=re.M)[section]
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]


def played(folder, lines, *more):
    """Run commands of the page in one process, one after the other, and return what they print."""
    calls = []
    for line in lines:
        name, *words = shlex.split(line)
        words = [*words, *SHORT, *more] if name == "se-train" else words
        calls.append((MODULES[name], [name, *words]))
    program = f"{SMALL_SCORES}\nimport runpy, sys\nfor module, words in {calls!r}:\n" + (
        "    sys.argv = words\n    runpy.run_module(module, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.soak
def test_the_grid_and_its_tables(tmp_path, soak):
    """Eight runs as the page has them, four of one learning rate in make test."""
    (train,) = commands(1)
    each = 4 if soak else 2
    said = played(tmp_path, [train if soak else train.replace("3e-4,1e-3", "1e-3"), *commands(2)])
    assert f"w2, best of {each}" in said and f"{each} trials each, chosen by validation" in said
    assert (tmp_path / "tuned.csv").read_text().count("\n") == 1 + 2 * each
    for job in range(2 * each):
        told = json.loads((tmp_path / f"tuned/{job}/result.json").read_text())
        scores = json.loads((tmp_path / f"tuned/{job}/summary.json").read_text())["scores"]
        assert told["score"] == scores["validation"]["value"] != scores["w2"]["value"]


def test_optuna_draws_the_trials(tmp_path):
    if importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
        pytest.skip("needs the extra tune")
    said = played(tmp_path, commands(3)[1:], "hydra.sweeper.n_trials=2")
    assert "2 trials each" in said and "budgets differ in trials" not in said


def test_the_figure_of_the_page():
    at = curve(*[np.arange(1, 6) / 6] * 2)[-1]
    assert "expects 0.236 where the truth is 1/6" in PAGE and round(at.with_replacement, 3) == 0.236
    np.testing.assert_allclose(at.mean, 1 / 6, rtol=1e-12)


def test_score_validation_needs_validation_points(tmp_path):
    words = [word for word in WORDS if not word.startswith("loop.early_stop")]
    with pytest.raises(ConfigError, match="score=validation: this run looks at no validation points: set loop.early"):
        train_run(validate(compose("vanilla_gan", words)), tmp_path / "run", words)


def test_what_a_sweeper_is_told_does_not_see_held_out_points(monkeypatch):
    """Planted: held-out points that lie far off move the scores that judge, and not the one that chooses."""
    small_scores(monkeypatch)

    def told(shift):
        with monkeypatch.context() as patch:
            held_out = Ring8.held_out
            patch.setattr(Ring8, "held_out", lambda *a, **k: moved(held_out(*a, **k), shift))
            assembly = se.compose("vanilla_gan", WORDS)
            assembly.train()
            return validated(assembly), evaluate(assembly, 100, names=("w2",))["w2"]["value"]

    (chosen, w2), (still, far) = told(0.0), told(100.0)
    assert chosen == still and chosen["chosen_by"] == "w2" and chosen["n"] == POINTS and far > w2 + 90


def moved(points, shift):
    points.x.add_(shift)
    return points


def test_a_run_without_early_stopping_has_no_such_entry(monkeypatch):
    small_scores(monkeypatch)
    assembly = se.compose("vanilla_gan", ["data=ring8", *SHORT])
    assembly.train()
    assert validated(assembly) is None
