"""Threads of the gamma search: compiled parts that release the GIL, side by side.

What a point gets does not hang on its neighbours (they set only the order of its search), so any number of threads
gives one result. NUMBA_NUM_THREADS bounds that number; fan-out over cases sets it to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import numpy as np

from doseledger.core.types import Floats, Integers

Part = TypeVar("Part")
Found = TypeVar("Found")

# Fewer points than this a thread are not worth starting one.
THREAD_POINTS = 5_000


def search_in_threads(search: Callable[..., None], points: Integers, best: Floats, *rest: Any) -> None:
    """Run a compiled search over parts of the points; `best` is lowered in place."""
    n_threads = _n_threads(len(points))
    # More parts than threads: hard points lie together, and one part may take far longer than another.
    n_parts = 8 * n_threads if n_threads > 1 else 1
    parts = list(zip(np.array_split(points, n_parts), np.array_split(best, n_parts), strict=True))
    call_on_parts(lambda part: search(*part, *rest), parts, n_points=len(points))


def call_on_parts(call: Callable[[Part], Found], parts: Sequence[Part], *, n_points: int) -> list[Found]:
    """What a call gives for each part, in order; `n_points`, those of all parts, tell whether threads are worth it."""
    n_threads = _n_threads(n_points)
    if n_threads < 2:
        return [call(part) for part in parts]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(call, parts))


def _n_threads(n_points: int) -> int:
    return min(numba.config.NUMBA_NUM_THREADS, n_points // THREAD_POINTS)
