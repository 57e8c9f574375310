r"""Laws of the dual: what its integrands say of each other, of the maximum over critics and of the minimum over q.

Tolerances stand for rounding only: 1e-9 of the terms that are formed, at :math:`|v|\le3`, where the
generic form loses 1e-13; differences are of fourth order with step 1e-4, whose error is below 1e-9 of the same terms.
"""

from __future__ import annotations

import math

from divergences.base import Divergence
from divergences.checks import inner, integrands, log_ratio
from divergences.checks.alphabet import is_additive
from divergences.checks.potential import best_potential_attains_the_value, sign_attains_the_value
from divergences.checks.running import Laws, named


def laws(divergence: Divergence) -> Laws:
    """Yield the laws that apply."""
    if not divergence.has_dual:
        return
    yield from named(divergence, *integrands.LAWS)
    if divergence.surrogate:
        return
    yield from named(divergence, inner.inner_record, inner.gradient_of_the_dual)
    if divergence.has_normalised_dual:
        yield from named(divergence, inner.probability_dual)
    if divergence.critic_reads == "log_ratio" and is_additive(divergence):
        yield from named(divergence, *log_ratio.LAWS)
        if divergence.has_normalised_dual and getattr(divergence, "supremum", math.inf) < math.inf:
            yield from named(divergence, inner.mass_off_the_model)
    elif divergence.critic_reads == "potential":
        yield from named(divergence, best_potential_attains_the_value)
    elif divergence.critic_reads == "sign":
        yield from named(divergence, sign_attains_the_value)
