"""A verifier of the theory: claims, each with one side computed by the objects that train (``se-verify``)."""

from se_framework.verify.claims import (
    Claim,
    Comparison,
    Verdict,
    at_most,
    check,
    chosen,
    claim,
    collect,
    equal,
    rate,
    sampled,
)

__all__ = [
    "Claim",
    "Comparison",
    "Verdict",
    "at_most",
    "check",
    "chosen",
    "claim",
    "collect",
    "equal",
    "rate",
    "sampled",
]
