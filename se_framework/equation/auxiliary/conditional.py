r"""The minimum over q with the margin of x that p has: a convex conjugate for every x, over the y of other examples."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor, nn

from divergences.base import Divergence
from models.laws import Particles
from se_framework.equation.auxiliary.base import Auxiliary, InnerProblem, Solution, scaled, target
from se_framework.equation.roles import Role
from se_framework.errors import ConfigError, IncompatibleError


class Conditional(Auxiliary):
    r"""alpha = 0, points that are pairs (x, y), p the product of the data's margins, and q(x, y) = p(x) q(y | x).

    .. math::
        \min_{q\,:\,q(x) = p(x)} \beta D(q, p) - \mathbb E_q f
        = -\beta\,\mathbb E_{p(x)} D^*_{p(y)}\big(f(x, \cdot)/\beta\big), \qquad f = \beta\,\ell(v),

    because :math:`D(q, p) = \mathbb E_{p(x)} D(q(\cdot|x), p(y))` where D is a mean under p of a function of dq/dp. For
    KL the conjugate is :math:`\log\mathbb E_{p(y)}e^v`, taken for every x (the anchor) by itself. p(x) and p(y) are the
    margins of the examples themselves, dealt into groups of K: in a group (x_i, y_i)

    .. math::
        \mathbb E_{p_d} f + \min_q = \frac1K\sum_i\Big[v(x_i, y_i) - \log\frac1K\sum_j e^{v(x_i, y_j)}\Big] \le \log K .

    The last is D between the group's own two laws, the joint and the product of its margins, under which every dual
    lies. Under KL the value's expectation is a lower bound of I(x; y) for any critic (van den Oord, Li, Vinyals 2018,
    InfoNCE; Poole et al. 2019, section 2.3), for the pair itself is among the K. A function of x alone is free in f.

    The critic is evaluated at all pairs of a group: of M examples at M K points, with the memory of so many where
    slopes are taken; without slopes of K^2 at a time. A network that is a product of one of x and one of y
    (``metric=separable``) is evaluated at M points of each, and has M K numbers as its scores.

    Args:
        candidates: K, the y among which q(y | x) chooses. M examples make M // K groups that differ by one at most, or
            one group where they are fewer, or where they have weights.

    Raises:
        ConfigError: K is less than two.
    """

    works_through = "has_dual"
    needs_mass_one = True
    needs_alpha = False
    keeps_margin = True
    moves_points = True
    minimum_name = "-beta E_p(x) D*_p(y)(f/beta)"

    def __init__(self, candidates: int = 64) -> None:
        super().__init__()
        if candidates < 2:
            raise ConfigError(
                f"auxiliary.candidates={candidates}: q(y | x) chooses among them, so give at least 2, such as 64"
            )
        self.candidates = candidates

    def extra_repr(self) -> str:
        """Show K."""
        return f"{self.candidates} candidates"

    def f(self, v: Tensor, divergence: Divergence, beta: float) -> Tensor:
        r"""Return :math:`\beta\,\ell(v)`."""
        return scaled(beta, divergence.link(v))

    def minimum(self, problem: InnerProblem, role: Role | None = None) -> Tensor:
        r"""Return :math:`-\beta\,\mathbb E_{p(x)} D^*_{p(y)}(\ell(v))`."""
        return -scaled(problem.beta, self._means(problem)[0])

    def solve(self, problem: InnerProblem) -> Solution:
        """Return D(q*, p) and E_q* f; the density of q is not known, nor its entropy."""
        conjugate, divergence, link_q = self._means(problem)
        return Solution(-problem.beta * conjugate, None, divergence, problem.beta * link_q)

    def log_ratio(self, x: Tensor, v: Tensor, problem: InnerProblem) -> Tensor:
        r"""Return log q*(y | x) / p(y) at pairs, shape (B,), with the first K examples' y for p(y)."""
        data, divergence = problem.data, problem.divergence
        among = data if data.log_weights is not None else data.rows(slice(self.candidates))
        multipliers = [
            self._each(self._scores(part, among.x, problem), among, divergence)[3] for part in x.split(self.candidates)
        ]
        found = divergence.inverse_link(divergence.link(v.double()) - torch.cat(multipliers))
        return found.to(v.dtype)

    def meaning(self, divergence: Divergence, metric: nn.Module | None, alpha: float) -> str:
        """Return of what the value is a lower bound, and what it cannot exceed."""
        k = self.candidates
        letters = torch.zeros(k, dtype=torch.float64).log().index_fill(0, torch.tensor(0), 0.0)
        most = float(divergence.integrand(letters, torch.full((k,), 1 / k, dtype=torch.float64).log()).sum())
        # Of KL a group's own q* has mass one, whether the group is of the joint law or of the product: no bias is left.
        bias = "" if divergence.entropy_weight == 1 else ", biased by sampling"
        least_of = f"lower bound of {target(divergence, alpha)}{bias}"
        return least_of + (f"; at most beta {most:.4g}, with {k} candidates" if isfinite(most) else "")

    # -- one x after another -------------------------------------------------------------------------------------------

    def _means(self, problem: InnerProblem) -> list[Tensor]:
        """Return the means over all x of the conjugate, of D and of E_q f/beta."""
        data, n = problem.data, len(problem.data.x)
        if data.log_weights is not None:
            every = self._each(self._scores(data.x, data.x, problem), data, problem.divergence)
            return [data.mean(values) for values in every[:3]]
        scores = [self._scores(x, x, problem) for x in data.x.tensor_split(max(1, n // self.candidates))]
        found = []
        for size in sorted({len(v) for v in scores}):  # two at most; what equal weights depend on is their number
            v, among = torch.cat([v for v in scores if len(v) == size]), data.rows(slice(size))
            found.append(self._each(v, among, problem.divergence)[:3])
        return [torch.cat(values).mean() for values in zip(*found, strict=True)]

    def _scores(self, x: Tensor, y: Tensor, problem: InnerProblem) -> Tensor:
        """Return the critic's outputs at x of these points beside y of those, shape (A, K)."""
        first, kind = problem.model.pairs, problem.v_data
        if problem.metric is None or first is None or kind is None:
            raise IncompatibleError("this auxiliary needs a metric f_phi, and pairs (x, y) of data: data=paired")
        apart = getattr(problem.metric, "on_pairs", None)
        found = None if apart is None else apart(x, y)
        if found is None:
            left = x[:, None, :first].expand(-1, len(y), -1)
            right = y[None, :, first:].expand(len(x), -1, -1)
            found = problem.metric(torch.cat([left, right], 2).flatten(0, 1)).view(len(x), len(y))
        return found.to(kind.dtype)

    @staticmethod
    def _each(v: Tensor, among: Particles, divergence: Divergence) -> tuple[Tensor, ...]:
        """Return conjugate, D, E_q f/beta and multiplier for every row of v, (A, K), each of shape (A,)."""

        def of(row: Tensor) -> tuple[Tensor, ...]:
            found = divergence.inner_normalised(row, among)
            multiplier = torch.as_tensor(found.multiplier, dtype=torch.float64, device=row.device)
            return found.conjugate, found.divergence, found.link_q, multiplier

        return torch.func.vmap(of)(v)
