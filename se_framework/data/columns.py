"""Columns with few values: a density is unbounded there, and a likelihood says nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from se_framework.data.base import Data
from se_framework.data.rows import RowData
from se_framework.errors import DataError

FEW, REPEATS = 20, 10
"""Different values of a column, and rows for each of them: a column with fewer values, more often seen, is discrete."""
ROWS = 10_000
"""Rows that are looked at."""


def few_valued(data: Data) -> dict[int, int]:
    """Return the columns that take few values, and how many; none where data is no table of floats in memory."""
    if not isinstance(data, RowData) or not data.resident or data.kind == "image" or not data.dtype.is_floating_point:
        return {}
    rows = data.batch(0, min(ROWS, data.train_size), 0).x.flatten(1)
    counts = {k: len(torch.unique(column)) for k, column in enumerate(rows.T)}
    return {k: count for k, count in counts.items() if count <= FEW and len(rows) >= REPEATS * count}


def steps(rows: Tensor) -> Tensor:
    r"""Return the least step between the values of every column that takes few, 0 for the others, shape (\*E).

    Args:
        rows: shape (N, \*E).

    Raises:
        DataError: there is no such column.
    """
    columns = [torch.unique(column) for column in rows.flatten(1).T]  # of all rows: a rare value may be a nearer one
    discrete = [1 < len(values) <= FEW and len(rows) >= REPEATS * len(values) for values in columns]
    if not any(discrete):
        raise DataError(
            f"data.dequantise=true, and no column takes few values (2 to {FEW}, each {REPEATS} times in the mean): "
            "leave it out"
        )
    found = [float(v.diff().min()) if few else 0.0 for v, few in zip(columns, discrete, strict=True)]
    return torch.tensor(found, dtype=torch.float64).view(rows.shape[1:])


def told(data: Data) -> str | None:
    """Return a warning of such columns, None where there are none."""
    found = few_valued(data)
    if not found:
        return None
    named = ", ".join(f"{k + 1} ({count} value{'s' * (count > 1)})" for k, count in list(found.items())[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return (
        f"column {named}{more} of {data.name}: few different values, so a density is unbounded there and a likelihood "
        "says little: leave such columns out, or set data.dequantise=true (uniform noise as wide as the step between "
        "the values)"
    )
