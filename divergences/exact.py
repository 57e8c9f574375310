r"""D(q, p) of two laws, exactly: closed forms for pairs of normal laws, sums on finite alphabets, quadrature on a line.

Which of the three applies is decided by the laws alone; a divergence takes part by three optional methods,
``between_gaussians``, ``between_letters`` and ``on_a_line``, whose defaults follow from its ``integrand`` (or, for
divergences between particles, from its ``primal``). Where none applies the refusal names what is missing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Categorical, OneHotCategorical

from divergences.gaussians import as_gaussian
from divergences.lines import is_line, line, shown

if TYPE_CHECKING:
    from divergences.base import Divergence


class Points(NamedTuple):
    r"""A finite law: points, shape (N, \*E), and normalised log-weights, shape (N,); None for equal weights."""

    x: Tensor
    log_weights: Tensor | None = None

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted mean of values, shape (N,)."""
        if self.log_weights is None:
            return values.mean()
        weights = self.log_weights.exp()
        return (weights * torch.where(weights == 0, 0.0, values)).sum()

    def log_mean_exp(self, values: Tensor) -> Tensor:
        """Return the logarithm of the weighted mean of e^values."""
        if self.log_weights is None:
            return torch.logsumexp(values, 0) - math.log(len(values))
        return torch.logsumexp(torch.where(self.log_weights == -torch.inf, 0.0, values) + self.log_weights, 0)


def exact(divergence: Divergence, q: Any, p: Any) -> Tensor:
    """Return D(q, p), shape (), float64; see :meth:`divergences.Divergence.exact`."""
    name = type(divergence).__name__
    if divergence.surrogate:
        raise NotImplementedError(f"{name} is a surrogate, a pair of losses: there is no D; take the D it stands for")
    normal_q, normal_p = as_gaussian(q), as_gaussian(p)
    if normal_q is not None and normal_p is not None:
        if len(normal_q.mean) != len(normal_p.mean):
            raise ValueError(f"{name}: q has {len(normal_q.mean)} coordinates, p has {len(normal_p.mean)}")
        value = divergence.between_gaussians(normal_q, normal_p)
        if value is not None:
            return value
    finite_q, finite_p = alphabet(q), alphabet(p)
    if finite_q is not None and finite_p is not None:
        return divergence.between_letters(*merged(name, finite_q, finite_p))
    if finite_q is None and finite_p is None and is_line(q) and is_line(p):
        try:
            return divergence.on_a_line(line(q, p, name))
        except NotImplementedError as error:
            if name in str(error):
                raise
            raise NotImplementedError(f"{name}: {error}") from error
        except (RuntimeError, ValueError) as error:  # of torch.distributions, from a density or distribution function
            raise NotImplementedError(
                f"{name}: {shown(q)} or {shown(p)} cannot be evaluated where the quadrature asks "
                f"({str(error).splitlines()[0][:100]}); discretise both laws to points with log-weights"
            ) from error
    raise NotImplementedError(
        f"{name} has no exact value for {shown(q)} and {shown(p)}: it takes two laws on finite alphabets, two "
        "continuous laws of one real number, or a pair of normal laws with a closed form; discretise the laws to "
        "points with log-weights, or estimate from samples"
    )


# -- finite alphabets -------------------------------------------------------------------------------------------------


def alphabet(law: Any) -> Points | None:
    """Return a finite law as points, float64; None for another law. Anything with points and log_weights is one."""
    if isinstance(law, (Categorical, OneHotCategorical, Bernoulli, Binomial)) and not law.batch_shape:
        share = law.probs.double()  # not the logits, which hold no zero
        if isinstance(law, (Bernoulli, Binomial)):
            n = int(law.total_count) if isinstance(law, Binomial) else 1
            k = torch.arange(n + 1, dtype=torch.float64, device=share.device)
            chances = torch.lgamma(torch.tensor(n + 1.0, dtype=torch.float64)) - torch.lgamma(k + 1)
            chances = chances - torch.lgamma(n - k + 1) + torch.xlogy(k, share) + torch.special.xlog1py(n - k, -share)
            return Points(k[:, None], chances)
        letters = torch.arange(len(share), dtype=torch.float64, device=share.device)[:, None]
        if isinstance(law, OneHotCategorical):
            letters = torch.eye(len(share), dtype=torch.float64, device=share.device)
        return Points(letters, (share / share.sum()).log())
    points, log_weights = getattr(law, "points", getattr(law, "x", None)), getattr(law, "log_weights", None)
    if isinstance(points, Tensor) and isinstance(log_weights, Tensor):
        return Points(points.double().flatten(1), log_weights.double())
    return None


def merged(name: str, q: Points, p: Points) -> tuple[Tensor, Tensor, Tensor]:
    """Return the union of both alphabets, shape (K, d), and the log-masses of q and p on it, shape (K,)."""
    if q.x.shape[1] != p.x.shape[1]:
        raise ValueError(f"{name}: letters of q have {q.x.shape[1]} coordinates, letters of p have {p.x.shape[1]}")
    points, where = torch.unique(torch.cat([q.x, p.x]), dim=0, return_inverse=True)
    logs = []
    for law, index in ((q, where[: len(q.x)]), (p, where[len(q.x) :])):
        assert law.log_weights is not None
        nothing = torch.full((len(points),), -torch.inf, dtype=torch.float64)
        top = nothing.scatter_reduce(0, index, law.log_weights.detach(), "amax").clamp(min=-1e300)
        # In logarithms throughout: a mass below 1e-308 is one, with a ratio.
        sums = torch.zeros_like(top).index_add(0, index, (law.log_weights - top[index]).exp())
        logs.append(top + sums.log())
    return points, logs[0], logs[1]
