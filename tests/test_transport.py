"""Wasserstein1 and the Sinkhorn wrapper against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from divergences import Sinkhorn, Wasserstein1
from models.laws import Particles
from tests.oracles import (
    critic_outputs,
    letters,
    simplex,
)

DEFAULT_DTYPE = torch.float64


# -- transport --------------------------------------------------------------------------------------------------------


def cloud(points, log_weights=None) -> Particles:
    x = torch.as_tensor(points)
    return Particles(x[:, None] if x.ndim == 1 else x, log_weights)


def test_wasserstein_dual_leaves_p_as_it_is():
    p, v = letters(simplex(6, 0)), critic_outputs(6, 0, 3.0)
    for inner in (Wasserstein1().inner(v, p), Wasserstein1().inner_normalised(v, p, v + 9)):
        assert float(inner.divergence) == 0 and not inner.log_tilt.any()
        assert float(inner.conjugate) == float(inner.link_q) == pytest.approx(float(p.mean(v)))


@pytest.mark.parametrize("distance", [0.25, 3.0, 40.0])
def test_sinkhorn_between_diracs(distance):
    a, b = cloud([0.0]), cloud([distance])
    assert float(Sinkhorn(p=2).primal(a, None, b)) == pytest.approx(0.5 * distance**2, rel=1e-12)
    # geomloss takes distances as sqrt(max(|x-y|^2, 1e-8)), so each of the two self-terms counts 1e-4 / 2 too much.
    assert float(Sinkhorn(p=1).primal(a, None, b)) == pytest.approx(distance, abs=1.0001e-4)


@pytest.mark.parametrize("exponent", [1, 2])
def test_sinkhorn_of_a_shift_on_the_line(exponent):
    """A shift by more than the width of the cloud: every plan costs the same for p = 1, and p = 2 gives d^2/2."""
    x, shift = torch.randn(40, 1).clamp(-2, 2), 5.0
    got = float(Sinkhorn(p=exponent, blur=0.05, scaling=0.99).primal(cloud(x), None, cloud(x + shift)))
    exact = shift if exponent == 1 else 0.5 * shift**2
    assert got == pytest.approx(exact, abs=2 * 0.05**exponent * math.log(40))  # entropies of the plans, each <= log N


@pytest.mark.parametrize("mode", [True, False])
def test_sinkhorn_restores_the_grad_mode(mode):
    with torch.set_grad_enabled(mode):
        Sinkhorn().primal(cloud([0.0, 1.0]), None, cloud([0.5]))
        assert torch.is_grad_enabled() is mode
        with pytest.raises(ValueError, match="the particles of p are not finite"):
            Sinkhorn().primal(cloud([0.0, 1.0]), None, cloud([math.nan]))
        assert torch.is_grad_enabled() is mode


def test_sinkhorn_of_one_point_repeated():
    x = torch.full((5, 3), 2.0, requires_grad=True)
    value = Sinkhorn().primal(cloud(x), None, cloud(torch.full((4, 3), 2.0)))
    (gradient,) = torch.autograd.grad(value, x)
    assert (
        float(value.detach()) == pytest.approx(0, abs=1e-14)
        and gradient.isfinite().all()
        and gradient.abs().max() < 1e-12
    )


def test_sinkhorn_refusals():
    ok = cloud([0.0, 1.0])
    for bad, message in [
        (cloud([math.nan, 0.0]), "the particles of q are not finite"),
        (cloud([math.inf, 0.0]), "the particles of q are not finite"),
        (cloud(torch.zeros(2, 3)), "points of q have 3 coordinates, points of p have 1"),
        (cloud([0.0, 1.0], torch.zeros(2)), "masses differ, 2 and 1: normalise the weights"),
    ]:
        with pytest.raises(ValueError, match=message):
            Sinkhorn().primal(bad, None, ok)
    with pytest.raises(ValueError, match="needs samples of the model"):
        Sinkhorn().primal(ok, None, None)
    for arguments in ({"p": 3}, {"p": 0}, {"blur": 0.0}, {"blur": -1.0}, {"scaling": 1.0}, {"scaling": 0.0}):
        with pytest.raises(ValueError, match=r"takes p in \(1, 2\), blur > 0, 0 < scaling < 1; got"):
            Sinkhorn(**arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sinkhorn_computes_in_float32_at_least(dtype):
    x, y = (torch.linspace(0, 1, 5) + shift for shift in (0.0, 2.0))
    x, y = x.to(dtype)[:, None].requires_grad_(), y.to(dtype)[:, None]
    value = Sinkhorn().primal(cloud(x), None, cloud(y))
    (gradient,) = torch.autograd.grad(value, x)
    exact = Sinkhorn().primal(cloud(x.detach().double()), None, cloud(y.double()))
    assert value.dtype == gradient.dtype == dtype
    # One rounding of the answer, and weights rounded to the type: each by half a spacing, six spacings of the total.
    assert float(value.detach()) == pytest.approx(float(exact), rel=6 * torch.finfo(dtype).eps)


def test_sinkhorn_refuses_second_derivatives():
    x = torch.tensor([[0.0], [1.0]], requires_grad=True)

    def value(x):
        return Sinkhorn().primal(cloud(x), None, cloud([2.0, 3.0]))

    (gradient,) = torch.autograd.grad(value(x), x, create_graph=True)
    assert float(gradient.norm()) > 0
    for twice in (
        lambda: torch.autograd.grad(gradient.square().sum() + x.pow(3).sum(), x),  # must not drop its part in silence
        lambda: torch.autograd.functional.hessian(value, x),
    ):
        with pytest.raises(RuntimeError, match="sinkhorn has no second derivative"):
            twice()


def test_sinkhorn_gradient():
    """At slow annealing, on weighted clouds of a few points, in both clouds and in p's weights."""
    d = Sinkhorn(p=2, blur=0.7, scaling=0.98)
    x, y = torch.randn(4, 2), torch.randn(3, 2) + 1
    w = torch.tensor([0.2, 0.5, 0.3])

    def value(flat):
        return d.primal(cloud(flat[:8].reshape(4, 2)), None, cloud(flat[8:].reshape(3, 2), w.log()))

    flat = torch.cat([x.flatten(), y.flatten()]).requires_grad_()
    (gradient,) = torch.autograd.grad(value(flat), flat)
    index = torch.tensor([0, 5, 9])
    numeric = torch.stack([
        (value(flat.detach() + step) - value(flat.detach() - step)) / 2e-4
        for step in 1e-4 * torch.eye(14)[index]
    ])  # fmt: skip
    torch.testing.assert_close(gradient[index], numeric, rtol=5e-3, atol=5e-3)
