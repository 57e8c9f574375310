r"""Divergences that feel the geometry of the space, in powers of the unit of the data."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor

from divergences import gaussians
from divergences.base import Divergence, InnerSolution, WeightedPoints
from divergences.clouds import clouds, common_type, root, squared_distances, standardised
from divergences.extras import required
from divergences.lines import Line
from divergences.programs import transport_cost


class Wasserstein1(Divergence):
    r""":math:`W_1(q,p) = \max_{\|g\|_{Lip}\le 1}\mathbb E_q g - \mathbb E_p g` with the Euclidean ground cost.

    For a 1-Lipschitz g the c-transform of g is g itself, so :math:`D^*_p(g) = \mathbb E_p g`, and the inner minimum is
    attained at q* = p with D = 0 (Kantorovich-Rubinstein; Arjovsky, Chintala, Bottou 2017, eq. 2). For any other g the
    dual is not W1: legality asks for a 1-Lipschitz metric, or ``auxiliary=transported``, which takes the c-transform.
    """

    sources: tuple[str, ...] = ("arjovsky2017wasserstein",)
    has_dual = True
    critic_reads = "potential"
    needs_lipschitz = True
    link_slope = 1.0
    has_ground_cost = True
    symmetric = True
    cost_degree = 1.0

    def link(self, v: Tensor) -> Tensor:
        """Return v: the critic's output is the potential g."""
        return v

    def conjugate(self, v: Tensor) -> Tensor:
        """Return v, the c-transform of a 1-Lipschitz potential."""
        return v

    def value(self, v: Tensor) -> Tensor:
        """Return 0: q* = p."""
        return torch.zeros_like(v)

    between_gaussians = staticmethod(gaussians.wasserstein1)

    def between_letters(self, points: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
        r"""Return the cheapest plan's cost: :math:`\int|F_q-F_p|` on a line, else by linear programming."""
        return transport_cost(points, log_q.exp(), log_p.exp())

    def on_a_line(self, line: Line) -> Tensor:
        r"""Return :math:`\int|F_q-F_p|` (Vallender 1974)."""
        return line.integral(lambda x: line.gap(x).abs(), "Wasserstein1")

    def log_tilt(self, v: Tensor) -> Tensor:
        """Return 0: q* = p."""
        return torch.zeros_like(v)

    def ground_cost(self, squared: Tensor) -> Tensor:
        """Return the distance."""
        return root(squared)

    def inner_normalised(self, v: Tensor, p: WeightedPoints, v_data: Tensor | None = None) -> InnerSolution:
        """Return the unnormalised solution: q* = p has mass one already."""
        return self.inner(v, p)


class Sinkhorn(Divergence):
    r"""Debiased entropic transport :math:`S_\epsilon(q,p)` with ground cost :math:`|x-y|^p/p`, by geomloss.

    :math:`S_\epsilon = OT_\epsilon(q,p) - \tfrac12 OT_\epsilon(q,q) - \tfrac12 OT_\epsilon(p,p)` with
    :math:`\epsilon = \text{blur}^p` (Feydy et al. 2019, eq. 3). At blur -> 0 it is :math:`W_1` (p = 1) or
    :math:`\tfrac12 W_2^2` (p = 2); at blur -> infinity half the energy distance (p = 1) or
    :math:`\tfrac12|\mathbb E_qx-\mathbb E_px|^2` (p = 2). On samples it is biased upward by the sampling error of
    both clouds.

    With ``reach`` the transport is *unbalanced*: the plan :math:`\pi` need not have the marginals q and p but pays
    :math:`\rho\,\mathrm{KL}(\pi_1|q) + \rho\,\mathrm{KL}(\pi_2|p)` with :math:`\rho = \text{reach}^p` and
    :math:`\mathrm{KL}(\pi|q) = \int\log(d\pi/dq)\,d\pi - \pi(1) + q(1)`, so mass is given up rather than moved much
    further than reach, and the masses of q and p may differ; S then gains :math:`\tfrac\epsilon2(q(1)-p(1))^2`
    (Sejourne, Feydy, Vialard, Trouve, Peyre 2019). However far the clouds, S stays of the order of :math:`\rho`.

    The wrapper restores autograd's grad mode (geomloss leaves it on), passes a diameter at which the annealing can
    start and the backend that needs no KeOps, works in float32 at least, checks shapes, masses and finiteness, corrects
    the slope of the unbalanced form, and refuses vmap (geomloss reads numbers off the clouds) and second derivatives:
    they are silently wrong there.

    Args:
        p: exponent of the ground cost, 1 or 2.
        blur: width of the entropic smoothing, in the units of the clouds (standardised, where the data is).
        scaling: ratio of successive widths of the annealing in (0, 1). Relative error of the points' slopes against
            0.999, for 64 standard normal points a side in the plane: at 0.95 about 20 % where blur is 0.05, 8 % at 0.2,
            4 % at 0.5; at 0.99 about 7, 2 and 1 %. In 64 dimensions 30 % at blur 0.05, 8 % at 1.
        reach: distance beyond which mass is rather given up than moved, in the units of the clouds; None: never.
        backend: ``tensorized`` holds N M costs; ``online`` (any dimension) and ``multiscale`` (up to three, coarse to
            fine) reduce them as they come, in memory linear in N + M, by KeOps: the extra ``keops`` and a compiler.

    Raises:
        ModuleNotFoundError: a backend without its extra, at use.
        ValueError: an argument out of range, at construction; clouds that are empty, of different dimension, of
            unequal mass (without reach) or with non-finite entries, at use.
    """

    primal_needs = "samples"
    symmetric = True
    sample_bias = "+O(1/n)"
    accuracy = 0.3  # of slopes at the default scaling, see above; its laws are checked to this
    stackable = False  # geomloss decides by values

    def __init__(
        self,
        p: int = 2,
        blur: float = 0.05,
        scaling: float = 0.95,
        reach: float | None = None,
        backend: Literal["tensorized", "online", "multiscale"] = "tensorized",
    ) -> None:
        super().__init__()
        if p not in (1, 2) or not 0 < blur < math.inf or not 0 < scaling < 1:
            raise ValueError(
                f"sinkhorn takes p in (1, 2), blur > 0, 0 < scaling < 1; got p={p}, blur={blur}, scaling={scaling}"
            )
        if reach is not None and not 0 < reach < math.inf:
            raise ValueError(f"sinkhorn takes reach > 0, or null for balanced transport; got reach={reach}")
        if backend not in ("tensorized", "online", "multiscale"):
            raise ValueError(f"sinkhorn takes backend tensorized, online or multiscale; got {backend!r}")
        self.p, self.blur, self.scaling, self.reach, self.backend = p, blur, scaling, reach, backend
        self.primal_extra = None if backend == "tensorized" else ("pykeops", "keops")
        self.cost_degree = float(p)
        self.bounded_in_scale = reach is not None

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of references: the unbalanced divergence has one more."""
        return ("genevay2018learning", "feydy2019interpolating", *(["sejourne2019sinkhorn"] if self.reach else []))

    def extra_repr(self) -> str:
        """Show the parameters."""
        reach = "" if self.reach is None else f", reach={self.reach:g}"
        backend = "" if self.backend == "tensorized" else f", backend={self.backend}"
        return f"p={self.p}, blur={self.blur:g}, scaling={self.scaling:g}{reach}{backend}"

    def rescaled(self, scale: float) -> Sinkhorn:
        """Return it with blur and reach multiplied by scale."""
        twin = copy.copy(self)
        twin.blur, twin.reach = scale * self.blur, None if self.reach is None else scale * self.reach
        return twin

    def primal(self, q: WeightedPoints, law: Any, p: WeightedPoints | None) -> Tensor:
        """Return S(q, p) from both particle clouds, in (unit of the data)**p."""
        x, y, a, b = clouds("Sinkhorn", q, p)
        slopes = torch.is_grad_enabled()
        wanted = tuple(slopes and t.requires_grad for t in (x, y, a, b))
        value = _Sinkhorn.apply(x, y, a, b, self, wanted)[0]
        return value.to(common_type(q, p))

    def between_letters(self, points: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Refuse: geomloss's annealing ends short of the optimum."""
        raise NotImplementedError(
            "Sinkhorn has no exact value here: geomloss anneals to a relative accuracy set by `scaling`; estimate from "
            "samples, or take Wasserstein1"
        )

    def solve(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Call geomloss on clouds x (N, d), y (M, d) with weights a (N,), b (M,)."""
        # SamplesLoss, not geomloss.ot: the slopes of that one are twice what they should be (geomloss 0.3.1).
        from geomloss import SamplesLoss

        if self.primal_extra is not None:  # geomloss itself would answer with a NameError
            required(*self.primal_extra, f"Sinkhorn with backend={self.backend}")
        if self.backend == "multiscale" and x.shape[1] > 3:
            raise ValueError(
                f"sinkhorn: backend=multiscale is for up to 3 coordinates, got {x.shape[1]}: use backend=online"
            )
        for name, cloud in (("q", x), ("p", y)):
            if not bool(torch.isfinite(cloud).all()):
                raise ValueError(f"sinkhorn: the particles of {name} are not finite")
        if self.reach is None and not torch.isclose(a.sum(), b.sum(), rtol=1e-4):
            raise ValueError(
                f"sinkhorn: masses differ, {a.sum().item():.6g} and {b.sum().item():.6g}: normalise the weights"
            )
        x, y, scale = standardised(x, y)
        unit = float(scale)
        blur, reach = self.blur / unit, None if self.reach is None else self.reach / unit
        everything = torch.cat([x, y]).detach()
        spread = float((everything.amax(0) - everything.amin(0)).norm())
        # Annealing starts at half the diameter, where plans are still all but flat: the rounds above, a seventh of all,
        # change nothing, while from a quarter on mass no longer finds its way between far clusters of unequal shares.
        # The start must not be zero; where mass may be given up it is the diameter, and above reach and blur too, or
        # unequal masses end up as far off as 98 %.
        start = max(spread / 2, blur) if reach is None else max(spread, 4 * blur, 4 * reach)
        loss = SamplesLoss(
            "sinkhorn",
            p=self.p,
            blur=blur,
            reach=reach,
            scaling=self.scaling,
            diameter=start,
            backend=self.backend,
            cost=self._cost if self.backend == "tensorized" else None,  # KeOps takes differences, as we do
        )
        return loss(a, x, b, y) * unit**self.p

    def _cost(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Return :math:`|x-y|^p/p`: geomloss's own takes every distance below 1e-4 for 1e-4, and cancels digits."""
        squared = squared_distances(x, y)
        return root(squared) if self.p == 1 else squared / 2

    def slope_factor(self) -> float:
        r"""Return the true slope over that of geomloss: :math:`(\rho+\epsilon)/(\rho+\epsilon/2)`, or 1 if balanced.

        The potentials' exponentials weigh :math:`\rho+\epsilon/2` in the value and :math:`\rho+\epsilon` in the slope
        (Sejourne et al. 2019, proposition 12). geomloss 0.3.1 states the second in the ``backward`` of a Module, which
        torch never calls.
        """
        if self.reach is None:
            return 1.0
        share = (self.blur / self.reach) ** self.p
        return (1 + share) / (1 + share / 2)


class _Sinkhorn(torch.autograd.Function):
    """Sinkhorn and its wanted slopes, taken at once, so that a second derivative raises instead of being wrong."""

    @staticmethod
    def forward(
        x: Tensor, y: Tensor, a: Tensor, b: Tensor, divergence: Sinkhorn, wanted: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():  # on leaving it and this function, torch puts back the mode that geomloss changed
            inputs = [t.detach().requires_grad_(want) for t, want in zip((x, y, a, b), wanted, strict=True)]
            value = divergence.solve(*inputs)
            leaves = [t for t in inputs if t.requires_grad]
            slopes = iter(torch.autograd.grad(value, leaves) if leaves else ())
        return value.detach(), *(divergence.slope_factor() * next(slopes) if want else None for want in wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        ctx.mark_non_differentiable(*(slope for slope in output[1:] if slope is not None))
        ctx.save_for_backward(*inputs[:4], *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> Any:
        inputs, slopes = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        pairs = zip(slopes, inputs, strict=True)
        return (*(None if slope is None else _Once.apply(grad * slope, t) for slope, t in pairs), None, None)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        raise RuntimeError("sinkhorn cannot be vmapped: geomloss reads numbers off the clouds; use a loop over them")


class _Once(torch.autograd.Function):
    """A gradient that depends on the clouds in a way that cannot be differentiated: asking for it raises."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, cloud: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        return None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError("sinkhorn has no second derivative: geomloss would give a wrong one; use its gradient once")
