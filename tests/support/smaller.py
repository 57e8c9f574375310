"""Experiments with images of 28 x 28 pixels on those of 8 x 8: the tests of every experiment take a tenth of the time.

``make soak`` plays them as they are shipped.
"""

from __future__ import annotations

ON_DIGITS = ("biggan", "dcgan", "progressive", "r3gan", "sagan", "sngan")


def smaller(experiment: str, soak: bool = False) -> list[str]:
    """Return what is added to ``experiment=NAME``; nothing in ``make soak`` and where the data are small already."""
    if soak:
        return []
    if experiment == "glow":
        return ["data=digits_dequantized", "data.transform=gaussianise"]
    return ["data=digits"] if experiment in ON_DIGITS else []
