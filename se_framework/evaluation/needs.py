"""What a score needs of data and model: each function returns why it is not met, in words, and nothing where it is."""

from __future__ import annotations

import torch

from se_framework.data.base import Data

TOO_WIDE = 2**16
"""Numbers of a point beyond which distances between raw points say little and cost much."""
SEPARATE = 6.0
"""Standard deviations between centres from which on the nearest centre of a point is that of its component: it is
another for one in 400."""


def nothing(data: Data, density: bool) -> str:
    """Every data has it."""
    return ""


def width(data: Data, density: bool) -> str:
    """A line has one direction."""
    return "" if size(data) > 1 else "points on a line have one direction, and w2 is its score"


def comparable(data: Data, density: bool) -> str:
    """Distances between points, or their features, must say something."""
    if not data.dtype.is_floating_point:
        return f"{data.name} holds whole numbers, between which a distance may mean nothing"
    if size(data) > TOO_WIDE and data.features is None:  # features may have to be learnt first
        return f"points of {size(data)} numbers are compared in features alone: declare Data.features"
    return ""


def known_modes(data: Data, density: bool) -> str:
    """Modes of one width must be known."""
    return "" if data.modes is not None and data.mode_sigma is not None else f"{data.name} knows no modes of one width"


def counted_modes(data: Data, density: bool) -> str:
    """Modes must have centres and one width, or be told by the data."""
    return "" if data.mode_of is not None else known_modes(data, density)


def separate_modes(data: Data, density: bool) -> str:
    """Modes must have shares, and be told by the data or by their nearest centre."""
    if data.mode_of is not None and data.mode_weights is not None:
        return ""
    if data.modes is None or data.mode_sigma is None or data.mode_weights is None:
        return f"{data.name} knows no modes of one width with their shares"
    flat = data.modes.double().flatten(1)
    if len(flat) < 2 or float(torch.pdist(flat).min()) < SEPARATE * data.mode_sigma:
        return f"modes of {data.name} overlap, or are one: the nearest centre does not tell them apart"
    return ""


def finite_rows(data: Data, density: bool) -> str:
    """Training rows must end, or there is nothing to learn by heart."""
    if data.train_size is None:
        return f"{data.name} never gives a row twice: there is nothing to learn by heart"
    if not data.dtype.is_floating_point or size(data) > TOO_WIDE:
        return f"rows of {data.name} are whole numbers, or wider than {TOO_WIDE} numbers"
    return ""


def features(data: Data, density: bool) -> str:
    """Features must be declared."""
    return "" if data.features is not None else f"{data.name} declares no features"


def model_density(data: Data, density: bool) -> str:
    """The model must have a density."""
    return "" if density else "the model has no density"


def levels(data: Data, density: bool) -> str:
    """The model must have a density, which bounds the probability of values that were dequantised."""
    return model_density(data, density) or (
        "" if data.level_width is not None else f"{data.name} does not carry noise in the place of steps"
    )


def known_density(data: Data, density: bool) -> str:
    """The model must have a density, and the law one or an entropy (given its labels where models read some)."""
    known = data.conditional_entropy is not None if data.classes else data.has_log_prob or data.entropy is not None
    return model_density(data, density) or ("" if known else f"the density of {data.name} is not known")


def both_densities(data: Data, density: bool) -> str:
    """Model and law must have a density, without labels."""
    known = data.has_log_prob and not data.classes
    return model_density(data, density) or ("" if known else f"the density of {data.name} without labels is not known")


def size(data: Data) -> int:
    """Return how many numbers a point has."""
    return torch.Size(data.event_shape).numel()
