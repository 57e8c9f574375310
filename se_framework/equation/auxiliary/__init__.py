r"""The auxiliary distribution q: how :math:`\min_q -\alpha H(q) + \beta D(q,p_\theta) - \mathbb E_q f` is taken.

After the exact q-step the players treat q as a constant (Danskin): what they differentiate is the minimum's value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from divergences.base import Divergence, InnerSolution
from models.base import Model
from models.laws import Particles
from se_framework.errors import IncompatibleError


class Solution(NamedTuple):
    """The inner minimum with its three terms and the mass of q (None: one), float64 scalars.

    None marks a constant or unknown term.
    """

    minimum: Tensor
    entropy: Tensor | None
    divergence: Tensor | None
    f_q: Tensor | None
    up_to_constant: bool = False
    mass: Tensor | None = None


class InnerProblem(NamedTuple):
    """Everything the minimum over q depends on.

    Attributes:
        v: critic outputs at p's particles, shape (N,), or their embedding, shape (N, k); None without a metric.
        v_data: critic outputs on data, shape (M,), or their embedding; None without a metric.
        data: particles of p_d.
        p: particles of p_theta; None where D asks for the law only.
        model: p_theta itself.
        divergence: D, or a player's view.
        alpha: weight of H(q).
        beta: weight of D.
        metric: f_phi's network at further points, from (B, *E) to (B,); None without a metric.
    """

    v: Tensor | None
    v_data: Tensor | None
    data: Particles
    p: Particles | None
    model: Model
    divergence: Divergence
    alpha: float
    beta: float
    metric: Callable[[Tensor], Tensor] | None = None


class Auxiliary(nn.Module, ABC):
    """Base of every q-step.

    Attributes:
        uses_metric: f_phi enters; otherwise there is no player phi.
        embeds: f_phi is not a score but an embedding, in which D is computed.
        needs_mass_one: q is a probability, so D must have its dual over those.
        uses: how D enters: by its ``"dual"``, its ``"primal"``, its ``"entropy"`` form CE - c H, or its ground cost of
            ``"transport"``.
        needs_alpha: True: the step exists only for alpha > 0; False: only for alpha = 0; None: for any alpha.
        needs_density: the step reads log p_theta at its particles (``problem.p.log_prob``).
        minimum_reads_data: the minimum reads the critic on data (``problem.v_data``), which else only E_pd f does.
        minimum_name: the minimum's formula, for messages and logs.
    """

    uses_metric: ClassVar[bool] = True
    embeds: ClassVar[bool] = False
    needs_mass_one: bool = False
    uses: ClassVar[Literal["dual", "primal", "entropy", "transport"]] = "dual"
    needs_alpha: ClassVar[bool | None] = None
    needs_density: ClassVar[bool] = False
    minimum_reads_data: bool = True
    minimum_name: ClassVar[str] = "min_q"

    def f(self, v: Tensor, divergence: Divergence, beta: float) -> Tensor:
        """Return f from the critic's output v, shape (B,)."""
        raise NotImplementedError

    @abstractmethod
    def minimum(self, problem: InnerProblem) -> Tensor:
        """Return the minimum over q, a scalar the players differentiate."""

    @abstractmethod
    def solve(self, problem: InnerProblem) -> Solution:
        """Return the minimum with its terms, for the record; the problem is in float64."""

    def log_ratio(self, x: Tensor, v: Tensor, problem: InnerProblem) -> Tensor:
        """Return log dq*/dp at x, shape (B,), from the critic's output v there: at the optimum q* is the data."""
        return v


