"""Scores of known modes against closed forms and enumeration.

Sampling tests compare within 4.9 standard errors (false alarm: once in a million seeds); seeds are fixed.
"""

from __future__ import annotations

import math

import pytest
import torch

from se_framework.data import GaussianMixture, GaussianMixture1d, Ring8
from se_framework.evaluation.evaluate import loss_of, score_lines
from se_framework.evaluation.known_modes import modes
from se_framework.evaluation.scores import scores

Z = 4.9
F64 = torch.float64
CEILING = 1 - math.exp(-4.5)
MODES = ("modes", "high_quality")


def test_perfect_ring_samples_reach_the_ceiling():
    law = Ring8()
    found = scores(law, law.batch(0, 20_000, 11).x, seed=0, names=MODES)
    quality = found["high_quality"]
    assert pytest.approx(0.98889, abs=1e-5) == CEILING
    assert quality["references"]["perfect"] == pytest.approx(CEILING, abs=1e-12)
    assert abs(quality["value"] - CEILING) < Z * (CEILING * (1 - CEILING) / 20_000) ** 0.5
    assert quality["better"] == "nearer" and quality["n"] == 20_000
    assert found["modes"]["value"] == 8 and found["modes"]["references"] == {"all": 8.0, "mixture": 8.0}


def test_modes_by_hand():
    law = Ring8()
    centres = law.modes
    edge = torch.tensor([0.0599, 0.0], dtype=F64)
    assert modes(centres[[2]] + edge, centres, 0.02) == (1, 1.0)
    assert modes(centres[[2]] + 1.01 * edge, centres, 0.02) == (0, 0.0)
    assert modes(torch.cat([centres[:3], torch.zeros(1, 2, dtype=F64)]), centres, 0.02) == (3, 0.75)


def test_no_mode_scores_without_common_width():
    law = GaussianMixture1d()
    found = scores(law, law.held_out(100, 5).x, seed=0, names=(*MODES, "w2"))
    assert set(found) == {"w2"}
    # Centres that overlap have no simple ceiling; the line has another one than the plane.
    near = GaussianMixture([0.0, 5.0], 1.0)
    assert set(scores(near, near.held_out(100, 5).x, seed=0, names=MODES)["high_quality"]["references"]) == {
        "real",
        "mixture",
    }
    far = GaussianMixture([0.0, 50.0], 1.0)
    perfect = scores(far, far.held_out(100, 5).x, seed=0, names=MODES)["high_quality"]["references"]["perfect"]
    assert perfect == pytest.approx(math.erf(3 / 2**0.5), abs=1e-12)


def test_the_share_of_high_quality_is_best_where_a_perfect_sample_is():
    """0.9991 of samples within three deviations is further from 0.9889 than 0.985 is: they are too narrow."""
    law = Ring8()
    narrow = scores(Ring8(sigma=0.02), law.modes.repeat(50, 1), seed=0, names=MODES)["high_quality"]
    perfect = scores(law, law.batch(0, 5_000, 11).x, seed=0, names=MODES)["high_quality"]
    assert narrow["value"] == 1.0 > perfect["value"] and loss_of(perfect) < loss_of(narrow)
    assert loss_of({"value": 3.0, "better": "higher"}) == -3 and loss_of({"value": 3.0, "better": "lower"}) == 3
    (line,) = score_lines({"w2": {"value": 1.5, "se": 0.25, "n": 7, "seed": 0, "better": "lower", "unit": "unit of x"}})
    assert line.split(None, 1)[1] == "1.5 +- 0.25 [unit of x]  (n 7, seed 0)"
