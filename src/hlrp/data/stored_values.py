"""Numbers as a dataset stores them: in the type of their column, rounded where that type holds whole numbers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

_TRUE = 0.5
"""Smallest number that becomes true in a boolean column."""


def as_stored(values: Shaped[np.ndarray, "*f"], dtype: str) -> Shaped[np.ndarray, "*f"]:
    """Convert `values` to the type `dtype` of a column.

    For a type of whole numbers, values become the nearest one that `dtype` can represent; for booleans, true from 0.5
    on. numpy alone would cut off the decimals, and make every number but 0 true.

    Args:
        values: Numbers or booleans; finite where `dtype` is a type of whole numbers or booleans.
        dtype: Name of a numpy type.
    """
    target = np.dtype(dtype)
    if not np.issubdtype(values.dtype, np.floating) or np.issubdtype(target, np.floating):
        return values.astype(target)
    if target == np.bool_:
        return values >= _TRUE
    limits = np.iinfo(target)
    # The largest int64 is no float64: the float64 next to it lies beyond it.
    highest = float(limits.max)
    highest = highest if highest <= limits.max else float(np.nextafter(highest, 0))
    return np.clip(np.rint(values.astype(np.float64)), float(limits.min), highest).astype(target)
