"""Roots where values cannot be read (under vmap): a fixed number of steps that is enough, against mpmath and brentq."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import optimize

import divergences as d
from divergences.exact import Points
from divergences.roots import EPS, Table, root
from tests.support.cases import F_DIVERGENCES

DEFAULT_DTYPE = torch.float64


@pytest.mark.parametrize(
    "link",
    [lambda s: s + 0.3 * torch.sin(s), lambda s: torch.expm1(2 * s), lambda s: -torch.exp(-2 * s), torch.sinh]
    + [lambda s: s + 0.009 * torch.sin(100 * s)],  # as rough as a cell of the table: seven steps are needed
)
def test_a_table_is_inverted_to_rounding_under_vmap(link):
    """s to 1e-13 of a cell's rise and the rounding of the link: 4 eps |l| over its slope."""
    s = torch.linspace(-9, 9, 997) + 0.0037
    t = link(s)
    table = Table(link, t.device)
    slope = torch.func.vmap(torch.func.grad(link))(s)
    allowed = 4 * EPS * (1 + s.abs() + t.abs() / slope) + 2e-15
    for found in (table.exactly(t), torch.func.vmap(table.exactly)(t.reshape(997, 1))[:, 0]):
        assert bool(((found - s).abs() <= allowed).all()), ((found - s).abs() / allowed).max()


def test_forty_steps_suffice_from_far_away():
    """Brackets of 60 about a root, as the multiplier's are where scores lie far apart, for f of any growth."""
    for f in (torch.asinh, lambda x: torch.sinh(x / 3), lambda x: x + 0.5 * torch.sin(2 * x)):
        where = torch.linspace(-20, 25, 41) + 0.0123

        def solve(at, f=f):
            low, high = torch.full_like(at, -30.0), torch.full_like(at, 30.0)
            return root(lambda x: f(x - at), low, high, f(low - at), f(high - at), steps=40)

        mapped = torch.func.vmap(solve)(where)
        assert float((mapped - where).abs().max()) <= 8 * EPS * 30
        assert float((solve(where) - where).abs().max()) <= 8 * EPS * 30


def test_the_last_of_forty_steps_counts():
    """A root of infinite slope: the error falls by two each step and more, to 1e-11 of a bracket of 60 after forty."""
    where = torch.linspace(-20, 25, 41) + 0.0123

    def solve(at):
        low, high = torch.full_like(at, -30.0), torch.full_like(at, 30.0)
        return root(lambda x: f(x - at), low, high, f(low - at), f(high - at), steps=40)

    def f(x):
        return x.sign() * x.abs().sqrt()

    assert float((torch.func.vmap(solve)(where) - where).abs().max()) <= 60 * 2.0**-40 / 4


@pytest.mark.parametrize("name", F_DIVERGENCES)
def test_the_multiplier_under_vmap_is_that_of_a_loop(name):
    D = F_DIVERGENCES[name]()
    random = torch.Generator().manual_seed(0)
    v = torch.tensor([0.3, 1.0, 2.0])[:, None] * torch.randn(3, 12, generator=random)
    points = Points(torch.zeros(12, 1))
    mapped = torch.func.vmap(lambda w: D.inner_normalised(w, points).conjugate)(v)
    loop = torch.stack([D.inner_normalised(w, points).conjugate for w in v])
    torch.testing.assert_close(mapped, loop, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("top", [0.0, 4.0])
def test_data_count_in_a_normalised_bound(top):
    """Where h'(inf) is finite q may put mass on the data alone: lambda >= sup f - h'(inf) over both samples."""
    random = torch.Generator().manual_seed(2)
    v_model, v_data = torch.randn(20, generator=random) - 1, torch.randn(15, generator=random) - 1
    v_data[3] += top
    D = d.JensenShannon()
    t, t_data = (math.log(2) / 2 + torch.nn.functional.logsigmoid(v) / 2 for v in (v_model, v_data))
    supremum = math.log(2) / 2

    def dual(lagrange):  # h*(s) = -log(2 - e^(2s))/2
        return lagrange - float(torch.log(2 - torch.exp(2 * (t - lagrange))).mean()) / 2

    floor = float(torch.cat([t, t_data]).max()) - supremum
    found = optimize.minimize_scalar(dual, bounds=(floor, floor + 3), method="bounded", options={"xatol": 1e-12})
    least = min(found.fun, dual(floor))
    assert float(D.bound(v_data, v_model, normalised=True).value) == pytest.approx(
        float(t_data.mean()) - least, abs=1e-9
    )
    alone = float(t_data.mean() - D.inner_normalised(v_model, Points(v_model[:, None])).conjugate)
    assert (alone > float(D.bound(v_data, v_model, normalised=True).value) + 1e-3) == (top > 0)
