"""Which minima are means over particles, so that those of pieces of a batch have the mean of the whole: declared, true.

float64; 1e-12 stands for rounding of means of eight terms.
"""

from __future__ import annotations

import pytest
import torch

from models import Affine
from models.laws import Particles
from se_framework.equation.auxiliary import InnerProblem
from tests.support.cases import AUXILIARIES, INSTALLED

DEFAULT_DTYPE = torch.float64


@pytest.mark.parametrize("name", AUXILIARIES)
@pytest.mark.parametrize("divergence", ["kl", "renyi_0.5", "cross_entropy", "energy", "surrogate", "sinkhorn"])
def test_the_declaration_is_true(name, divergence):
    """The minimum on a batch is the mean of those on its halves where that is declared, for any scores."""
    auxiliary, d = AUXILIARIES[name](), INSTALLED[divergence]()
    if not auxiliary.additive(d):
        return
    model, source = Affine((2,)), torch.Generator().manual_seed(2)
    x, y, v, w = (torch.randn(8, *s, generator=source) for s in ((2,), (2,), (), ()))

    def minimum(rows):
        p = Particles(y[rows], log_prob=model().log_prob(y[rows]))
        problem = InnerProblem(v[rows], w[rows], Particles(x[rows]), p, model, d, 0.0, 1.0)
        return auxiliary.minimum(problem)

    halves = (minimum(slice(0, 4)) + minimum(slice(4, 8))) / 2
    torch.testing.assert_close(minimum(slice(0, 8)), halves, rtol=1e-12, atol=1e-12)


def test_what_is_declared_additive():
    found = {(a, d) for a, q in AUXILIARIES.items() for d, make in INSTALLED.items() if q().additive(make())}
    assert ("dual", "kl") in found and ("dual", "surrogate") in found and ("data", "cross_entropy") in found
    assert ("dual", "renyi_0.5") not in found
    assert not {a for a, _ in found} & {"dual_probability", "tilted", "transported", "embedded"}
    assert {d for a, d in found if a == "data"} == {"cross_entropy"}
