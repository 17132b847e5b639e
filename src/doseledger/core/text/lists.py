"""Lists in a sentence, cut to their first names."""

from __future__ import annotations

from collections.abc import Sequence


def first_of(names: Sequence[object], most: int, joint: str = ", ") -> str:
    """Return the first names of a list, and how many more there are.

    Examples
    --------
    >>> first_of(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    >>> first_of(["a: no, or not yet", "b: no", "c: no"], 2, "; ")
    'a: no, or not yet; b: no; and 1 more'
    """
    shown = joint.join(map(str, names[:most]))
    stop = ";" if joint.startswith(";") else ""
    return f"{shown}{stop} and {len(names) - most} more" if len(names) > most else shown


def bulleted(lines: Sequence[object], most: int) -> str:
    r"""Return the first lines of a list one below the other, and how many more there are.

    Examples
    --------
    >>> bulleted(["a", "b", "c"], 2)
    '\n  - a\n  - b\n  - and 1 more'
    """
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "".join(f"\n  - {line}" for line in [*lines[:most], *more])
