"""Exact optimal transport in any dimension, by the network simplex of POT (an extra)."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from divergences.base import WeightedPoints
from divergences.clouds import clouds, common_type, squared_distances, standardised
from divergences.extras import required
from divergences.one_dimensional import TransportCost


class OptimalTransport(TransportCost):
    r""":math:`W_r^r(q,p)=\min_\pi\int|x-y|^r\,d\pi(x,y)` over the plans with marginals q and p, without smoothing.

    In (unit of the data)**r; W1 at r = 1, :math:`W_2^2` at r = 2 (twice the limit of ``sinkhorn`` with p = 2). On
    samples biased upward by the sampling error of both clouds.

    The primal is a linear program, solved exactly in float64 on the CPU by POT's network simplex (Bonneel et al. 2011;
    Flamary et al. 2021), so it needs the extra ``ot``: time about O(N^2.5), memory O(N M). By Danskin's theorem its
    slope in the points is that of the cost at the fixed plan, its slope in the weights the dual potentials, up to a
    constant that weights of sum one do not feel. Second derivatives in points
    alone or weights alone are right wherever the plan does not jump; mixed ones are refused. Not under vmap.

    Under ``auxiliary=transported`` only the ground cost :math:`|x-y|^r` is used, and no extra.

    Args:
        order: r >= 1.
        max_iterations: pivots of the simplex after which it gives up.

    Raises:
        ValueError: an order below 1, max_iterations out of range; at use, clouds with entries that are not finite,
            masses that differ by more than 1e-4, and as in every primal on clouds.
        ModuleNotFoundError: POT is not installed, at use.
        RuntimeError: the simplex gave up, or vmap, at use.
    """

    sources: tuple[str, ...] = ("bonneel2011displacement", "flamary2021pot")
    has_ground_cost = True
    primal_extra = ("ot", "ot")
    stackable = False  # POT solves one problem at a time

    def __init__(self, order: float = 2.0, max_iterations: int = 1_000_000) -> None:
        super().__init__(order)
        if not 1 <= max_iterations < 2**31:  # the solver counts in 32 bits
            raise ValueError(f"OptimalTransport takes 1 <= max_iterations < 2^31, got max_iterations={max_iterations}")
        self.max_iterations = max_iterations

    def primal(self, q: WeightedPoints, law: Any, p: WeightedPoints | None) -> Tensor:
        """Return the cost of the best plan, shape (), from both particle clouds."""
        x, y, a, b = clouds("OptimalTransport", q, p)
        x, y, unit = standardised(x, y)  # the simplex has an absolute tolerance
        value = _Plan.apply(self.ground_cost(squared_distances(x, y)), a, b, self.max_iterations)[0]
        return (value * unit**self.order).to(common_type(q, p))


class _Plan(torch.autograd.Function):
    """The linear program: its value, the plan (the slope in the costs) and the potentials (those in the weights)."""

    @staticmethod
    def forward(cost: Tensor, a: Tensor, b: Tensor, max_iterations: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        solver = required("ot", "ot", "OptimalTransport")
        if not bool(torch.isfinite(cost).all()):
            raise ValueError("OptimalTransport: the particles of q or p are not finite")
        if not torch.isclose(a.sum(), b.sum(), rtol=1e-4):
            raise ValueError(
                f"OptimalTransport: masses differ, {a.sum().item():.6g} and {b.sum().item():.6g}: normalise the weights"
            )
        c, u, v = (t.detach().double().cpu().numpy() for t in (cost, a, b))
        # The simplex asks for masses that agree to the last digit.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what POT warns of is in its log too, and is our error below
            plan, log = solver.emd(
                u, v * (u.sum() / v.sum()), c, numItermax=max_iterations, log=True, check_marginals=False
            )
        if log["warning"] is not None:
            raise RuntimeError(f"OptimalTransport: {' '.join(log['warning'].split())} Raise max_iterations")
        slopes = [torch.as_tensor(t).to(cost) for t in (plan, log["u"], log["v"])]
        return cost.new_tensor((plan * c).sum()), slopes[0], slopes[1], slopes[2]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:3], *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> Any:
        cost, a, b, plan, u, v = ctx.saved_tensors
        return _Held.apply(grad * plan, a, b), _Held.apply(grad * u, cost), _Held.apply(grad * v, cost), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        raise RuntimeError("OptimalTransport cannot be vmapped: POT solves one problem at a time; use a loop over them")


class _Held(torch.autograd.Function):
    """A slope that jumps with some inputs of the program and depends on the others in a way that is not known here."""

    @staticmethod
    def forward(slope: Tensor, *others: Tensor) -> Tensor:
        return slope.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        return None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if any(ctx.needs_input_grad[1:]):
            raise RuntimeError(
                "OptimalTransport has no second derivative in points and weights together: plan and potentials depend "
                "on both; differentiate twice in one of them, with the other detached"
            )
        return grad, *[None] * (len(ctx.needs_input_grad) - 1)
