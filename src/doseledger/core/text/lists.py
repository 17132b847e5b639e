"""Lists in a sentence, cut to their first names."""

from __future__ import annotations

from collections.abc import Sequence


def first_of(names: Sequence[object], most: int, joint: str = ", ") -> str:
    """Return the first names of a list, and how many more there are.

    Examples
    --------
    >>> first_of(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    shown = joint.join(map(str, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
