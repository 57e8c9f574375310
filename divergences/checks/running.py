"""Running laws on an object: collect every failure, name the law, show the numbers; or hand the laws to pytest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

Laws = Iterator[tuple[str, Callable[[], None]]]


class Role(NamedTuple):
    """A player as a divergence sees it, see :class:`divergences.base.Mover`."""

    sign: int
    moves_samples: bool


METRIC, MODEL = Role(sign=+1, moves_samples=False), Role(sign=-1, moves_samples=True)


class CheckError(AssertionError):
    """An object breaks laws it declares; the message has the name of each and the numbers."""


def named(subject: Any, *laws: Callable[[Any], None]) -> Laws:
    """Yield the name of each law and the law, bound to the object."""
    for law in laws:
        yield law.__name__, partial(law, subject)


def run(subject: Any, laws: Laws) -> None:
    """Run all laws on an object.

    Raises:
        CheckError: one or more fail; the message names each, with its numbers or the exception it met.
    """
    failures, count = [], 0
    for name, law in laws:
        count += 1
        try:
            law()
        except AssertionError as error:
            failures.append(f"{name}: {error}")
        except Exception as error:  # a law that cannot be evaluated is not kept
            failures.append(f"{name}: {type(error).__name__}: {error}")
    if failures:
        title = f"{type(subject).__name__} breaks {len(failures)} of {count} laws"
        raise CheckError("\n  ".join([title, *failures]))


def parametrize(subjects: Iterable[Any], laws_of: Callable[[Any], Laws]) -> Any:
    """Return a ``pytest.mark.parametrize`` of the argument ``law`` over the laws of all objects.

    Args:
        subjects: the objects.
        laws_of: yields the laws of one.
    """
    import pytest

    cases = [
        pytest.param(law, id=f"{type(subject).__name__}-{name}")
        for subject in subjects
        for name, law in laws_of(subject)
    ]
    return pytest.mark.parametrize("law", cases)


def require(holds: bool | Tensor, message: str) -> None:
    """Fail with a message unless the condition holds (everywhere)."""
    if not bool(torch.as_tensor(holds).all()):
        raise AssertionError(message)


def close(got: Tensor | float, want: Tensor | float, allowed: Tensor | float, what: str) -> None:
    """Fail unless two results agree within an absolute tolerance; equal infinities agree, NaN with nothing.

    Args:
        got: from the object.
        want: the reference, of a shape that broadcasts with it.
        allowed: the tolerance.
        what: what is compared; the message adds the worst pair.
    """
    tensors = [torch.as_tensor(t, dtype=torch.float64).detach() for t in (got, want, allowed)]
    a, b, limit = torch.broadcast_tensors(*tensors)
    good = (a == b) | ((a - b).abs() <= limit)
    if not bool(good.all()):
        excess = torch.where(good, -1.0, torch.nan_to_num((a - b).abs() / limit, nan=torch.inf))
        worst = int(excess.argmax())
        one, other, within = (float(t.flatten()[worst]) for t in (a, b, limit))
        raise AssertionError(f"{what}: got {one:.8g}, expected {other:.8g} within {within:.1g}")


def generator(seed: int) -> torch.Generator:
    """Return a source of random numbers of its own, so that a check moves nobody's seed."""
    return torch.Generator().manual_seed(seed)


def simplex(k: int, seed: int) -> Tensor:
    """Return a random distribution on k letters, none of them rarer than a fiftieth of the commonest."""
    return (2 * torch.rand(k, generator=generator(seed), dtype=torch.float64) * math.log(7)).softmax(0)


def coordinates(divergence: Any) -> int:
    """Return in how many coordinates a divergence is checked: two, or one where it takes no more."""
    return min(2, divergence.largest_dimension or 2)


def normal(shape: Sequence[int], seed: int) -> Tensor:
    """Return standard normal numbers in float64."""
    return torch.randn(tuple(shape), generator=generator(seed), dtype=torch.float64)


def maximum(f: Callable[[Tensor], Tensor], start: Tensor, reach: float = 8.0) -> tuple[float, Tensor]:
    """Return the maximum of a smooth f near a start and where it is, by L-BFGS inside a box of that half-width.

    Where f refuses its argument (a ValueError) it counts as minus infinity.
    """

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(z, requires_grad=True)
        try:
            total = -f(x)
        except ValueError:
            return math.inf, np.zeros_like(z)
        return float(total.detach()), torch.autograd.grad(total, x)[0].numpy()

    box = [(float(s) - reach, float(s) + reach) for s in start]
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    found = optimize.minimize(loss, start.numpy(), jac=True, method="L-BFGS-B", bounds=box, options=options)
    return -float(found.fun), torch.as_tensor(found.x)


def slope_along(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, step: float = 1e-4) -> Tensor:
    """Return the derivative of f at x along a direction by a fourth-order difference: error step^4/30 f^(5)."""
    with torch.no_grad():
        values = [f(x + k * step * direction).double() for k in (-2, -1, 1, 2)]
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)


def close_to_slope(
    got: Tensor, f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, allowed: Tensor, what: str
) -> None:
    """Fail unless a slope of f along a direction is that of differences, within an absolute tolerance.

    Where f is a minimum over plans or orders it has kinks, and one within reach of the difference moves it, not the
    slope: a second difference that reaches a hundredth as far then decides.
    """
    want = slope_along(f, x, direction)
    if not bool((got - want).abs() <= allowed):
        want = slope_along(f, x, direction, 1e-6)
    close(got, want, allowed, what)
