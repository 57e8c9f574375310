"""Laws of the dual's integrands as functions of the critic's output: types, shapes, derivatives, and the far end."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from divergences.base import Divergence
from divergences.checks.alphabet import is_additive
from divergences.checks.running import close, generator, normal, require, slope_along

FAR = (20.0, 100.0, 1e4)
"""Critic outputs at the edge of float32's exponent, beyond it, and far beyond float64's."""


def forms(divergence: Divergence) -> dict:
    """Return the elementwise methods that players use, by name."""
    if not is_additive(divergence):
        return {"link": divergence.link}
    both = {"link": divergence.link, "conjugate": divergence.conjugate}
    return both if divergence.surrogate else both | {"value": divergence.value}


def inside(divergence: Divergence, v: Tensor) -> Tensor:
    """Return critic outputs shifted to where the conjugate is finite, where the output is f: below ``supremum``."""
    top = getattr(divergence, "supremum", math.inf) if divergence.critic_reads == "potential" else math.inf
    return v - max(float(v.max()) + 0.5 - top, 0.0)


def size(divergence: Divergence, v: Tensor) -> Tensor:
    """Return the size of the terms that are formed at v: what rounding is relative to."""
    u, t = v.exp(), divergence.link(v).abs()
    terms = 1 + u + (1 + u) * t + 1 / u
    return terms + divergence.value(v).abs() + divergence.conjugate(v).abs() if is_additive(divergence) else terms


def elementwise(divergence: Divergence) -> None:
    """Each output depends on its own input, and has its shape."""
    v = normal((6,), 1)
    order = torch.randperm(6, generator=generator(0))
    for name, form in forms(divergence).items():
        out = form(v)
        require(out.shape == v.shape, f"{name} of shape {tuple(v.shape)} has shape {tuple(out.shape)}")
        require(form(v.reshape(2, 3)).shape == (2, 3), f"{name} of shape (2, 3) has another shape")
        close(form(v[order]), out[order], 1e-12 * (1 + out.abs().max()), f"{name} after a permutation")
        close(form(v[:1]), out[:1], 1e-12 * (1 + out.abs().max()), f"{name} of the first element alone")


def dtype_kept(divergence: Divergence) -> None:
    """float32 gives float32 and float64 gives float64, close to each other."""
    v = normal((32,), 2)
    for name, form in forms(divergence).items():
        for dtype in (torch.float32, torch.float64):
            out = form(v.to(dtype))
            require(out.dtype == dtype, f"{name} of {dtype} is {out.dtype}")
        wide = form(v.float().double())
        close(
            form(v.float()), wide, 1e-5 * (1 + wide.abs() + v.exp() + (-v).exp()), f"{name} in float32 against float64"
        )


def finite_or_refused_far_out(divergence: Divergence) -> None:
    """At |v| = 20, 100, 1e4 outputs and gradients are numbers or infinite, or a ValueError says why not; never NaN."""
    for dtype in (torch.float32, torch.float64):
        for far in FAR:
            for v in (far, -far):
                for name, form in forms(divergence).items():
                    x = torch.tensor([v], dtype=dtype, requires_grad=True)
                    try:
                        out = form(x)
                    except (ValueError, ArithmeticError):
                        continue
                    require(not out.isnan(), f"{name} at v = {v:g} in {dtype} is NaN")
                    if name != "value" and out.requires_grad:
                        (slope,) = torch.autograd.grad(out.sum(), x)
                        require(not slope.isnan(), f"the gradient of {name} at v = {v:g} in {dtype} is NaN")


def second_derivatives(divergence: Divergence) -> None:
    """First and second derivatives by autograd are those of differences."""
    v = inside(divergence, torch.linspace(-2, 2, 16, dtype=torch.float64) + 0.01)  # beside surrogates' kinks
    one = torch.ones_like(v)
    for name, form in forms(divergence).items():
        if name == "value":
            continue

        def first(x: Tensor, form=form) -> Tensor:
            x = x.detach().requires_grad_()
            with torch.enable_grad():
                out = form(x).sum()
                return torch.autograd.grad(out, x, create_graph=True)[0] if out.requires_grad else torch.zeros_like(x)

        x = v.clone().requires_grad_()
        (slope,) = torch.autograd.grad(form(x).sum(), x, create_graph=True)
        scale = 1 + slope.detach().abs() + form(v).abs()
        close(slope, slope_along(form, v, one), 1e-8 * scale, f"first derivative of {name}")
        second = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else torch.zeros_like(v)
        close(second, slope_along(first, v, one), 1e-7 * (scale + second.abs()), f"second derivative of {name}")


def under_vmap(divergence: Divergence) -> None:
    """``torch.func.vmap`` gives what a loop gives."""
    v = normal((3, 4), 4)
    for name, form in forms(divergence).items():
        loop = torch.stack([form(row) for row in v])
        close(torch.func.vmap(form)(v), loop, 1e-12 * (1 + loop.abs()), f"{name} under vmap")


def slope_of_the_link(divergence: Divergence) -> None:
    """The link rises nowhere by more than the declared slope, and somewhere by nearly that."""
    declared = divergence.link_slope
    if declared is None:
        return
    v = torch.linspace(-12, 12, 4801, dtype=torch.float64)  # a link that saturates reaches its slope to e^-12
    steepest = float((divergence.link(v).diff() / v.diff()).abs().max())
    require(
        0.999 * declared <= steepest <= declared * (1 + 1e-9),
        f"the steepest secant of the link is {steepest:.6g}, declared link_slope = {declared:.6g}",
    )


LAWS = (elementwise, dtype_kept, finite_or_refused_far_out, second_derivatives, under_vmap, slope_of_the_link)
"""All of them, for any dual, surrogates included."""