class Dual(Auxiliary):
    r"""alpha = 0: :math:`\min_q \beta D(q,p) - \mathbb E_q f = -\beta D^*_p(f/\beta)`, with :math:`f=\beta\,\ell(v)`.

    Args:
        normalised: q ranges over probability measures (for KL: Donsker-Varadhan) instead of unnormalised q >= 0 (NWJ,
            f-GAN). The bound is tighter and blind to constants in f, but not additive over a batch.
    """

    uses = "dual"
    needs_alpha = False
    minimum_name = "-beta D*_p(f/beta)"

    def __init__(self, normalised: bool = False) -> None:
        super().__init__()
        self.normalised = self.needs_mass_one = self.minimum_reads_data = normalised

    def extra_repr(self) -> str:
        """Show over which q the minimum is taken."""
        return "over probability q" if self.normalised else "over unnormalised q"

    def f(self, v: Tensor, divergence: Divergence, beta: float) -> Tensor:
        r"""Return :math:`\beta\,\ell(v)`."""
        return _scaled(beta, divergence.link(v))

    def _inner(self, problem: InnerProblem) -> InnerSolution:
        v, p = _scores(problem)
        return (
            problem.divergence.inner_normalised(v, p, problem.v_data)
            if self.normalised
            else problem.divergence.inner(v, p)
        )

    def minimum(self, problem: InnerProblem) -> Tensor:
        r"""Return :math:`-\beta D^*_p(\ell(v))`."""
        if self.normalised:
            return -_scaled(problem.beta, self._inner(problem).conjugate)
        return -_scaled(problem.beta, problem.divergence.mean_conjugate(*_scores(problem)))

    def solve(self, problem: InnerProblem) -> Solution:
        """Return D(q*, p) and E_q* f of q* = p e^v (or of its normalised form)."""
        if problem.divergence.surrogate:  # not the conjugate of a D: there is no q, only the two players' losses
            return Solution(self.minimum(problem), None, None, None)
        inner, (_, p) = self._inner(problem), _scores(problem)
        entropy, u = None, inner.log_tilt.exp()
        if p.log_prob is not None:
            entropy = -p.mean(torch.where(u == 0, 0.0, u * (inner.log_tilt + p.log_prob)))  # 0 log 0 = 0
        mass = None if self.normalised else p.mean(u)
        f_q = problem.beta * inner.link_q
        return Solution(-problem.beta * inner.conjugate, entropy, inner.divergence, f_q, mass=mass)

    def log_ratio(self, x: Tensor, v: Tensor, problem: InnerProblem) -> Tensor:
        r"""Return v, or under probability q :math:`\ell^{-1}(\ell(v) - \lambda)`: f is free up to a constant there.

        Where q* = p e^v / Z (:attr:`InnerSolution.log_partition`) log Z is taken off.
        """
        divergence = problem.divergence
        if not self.normalised and divergence.additive_dual:
            return v
        inner, s = self._inner(problem), v.double()
        if self.normalised:
            s = divergence.inverse_link(divergence.link(s) - inner.multiplier)
        return (s - inner.log_partition).to(v.dtype)


class Primal(Auxiliary):
    r"""Base of the q-steps at which q is the data, so that theta meets :math:`\beta D(p_d, p_\theta)` itself."""

    uses = "primal"

    @abstractmethod
    def evaluate(self, problem: InnerProblem) -> Tensor:
        """Return D."""

    def minimum(self, problem: InnerProblem) -> Tensor:
        r"""Return :math:`\beta D`."""
        return _scaled(problem.beta, self.evaluate(problem))

    def solve(self, problem: InnerProblem) -> Solution:
        """Return D; the other terms are constants."""
        value = self.evaluate(problem).double()
        up_to_constant = problem.divergence.up_to_constant or problem.alpha > 0
        return Solution(problem.beta * value, None, value, None, up_to_constant)


class Empirical(Primal):
    r"""q is the empirical distribution: the limit beta -> 0 inside min_q with f = log of the empirical density.

    The theta-step minimises :math:`\beta D(p_d, p_\theta)`. H(q), E_q f and E_pd f are constants: the two f terms
    cancel, and H(q) of an empirical distribution has no number, so the total is known up to alpha H(q).
    """

    uses_metric = False
    minimum_name = "beta D(p_d, p)"

    def evaluate(self, problem: InnerProblem) -> Tensor:
        r"""Return :math:`D(p_d, p_\theta)`."""
        return problem.divergence.primal(problem.data, problem.model(problem.data.context), problem.p)


