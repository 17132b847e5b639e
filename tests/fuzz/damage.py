"""Seeded damage of bytes, text, trees and tables: the same generator state gives the same damage."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
from collections.abc import Callable
from typing import Any

# Values that no field expects, of any type that JSON and YAML have.
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, -(2**63), 10**400, 1e308, 5e-324, float("nan"), float("inf"), "", " ", "x",
    "nan", "1e5", "é", "\ud83d", "../../etc/passwd", "x" * 5000, "\x00", "\u202e", "0" * 5000, [], {}, [[]], {"": None},
    ["a", 1], "-1", "[", "(a+)+$", "{{7*7}}", "<b>",
]  # fmt: skip
# Fragments that parsers of text give a meaning to.
TOKENS = (
    b"\x00 \xff \xfe\xff \xef\xbb\xbf \r \t , ; \" ' : - # & * ! % @ ` { } [ ] < > | \\ ~ null .nan -.inf 1e999 0x1f "
    b"&a *a <<: !!python/object/apply:os.system !!binary !!set ? --- ... NaN Infinity 1_000 12:30:45 2024-02-30 "
    b"99999999999999999999 \xe2\x80\xa8 \xc3\x28 ${x} $(x)"
).split(b" ")
DEPTHS = (30, 300, 900, 1000, 20_000)


def damage_bytes(rng: random.Random, content: bytes, head: int = 0) -> bytes:
    """Cut, insert, delete, repeat, swap or flip bytes; of `head` bytes at the beginning more often than of the rest."""
    data = bytearray(content)

    def at() -> int:
        return rng.randrange(max(1, min(head, len(data)) if head and rng.random() < 0.7 else len(data)))

    kind, here = rng.randrange(8), at()
    if kind == 0:
        del data[here:]
    elif kind == 1:
        data[here:here] = rng.randbytes(rng.randint(1, 12))
    elif kind == 2:
        del data[here : here + rng.choice((1, 2, 8, 40, 4096))]
    elif kind == 3:
        data[here:here] = data[here : here + rng.randint(1, 600)]
    elif kind == 4:
        size, other = rng.randint(1, 64), at()
        data[here : here + size], data[other : other + size] = data[other : other + size], data[here : here + size]
    elif kind == 5:
        size = rng.choice((1, 2, 4, 8))
        data[here : here + size] = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * size
    else:
        for _ in range(rng.randint(1, 6)):
            if data:
                data[at()] ^= 1 << rng.randrange(8)
    return bytes(data)


def damage_text(rng: random.Random, content: bytes) -> bytes:
    """Damage text where its meaning lies: tokens put in, lines moved, blank space, nesting; or plain bytes."""
    lines = content.splitlines(keepends=True) or [b""]
    kind, here = rng.randrange(7), rng.randrange(len(lines))
    if kind == 0:
        at = rng.randrange(len(content) + 1)
        return content[:at] + rng.choice(TOKENS) * rng.choice((1, 1, 2, 50)) + content[at:]
    if kind == 1:
        lines.insert(rng.randrange(len(lines) + 1), lines[here])
    elif kind == 2:
        del lines[here : here + rng.randint(1, 3)]
    elif kind == 3:
        lines[here] = rng.choice((b" ", b"  ", b"\t", b"- ", b"? ", b"! ", b"'")) + lines[here]
    elif kind == 4:
        opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"- ", b"")))
        depth = rng.choice(DEPTHS)
        lines[here : here + rng.choice((0, 1, len(lines)))] = [opened * depth + b"1" + closed * depth + b"\n"]
    elif kind == 5:
        other = rng.randrange(len(lines))
        lines[here], lines[other] = lines[other], lines[here]
    else:
        return damage_bytes(rng, content)
    return b"".join(lines)


def damage_tree(rng: random.Random, value: Any) -> Any:
    """Return a tree of mappings and lists with one to three places changed: another value, a key gone, moved or new."""
    holder = [json.loads(json.dumps(value))]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        where: Any = holder
        key: Any = 0
        for _ in range(rng.randint(0, 8)):
            inner = where[key]
            if not isinstance(inner, (dict, list)) or not inner:
                break
            where, key = inner, rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        kind = rng.randrange(7)
        if kind == 0 and where is not holder:
            del where[key]
        elif kind == 1 and isinstance(where, dict):
            where[str(rng.choice(ODD))[:40]] = where.pop(key)
        elif kind == 2 and isinstance(where, list) and where is not holder:
            where.insert(rng.randrange(len(where) + 1), json.loads(json.dumps(where[key])))
        elif kind == 3:
            where[key] = [where[key]]
        elif kind == 4:
            where[key] = str(where[key])[:200]
        elif kind == 5 and isinstance(where[key], (int, float)):
            # A whole number may be too large for a float.
            factor = rng.choice((-1, 0, 3, 1e6, 0.5))
            where[key] *= factor if abs(where[key]) < 1e300 else -1
        else:
            # Of its own: what stands in two trees, or in itself, would be damaged for all that come after.
            where[key] = copy.deepcopy(rng.choice(ODD))
    return holder[0]


def as_json(value: Any) -> bytes:
    """A tree as JSON (and so as YAML): with NaN, as Python's own writer has it."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def damage_json(rng: random.Random, content: bytes) -> bytes:
    """Damage JSON in its tree, or in its text."""
    return as_json(damage_tree(rng, json.loads(content))) if rng.random() < 0.6 else damage_text(rng, content)


def damage_csv(rng: random.Random, content: bytes) -> bytes:
    """Damage a table in a cell, a row or a column, or in its text."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    if rng.random() < 0.35 or not rows or not rows[0]:
        return damage_text(rng, content)
    here, column, kind = rng.randrange(len(rows)), rng.randrange(len(rows[0])), rng.randrange(7)
    if kind == 0:
        del rows[here]
    elif kind == 1:
        rows.insert(rng.randrange(len(rows) + 1), list(rows[here]))
    elif kind == 2:
        rows[here] = rows[here][: rng.randrange(len(rows[here]) + 1)] + ["1"] * rng.randrange(3)
    elif kind == 3:
        rows = [[*row[:column], *row[column + 1 :]] for row in rows]
    elif kind == 4:
        rows = [[*row, *row[column : column + 1]] for row in rows]
    else:
        rows[here][column : column + 1] = [str(rng.choice(ODD))]
    out = io.StringIO()
    csv.writer(out, quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)), lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


BY_SUFFIX: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".json": damage_json, ".csv": damage_csv, ".yaml": damage_text, ".jsonl": damage_text, ".md": damage_text,
}  # fmt: skip
