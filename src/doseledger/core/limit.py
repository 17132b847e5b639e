"""A number against its limits: finite first, so that NaN and infinity keep none."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


def keeps(value: float, *, least: float = -math.inf, most: float = math.inf) -> bool:
    """Return whether a number is finite and lies between two limits, both included.

    Examples
    --------
    >>> keeps(5.0, most=5.0), keeps(5.1, most=5.0), keeps(math.nan, most=5.0), keeps(-math.inf, most=5.0)
    (True, False, False, False)
    """
    return math.isfinite(value) and least <= value <= most


def meets(value: float, operator: Literal["<=", ">="], limit: float) -> bool:
    """Return whether a finite number is at most, or at least, a limit.

    Examples
    --------
    >>> meets(2.9, "<=", 3.0), meets(2.9, ">=", 3.0), meets(-math.inf, "<=", 3.0)
    (True, False, False)
    """
    return keeps(value, most=limit) if operator == "<=" else keeps(value, least=limit)


def breaks(values: ArrayLike, *, least: Any = -math.inf, most: Any = math.inf) -> NDArray[np.bool_]:
    """Return where numbers are not finite or do not lie between two limits, both included.

    Parameters
    ----------
    values
        Numbers of any shape.
    least, most
        Limits, each a number or an array that broadcasts against the values.

    Examples
    --------
    >>> breaks([1.0, 2.0, math.nan, math.inf], most=1.5).tolist()
    [False, True, True, True]
    """
    found = np.asarray(values, dtype=np.float64)
    return np.asarray(~(np.isfinite(found) & (found >= least) & (found <= most)), dtype=np.bool_)
