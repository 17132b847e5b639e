"""Aliases of arrays, boxes and callbacks: one alias, one meaning.

Shapes and units stand in the docstring of whoever takes an array; volumes are (z, y, x). Triples follow the array's
order (z, y, x); only names that end in `_xyz` are (x, y, z).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Numbers of any type, in double and in single precision, and integers.
Array = NDArray[Any]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]
# What picks elements: positions along an axis, and a mask that is True inside.
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
# Total plan dose in Gy; CT numbers in HU; signed distance in mm, negative inside, as a case keeps it.
GyArray = NDArray[np.float32]
HuArray = NDArray[np.int16]
Sdf = NDArray[np.float16]

Triple = tuple[float, float, float]
IntTriple = tuple[int, int, int]
# A box of voxels, (z, y, x), that cuts an array.
Box = tuple[slice, slice, slice]

# Called with one line a step.
Tell = Callable[[str], None]
