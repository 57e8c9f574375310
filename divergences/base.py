r"""The contract of a divergence :math:`D(q, p)`: the auxiliary distribution q first, the model p second.

A divergence serves the Standard Equation in one of two ways, and declares which.

*Through its dual.* With :math:`\alpha = 0` the inner minimum is the convex conjugate,
:math:`\min_q \beta D(q,p) - \mathbb E_q f = -\beta D^*_p(f/\beta)`. The critic's output v enters by the *canonical
link* :math:`f = \beta\,\ell(v)`, chosen so that the optimal v means the same for every divergence of a family
(:math:`v = \log(p_d/p_\theta)` for every smooth f-divergence). The author of a divergence writes four integrands under
p: the link, the conjugate at the link, and, for the record of terms, D itself and the log-density dq*/dp of the
solution.

*Through its primal*: a number computed from the data's particles and the model's law, e.g. cross-entropy or Sinkhorn.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from divergences import estimates
from divergences import exact as laws
from divergences.estimates import Estimate
from divergences.exact import Points
from divergences.gaussians import Gaussian
from divergences.lines import Line


class WeightedPoints(Protocol):
    """What a divergence needs of a law: points, weights, and expectations (``models.Particles`` is one)."""

    @property
    def x(self) -> Tensor:
        r"""Points, shape (N, \*E)."""

    @property
    def log_weights(self) -> Tensor | None:
        """Normalised log-weights, shape (N,); None for equal weights."""

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted mean of values of shape (N,)."""

    def log_mean_exp(self, values: Tensor) -> Tensor:
        """Return the logarithm of the weighted mean of e^values, without overflow."""


class InnerSolution(NamedTuple):
    r"""The inner minimum over q at f/beta = link(v).

    Attributes:
        conjugate: :math:`D^*_p(\ell(v))`, the stable scalar that players differentiate.
        divergence: :math:`D(q^*, p)` in float64.
        link_q: :math:`\mathbb E_{q^*}\ell(v)` in float64; conjugate = link_q - divergence.
        log_tilt: :math:`\log dq^*/dp` at the particles, shape (N,), float64.
        multiplier: :math:`\lambda` with :math:`dq^*/dp = e^s/Z`, :math:`\ell(s) = \ell(v) - \lambda`, and its gradient;
            0 over unnormalised q.
        log_partition: log Z, 0 for f-divergences.
    """

    conjugate: Tensor
    divergence: Tensor
    link_q: Tensor
    log_tilt: Tensor
    multiplier: Tensor | float = 0.0
    log_partition: Tensor | float = 0.0


class Mover(Protocol):
    """What a divergence asks of a player before it chooses the player's view."""

    @property
    def sign(self) -> int:
        """+1 where the player ascends on the scalar, -1 where it descends."""

    @property
    def moves_samples(self) -> bool:
        """Whether the model's particles move with it."""