class Embedded(Primal):
    r"""q is the data, seen through a learned embedding: :math:`D(e_\phi\#p_d, e_\phi\#p_\theta)`.

    theta descends and phi ascends on it, so the ground cost is :math:`|e_\phi(x)-e_\phi(y)|` at its hardest: learned
    kernels (Li et al. 2017, MMD GAN) and learned transport costs (Genevay, Peyre, Cuturi 2018). Where D grows with the
    scale of its points the embedding must be Lipschitz or bounded, else phi has no maximum; a 1-Lipschitz embedding
    bounds the value by that of D in the space of the data.
    """

    embeds = True
    minimum_name = "beta D(e#p_d, e#p)"

    def evaluate(self, problem: InnerProblem) -> Tensor:
        r"""Return D of the embedded clouds."""
        if problem.v is None or problem.v_data is None or problem.p is None:
            raise IncompatibleError("this auxiliary needs an embedding f_phi: add metric=embedding")
        q, p = replace(problem.data, x=problem.v_data), replace(problem.p, x=problem.v)
        return problem.divergence.primal(q, None, p)


class Tilted(Auxiliary):
    r"""alpha > 0, a model with density, and :math:`D = \mathrm{CE} - c\,H` (cross-entropy c = 0, KL c = 1).

    .. math::
        q^* \propto \exp\frac{\beta\log p + f}{\tau}, \qquad
        \min_q = -\tau\log\int\exp\frac{\beta\log p + f}{\tau}
               = -\tau\log\mathbb E_p\exp\frac{(\beta-\tau)\log p + f}{\tau}, \qquad \tau = \alpha + c\beta .

    (Hu and Xing 2022, the teacher step.) f is the critic's output itself. On samples the logarithm of a mean makes the
    value biased by O(1/N).
    """

    uses = "entropy"
    needs_alpha = True
    needs_density = True
    minimum_reads_data = False
    minimum_name = "-tau log Z"

    def f(self, v: Tensor, divergence: Divergence, beta: float) -> Tensor:
        """Return v."""
        return v

    def minimum(self, problem: InnerProblem) -> Tensor:
        r"""Return :math:`-\tau\log\mathbb E_p\exp(((\beta-\tau)\log p + f)/\tau)`."""
        (v, p), (_, tau) = _scores(problem), self._temperature(problem)
        return -tau * p.log_mean_exp(((problem.beta - tau) * _log_density(problem) + v) / tau)

    def solve(self, problem: InnerProblem) -> Solution:
        """Return H, D and E_q f by self-normalised weights on p's particles."""
        minimum, (c, tau) = self.minimum(problem), self._temperature(problem)
        (v, p), log_p = _scores(problem), _log_density(problem)
        log_q = (problem.beta * log_p + v + minimum) / tau  # the minimum is -tau log Z
        weight = torch.exp(log_q - log_p)
        entropy, cross_entropy = -p.mean(weight * log_q), -p.mean(weight * log_p)
        return Solution(minimum, entropy, cross_entropy - c * entropy, p.mean(weight * v))

    def log_ratio(self, x: Tensor, v: Tensor, problem: InnerProblem) -> Tensor:
        """Return log q* - log p at x."""
        log_p, (_, tau) = problem.model().log_prob(x), self._temperature(problem)
        return (problem.beta * log_p + v + self.minimum(problem)) / tau - log_p

    def _temperature(self, problem: InnerProblem) -> tuple[float, float]:
        """Return c and tau."""
        c = problem.divergence.entropy_weight
        if c is None:
            raise IncompatibleError(f"{type(problem.divergence).__name__} is not of the form CE - c H: no closed q")
        return c, problem.alpha + c * problem.beta


def _scaled(weight: float, value: Tensor) -> Tensor:
    """Return the product; a weight of one, the usual one, costs no kernel and no node of the graph."""
    return value if type(weight) is float and weight == 1.0 else weight * value


def _scores(problem: InnerProblem) -> tuple[Tensor, Particles]:
    if problem.v is None or problem.p is None:
        raise IncompatibleError("this auxiliary needs a metric f_phi: add metric=mlp")
    return problem.v, problem.p


def _log_density(problem: InnerProblem) -> Tensor:
    if problem.p is None or problem.p.log_prob is None:
        raise IncompatibleError(f"{type(problem.model).__name__} has no density: add model=affine")
    return problem.p.log_prob
