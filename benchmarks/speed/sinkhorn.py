"""Rows of Sinkhorn: the slope of the divergence in the model's points, by the wrapper and by geomloss itself."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

import divergences as d
from benchmarks.speed.contest import OURS, Contest, Disagreement, Goal, Row, Size
from benchmarks.speed.timer import Side
from models.laws import Particles

BLUR = 0.05
MOST = 0.03  # error of the slope that both sides may have
# The fastest annealing (greatest steps) of each side that keeps within it, see `python -m benchmarks.speed.sinkhorn`.
OURS_SCALING = {256: 0.989, 1024: 0.991, 4096: 0.985}
BARE_SCALING = {256: 0.989, 1024: 0.991, 4096: 0.985}
# A step of the largest clouds takes over four minutes, so thirty turns of both sides would take five hours.
PAIRS = {256: 30, 1024: 30, 4096: 2}
CHECKED = 256  # points that are compared with the converged slope, which takes seconds at this size
CANDIDATES = (0.97, 0.98, 0.985, 0.987, 0.989, 0.99, 0.991, 0.992)


def rows() -> list[Row]:
    """Return the rows of this file."""
    goal = Goal("bare geomloss at equal accuracy (error of the slope <= 3 % of converged)", ("geomloss",), 1.0)
    return [
        Row(f"sinkhorn_{n}", f"Sinkhorn step through the wrapper, N = {n}, in the plane", partial(sinkhorn, n), (goal,),
            pairs=PAIRS[n], quick_pairs={256: 3}.get(n, 0), warmup=0)
        for n in OURS_SCALING
    ]  # fmt: skip


def sinkhorn(n: int, size: Size) -> Contest:
    """Return value and slope by both."""
    points = n if size == "full" else 64
    x, y = clouds(points)
    sides = {
        OURS: Side(lambda: slope_by_ours(x, y, OURS_SCALING[n])),
        "geomloss": Side(lambda: slope_by_geomloss(x, y, BARE_SCALING[n])),
    }
    return Contest(sides, lambda: agreement(n, x, y), f"scaling {OURS_SCALING[n]} and {BARE_SCALING[n]}, blur {BLUR}")


def clouds(n: int) -> tuple[Tensor, Tensor]:
    """Return data and model points in the plane: normal laws of different spread half a standard deviation apart."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
    return x.to(torch.get_default_dtype()), (0.7 * y + torch.tensor([0.5, -0.3])).to(torch.get_default_dtype())


def slope_by_ours(x: Tensor, y: Tensor, scaling: float) -> Tensor:
    """Return the slope of S in the model's points by the wrapper, shape of y."""
    y = y.detach().requires_grad_()
    value = d.Sinkhorn(p=2, blur=BLUR, scaling=scaling).primal(Particles(x), None, Particles(y))
    return torch.autograd.grad(value, y)[0]


def slope_by_geomloss(x: Tensor, y: Tensor, scaling: float) -> Tensor:
    """Return the same by geomloss itself."""
    from geomloss import SamplesLoss

    y = y.detach().requires_grad_()
    value = SamplesLoss("sinkhorn", p=2, blur=BLUR, scaling=scaling, backend="tensorized")(x, y)
    return torch.autograd.grad(value, y)[0]


def slope_converged(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the same from converged potentials, in float64; nothing of geomloss is used.

    By the envelope theorem the slope of OT in y_j is :math:`\sum_i\pi_{ij}(y_j-x_i)`, and that of -OT(y, y)/2 is minus
    the same sum with y in the place of x.
    """
    x, y = x.double(), y.double()
    slope = torch.zeros_like(y)
    for sign, other in ((1.0, x), (-1.0, y)):
        plan = plan_converged(other, y)
        slope += sign * (plan.sum(0)[:, None] * y - plan.T @ other)
    return slope


def plan_converged(x: Tensor, y: Tensor, tolerance: float = 1e-8, most: int = 60) -> Tensor:
    r"""Return the entropic plan between clouds of equal weights, shape (N, M).

    Alternating updates down to the final :math:`\epsilon`, where they would need tens of thousands of rounds; there
    Newton's method on the concave dual, whose slopes are what the marginals lack.

    Args:
        x: shape (N, d).
        y: shape (M, d).
        tolerance: mass that may be missing from the marginals.
        most: Newton steps.

    Raises:
        Disagreement: the marginals do not come out.
    """
    cost, final, (n, m) = torch.cdist(x, y).square() / 2, BLUR**2, (len(x), len(y))
    f, g, epsilon = cost.new_zeros(n), cost.new_zeros(m), float(cost.max())

    def plan(f: Tensor, g: Tensor) -> Tensor:
        return ((f[:, None] + g - cost) / epsilon).exp() / (n * m)

    while epsilon > final:
        epsilon = max(0.9 * epsilon, final)
        for _ in range(3):
            f = -epsilon * (torch.logsumexp((g - cost) / epsilon, 1) - math.log(m))
            g = -epsilon * (torch.logsumexp((f[:, None] - cost) / epsilon, 0) - math.log(n))
    for _ in range(most):
        pi = plan(f, g)
        missing = torch.cat((1 / n - pi.sum(1), 1 / m - pi.sum(0)))
        if float(missing.abs().sum()) < tolerance:
            return pi
        curvature = torch.cat((torch.cat((pi.sum(1).diag(), pi), 1), torch.cat((pi.T, pi.sum(0).diag()), 1)))
        curvature.diagonal().mul_(1 + 1e-9)  # a constant moves freely between f and g, almost so in each far cluster
        step = epsilon * torch.linalg.solve(curvature, missing)
        size, least = 1.0, f.mean() + g.mean() - epsilon * pi.sum()
        while size > 1e-9:
            new_f, new_g = f + size * step[:n], g + size * step[n:]
            if new_f.mean() + new_g.mean() - epsilon * plan(new_f, new_g).sum() >= least - 1e-15:
                break
            size /= 2
        f, g = new_f, new_g
    raise Disagreement(f"the plan of {n} and {m} points has not its marginals after {most} Newton steps")


def agreement(n: int, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return the error of the slopes of both, relative to converged, on the first points."""
    x, y = x[:CHECKED], y[:CHECKED]
    exact, found = slope_converged(x, y), {}
    for name, slope in (
        (OURS, slope_by_ours(x, y, OURS_SCALING[n])),
        ("geomloss", slope_by_geomloss(x, y, BARE_SCALING[n])),
    ):
        found[name] = error(slope, exact)
        if len(x) == CHECKED and found[name] > MOST:
            raise Disagreement(f"the slope of {name} is off by {found[name]:.3f} on {CHECKED} points, allowed {MOST}")
    return found


def error(slope: Tensor, exact: Tensor) -> float:
    """Return the relative error in the Euclidean norm over all points."""
    return float((slope.double() - exact).norm() / exact.norm())


def main() -> None:
    """Print the error of every candidate, from which the scalings above are taken."""
    for n in OURS_SCALING:
        x, y = (points[:CHECKED] for points in clouds(n))
        exact = slope_converged(x, y)
        for scaling in CANDIDATES:
            ours, bare = (error(f(x, y, scaling), exact) for f in (slope_by_ours, slope_by_geomloss))
            print(f"N = {n}  scaling {scaling}: ours {ours:.4f}, geomloss {bare:.4f}", flush=True)


if __name__ == "__main__":
    main()
