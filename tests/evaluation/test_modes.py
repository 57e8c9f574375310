"""Scores of known modes against closed forms and enumeration.

Sampling tests compare within 4.9 standard errors (false alarm: once in a million seeds); seeds are fixed.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from se_framework.data import GaussianMixture, GaussianMixture1d, Ring8
from se_framework.evaluation.evaluate import score_lines
from se_framework.evaluation.known_modes import counts, mode_kl, modes, perfect_mode_kl
from se_framework.evaluation.losses import loss_of
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


# -- divergence of mode counts ----------------------------------------------------------------------------------------


def enumerated(n: int, weights: list[float]):
    """Yield the probability of every table of counts of n samples, and its divergence."""
    for count in itertools.product(range(n + 1), repeat=len(weights)):
        if sum(count) == n:
            ways = math.factorial(n) / math.prod(math.factorial(c) for c in count)
            chance = ways * math.prod(w**c for w, c in zip(weights, count, strict=True))
            kl = sum(c / n * math.log(c / n / w) for c, w in zip(count, weights, strict=True) if c)
            yield chance, kl, count


def test_the_divergence_of_mode_counts_and_its_mean_by_enumeration():
    weights = [0.5, 0.3, 0.2]
    tables = list(enumerated(6, weights))
    for _, kl, count in tables:
        found = mode_kl(torch.tensor(count), torch.tensor(weights, dtype=F64))[0]
        assert found == pytest.approx(kl, abs=1e-14)
    mean = sum(chance * kl for chance, kl, _ in tables)
    assert perfect_mode_kl(6, torch.tensor(weights, dtype=F64)) == pytest.approx(mean, abs=1e-13)
    assert perfect_mode_kl(20_000, torch.full((8,), 1 / 8)) == pytest.approx(7 / 40_000, rel=1e-3)  # (K - 1) / 2n


def test_a_mode_that_should_not_be_there_is_infinitely_far():
    found, se = mode_kl(torch.tensor([5, 5]), torch.tensor([1.0, 0.0]))
    assert found == math.inf and not se == 0
    assert mode_kl(torch.tensor([7, 0]), torch.tensor([1.0, 0.0]))[0] == 0


@pytest.mark.parametrize("shares", [[0.125] * 8, [0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]])
def test_the_error_of_the_divergence_is_the_spread_of_repeats(shares):
    """2,000 repeats know a deviation to 1.6 % (2.4 % of a chi-square of 7): 20 % and 3.3 of these."""
    weights = torch.full((8,), 0.125, dtype=F64)
    drawn = torch.multinomial(torch.tensor(shares), 2_000 * 200, replacement=True, generator=draw(0)).view(2_000, 200)
    found = torch.tensor([mode_kl(torch.bincount(row, minlength=8), weights) for row in drawn], dtype=F64)
    assert float(found[:, 1].square().mean().sqrt() / found[:, 0].std()) == pytest.approx(1, abs=0.2 + 3.3 * 0.024)


def test_modes_that_are_lost_are_told():
    """Half of the ring, evenly: log 2."""
    law = Ring8()
    entry = scores(law, law.modes[:4].repeat(50, 1), seed=0, names=("mode_kl",))["mode_kl"]
    assert entry["value"] == pytest.approx(math.log(2), abs=1e-12) and entry["n"] == 200
    assert entry["references"]["perfect"] == pytest.approx(perfect_mode_kl(200, law.mode_weights), abs=1e-15)
    assert 0 < entry["references"]["mixture"] < 0.1
    assert counts(law.modes[[0, 0, 3]] + 0.1, law.modes).tolist() == [2, 0, 0, 1, 0, 0, 0, 0]
    uneven = GaussianMixture([[0.0, 0.0], [9.0, 0.0]], 0.5, [0.9, 0.1])
    entry = scores(uneven, uneven.batch(0, 4_000, 1).x, seed=0, names=("mode_kl",))["mode_kl"]
    assert entry["value"] < 4.9 * 0.5 / 4_000  # its shares are the law's: half a chi-square of one degree over n


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