class Divergence(nn.Module):
    r"""Base of every D. Class attributes declare what it can do; legality is computed from them.

    Attributes:
        has_dual: the dual methods are there, so ``auxiliary=dual`` can serve it.
        primal_needs: what :meth:`primal` asks of the model: ``"log_prob"``, ``"samples"``, or None (no primal).
        critic_reads: what the optimal critic output means: the log-ratio log(p_d/p), a transport potential, or the
            sign of p_d - p alone.
        needs_lipschitz: the dual is the divergence only for 1-Lipschitz metrics.
        entropy_weight: c if :math:`D(q,p) = -\mathbb E_q\log p - c\,H(q)`, so that the q-step with alpha > 0 has a
            closed form; None otherwise.
        value_at_identity: D(p, p), zero unless declared.
        symmetric: D(q, p) = D(p, q).
        cost_degree: D of data multiplied by s is s**cost_degree times D (0 for f-divergences, in nats).
        surrogate: not a divergence but a pair of losses, one for each player; it has no D and no q.
        has_normalised_dual: the dual over probability q is there as well.
        has_paired_dual: D is the maximum over v of a mean over pairs of :meth:`paired` (``auxiliary=paired``).
        additive_dual: :math:`D^*_p` over unnormalised q is a mean under p, that of :meth:`conjugate`; else only
            :meth:`mean_conjugate` and :meth:`inner` are there, and a sample's value is biased.
        link_slope: L where :math:`|\ell(v)-\ell(w)|\le L|v-w|` for all v, w, so that f/beta is L-Lipschitz where v is
            1-Lipschitz; None where no L is known, or there is none.
        convex_in_q: D(., p) is convex, without which there is no dual that is the conjugate of D.
        unit: what a value of cost_degree 0 is counted in.
        up_to_constant: the value is meaningful only up to a constant that does not depend on the model.
        has_ground_cost: D is transport at a cost of the distance, :meth:`ground_cost`: its dual is known through the
            c-transform (``auxiliary=transported``).
        largest_dimension: coordinates of the points on which the primal is defined, None for any number.
        primal_extra: what the primal needs besides the dependencies: the module and the extra that installs it.
        bounded_in_scale: the primal stays bounded when the points are scaled up (bounded kernels): a learned embedding
            inside it needs no bound.
        sample_bias: bias of a primal from samples: ``"0"``, or ``"+O(1/n)"``, upward and falling as 1/n; None where
            unknown.
        accuracy: relative error of the primal's slopes beyond rounding (iterative solvers).
        stackable: the primal runs under ``torch.func.vmap``, so members of an ensemble can be evaluated at once.
        absent: there is no D: the null object of an equation whose auxiliary needs none.
        parameters_ascend: trainable parameters of D are a player of their own; they ascend on the scalar (D is a
            supremum over them) or, if False, descend.
    """

    has_dual: bool = False
    primal_needs: ClassVar[Literal["log_prob", "samples"] | None] = None
    critic_reads: ClassVar[Literal["log_ratio", "potential", "sign"] | None] = None
    needs_lipschitz: ClassVar[bool] = False
    entropy_weight: ClassVar[float | None] = None
    value_at_identity: float = 0.0
    symmetric: bool = False
    link_slope: float | None = None
    convex_in_q: bool = True
    cost_degree: float = 0.0
    unit: ClassVar[str] = "nats"
    up_to_constant: ClassVar[bool] = False
    surrogate: ClassVar[bool] = False
    has_normalised_dual: bool = True
    has_paired_dual: ClassVar[bool] = False
    additive_dual: ClassVar[bool] = True
    has_ground_cost: bool = False
    largest_dimension: ClassVar[int | None] = None
    primal_extra: tuple[str, str] | None = None
    bounded_in_scale: bool = False
    sample_bias: str | None = None
    accuracy: float = 0.0
    stackable: ClassVar[bool] = True
    parameters_ascend: ClassVar[bool] = True
    absent: ClassVar[bool] = False

    def link(self, v: Tensor) -> Tensor:
        r"""Return :math:`f/\beta = \ell(v)`, elementwise."""
        raise NotImplementedError(f"{type(self).__name__} has no dual: use its primal")

    def conjugate(self, v: Tensor) -> Tensor:
        r"""Return the integrand whose mean under p is :math:`D^*_p(\ell(v))` over unnormalised q, elementwise."""
        raise NotImplementedError(f"{type(self).__name__} has no dual: use its primal")

    def value(self, v: Tensor) -> Tensor:
        """Return the integrand whose mean under p is D(q*, p), elementwise."""
        raise NotImplementedError(f"{type(self).__name__} has no dual: use its primal")

    def inverse_link(self, t: Tensor) -> Tensor:
        r"""Return v with :math:`\ell(v) = t`, elementwise."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse link")

    def log_tilt(self, v: Tensor) -> Tensor:
        r"""Return :math:`\log dq^*/dp` at critic output v, elementwise (for the canonical critic: v itself)."""
        return v

    def inner(self, v: Tensor, p: WeightedPoints) -> InnerSolution:
        r"""Solve the inner minimum over unnormalised :math:`q \ge 0` (Nguyen, Wainwright, Jordan 2010; f-GAN eq. 4).

        Args:
            v: critic outputs at p's particles, shape (N,).
            p: the particles.
        """
        w = v.detach().double()
        log_tilt = self.log_tilt(w)
        return InnerSolution(
            conjugate=self.mean_conjugate(v, p),
            divergence=p.mean(self.value(w)),
            link_q=p.mean(log_tilt.exp() * self.link(w)),
            log_tilt=log_tilt,
        )

    def mean_conjugate(self, v: Tensor, p: WeightedPoints) -> Tensor:
        r"""Return :math:`D^*_p(\ell(v)) = \mathbb E_p[h^*(\ell(v))]` over unnormalised q, shape ()."""
        return p.mean(self.conjugate(v))

    def inner_normalised(self, v: Tensor, p: WeightedPoints, v_data: Tensor | None = None) -> InnerSolution:
        r"""Solve the inner minimum over *probability* q; see the families for the formula.

        Args:
            v: critic outputs at p's particles, shape (N,).
            p: the particles.
            v_data: critic outputs on data, shape (M,): q may also live there.
        """
        raise NotImplementedError(f"{type(self).__name__} has no dual over probability measures")

    def ground_cost(self, squared: Tensor) -> Tensor:
        r"""Return the cost c(x, y) of moving a unit of mass, elementwise, from :math:`|x-y|^2`; zero at zero."""
        raise NotImplementedError(f"{type(self).__name__} is no transport at a cost: use its dual or its primal")

    def paired(self, gap: Tensor, role: Mover | None = None) -> Tensor:
        """Return a player's integrand of a pair from gap = v(x) - v(y), x of the data, y of the model, elementwise."""
        raise NotImplementedError(f"{type(self).__name__} is no mean over pairs: use its dual or its primal")

    def view(self, role: Mover) -> Divergence | None:
        r"""Return the divergence through which a player sees the critic's output, None for this one.

        Surrogates give each player its own loss. And every smooth f-divergence's dual has the same optimal v: where
        this one's has gradients of infinite variance on well separated laws, who ascends learns v through a dual that
        has not, and who descends goes down on D at that v.

        Args:
            role: what the player moves, and in which direction.
        """
        return None

    def primal(self, q: WeightedPoints, law: Any, p: WeightedPoints | None) -> Tensor:
        """Return D(q, p), shape (), from q's particles and the model's law (``log_prob``) or particles p."""
        raise NotImplementedError(f"{type(self).__name__} has no primal: use its dual")

    def tail(self, v_data: Tensor, v_model: Tensor) -> tuple[float, bool]:
        """Return the effective sample size of the dual's integrands, and whether a standard error holds."""
        return estimates.tail(self, v_data, v_model)

    # Values, estimates, bounds: derived from what is declared above, or refused by name. No divergence must write any.

    def exact(self, q: Any, p: Any) -> Tensor:
        r"""Return D(q, p) of two laws, shape (), float64, by the first of these that applies.

        1. Two normal laws (``Normal``, ``MultivariateNormal``, ``Independent``) whose pair has a closed form.
        2. Two finite alphabets (``Categorical``, ``Bernoulli``, ``Binomial``, ``OneHotCategorical``, or anything with
           ``points``, shape (N, \*E), and ``log_weights``): a sum; mass that one lacks costs h(0) or h'(inf).
        3. Two continuous laws of one real number (``torch.distributions``, mixtures included): adaptive quadrature.

        1 and 2 are differentiable in the laws' parameters, 3 is not.

        Args:
            q: the law of the data.
            p: the law of the model.

        Raises:
            NotImplementedError: none applies, or the quadrature does not settle; the message says what would work.
            ValueError: the laws have different numbers of coordinates.
        """
        return laws.exact(self, q, p)

    def estimate(
        self, x: Tensor, y: Tensor, weights_x: Tensor | None = None, weights_y: Tensor | None = None
    ) -> Estimate:
        r"""Estimate D(q, p) from independent samples, by the primal, with the standard error of the statistic.

        Args:
            x: samples of q, shape (N, \*E).
            y: samples of p, shape (M, \*E).
            weights_x: weights of x that do not depend on it, shape (N,); normalised here.
            weights_y: weights of y.

        Raises:
            NotImplementedError: D is not a functional of samples; the message says what would work.
            ValueError: shapes disagree.
        """
        return estimates.from_samples(self, x, y, weights_x, weights_y)

    def bound(self, v_data: Tensor, v_model: Tensor, normalised: bool = False) -> Estimate:
        r"""Estimate the dual's lower bound :math:`\mathbb E_q\ell(v)-D^*_p(\ell(v))\le D(q,p)` from critic outputs.

        Args:
            v_data: critic outputs on samples of q, shape (N,), which the critic was not trained on.
            v_model: critic outputs on samples of p, shape (M,), likewise.
            normalised: the dual over probability q, tighter, biased upward by O(1/M).

        Raises:
            NotImplementedError: D has no (such) dual.
            ValueError: outputs that are not of shape (N,), (M,), or are empty.
        """
        return estimates.from_critic(self, v_data, v_model, normalised)

    def rescaled(self, scale: float) -> Divergence | None:
        """Return D with lengths among its arguments multiplied by scale, as data in other units are; None: unknown."""
        return None if self.bounded_in_scale else self

    def integrand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        r"""Return the integrand of D at log-densities (or log-masses) of q and p, elementwise; each may be -inf."""
        raise NotImplementedError(
            f"{type(self).__name__} is not written as an integral over densities: give it an `integrand`, "
            "or estimate it from samples"
        )

    def between_gaussians(self, q: Gaussian, p: Gaussian) -> Tensor | None:
        """Return D of two normal laws in closed form, shape (), or None where there is none."""
        return None

    def between_letters(self, points: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
        """Return D of two laws on K letters at points (K, d) from their log-masses, shape (K,)."""
        if self.primal_needs == "samples":
            return self.primal(Points(points, log_q), None, Points(points, log_p))
        return self.integrand(log_q, log_p).sum()

    def on_a_line(self, line: Line) -> Tensor:
        """Return D of two laws with densities on the line, by the rule that the line carries."""
        return line.integral(lambda x: self.integrand(line.log_q(x), line.log_p(x)), type(self).__name__)
