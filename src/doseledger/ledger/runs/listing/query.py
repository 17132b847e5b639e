"""Conditions on runs as text, parsed and never executed."""

from __future__ import annotations

import ast
import difflib
import operator
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from doseledger.core.errors import BadInput

LONGEST = 1000
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, where: item in where,
    ast.NotIn: lambda item, where: item not in where,
}
GRAMMAR = "column names, numbers, 'text', True, False, None, lists, < <= > >= == !=, in, not in, and, or, not, brackets"

# A column as it stands in a condition: `mae_gy`, `loss.dvh`, `dvh_Bladder_D0.03cc`, `dvh_PTV70_D95%`.
COLUMN = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)*%?")
TEXT = re.compile(r"('[^']*'|\"[^\"]*\")")
WORDS = frozenset({"and", "or", "not", "in", "is", "if", "else", "for", "lambda", "True", "False", "None"})

Condition = Callable[[Mapping[str, Any]], bool]


def parse_condition(text: str, columns: Collection[str]) -> Condition:
    """Return a function of a row that says whether the condition holds.

    Parameters
    ----------
    text
        The condition. A column is named as it is shown, dots and a percent sign included (`loss.dvh`,
        `dvh_PTV70_D95%`); one that a row has no value in makes a comparison false, but for `== None` and `!= None`.

    Raises
    ------
    BadInput
        If it is no condition, does more than compare, or names a column that no row has.

    Examples
    --------
    >>> holds = parse_condition("mae_gy < 3 and model == 'a'", {"mae_gy", "model"})
    >>> holds({"mae_gy": 2.5, "model": "a"}), holds({"mae_gy": None, "model": "a"})
    (True, False)
    """
    if len(text) > LONGEST:
        raise BadInput(f"the condition has {len(text)} characters, wanted at most {LONGEST}")
    names = columns_in(text)
    # Python would read `D95%` as a remainder and `D0.03cc` as a number: each column becomes a plain name first.
    plain = {name: f"_column_{at}" for at, name in enumerate(names)}
    spelled = "".join(
        part if TEXT.fullmatch(part) else COLUMN.sub(lambda match: plain.get(match[0], match[0]), part)
        for part in TEXT.split(text.strip())
    )
    try:
        with warnings.catch_warnings():
            # What Python would say of odd but harmless expressions is no concern of a condition's.
            warnings.simplefilter("ignore")
            tree = ast.parse(spelled, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"{text!r} is no condition; what it may hold: {GRAMMAR}") from error
    if not _is_allowed(tree, set(plain.values())):
        raise BadInput(f"{text!r} does more than compare; what a condition may hold: {GRAMMAR}")
    for name in names:
        if name not in columns:
            raise BadInput(unknown_column(name, columns))

    def holds(row: Mapping[str, Any]) -> bool:
        try:
            return bool(_value(tree, {short: row.get(name) for name, short in plain.items()}))
        except TypeError as error:
            raise BadInput(f"{text!r} can't be judged on run {row.get('id', '')} ({error})") from error

    return holds


def columns_in(text: str) -> list[str]:
    """Return the columns that a condition names, each once.

    Examples
    --------
    >>> columns_in("dvh_PTV70_D95% < 2 and model == 'lr' and lr >= 1e-3")
    ['dvh_PTV70_D95%', 'model', 'lr']
    """
    parts = [part for part in TEXT.split(text) if not TEXT.fullmatch(part)]
    found = dict.fromkeys(name for part in parts for name in COLUMN.findall(part))
    return [name for name in found if name not in WORDS]


def _is_allowed(node: ast.AST, names: Collection[str]) -> bool:
    """Whether a tree holds comparisons and nothing else; all of it is looked at before any of it is evaluated."""
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (str, int, float, bool, type(None)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and _is_number(node.operand.value)
    is_known = (
        isinstance(node, (ast.BoolOp, ast.List, ast.Tuple))
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))
        or (isinstance(node, ast.Compare) and all(type(kind) in COMPARISONS for kind in node.ops))
    )
    children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return is_known and all(_is_allowed(child, names) for child in children)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def unknown_column(name: str, columns: Collection[str]) -> str:
    """Return the message for a column that no run has, with the nearest that some have."""
    near = difflib.get_close_matches(name, sorted(columns), n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"no run has a column {name!r}{hint}. `doseledger runs list --columns` lists them all"


def _value(node: ast.AST, row: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return row[node.id]
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item, row) for item in node.elts]
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, row)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.BoolOp):
        parts = (_value(item, row) for item in node.values)
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.Compare):
        return _compares(node, row)
    raise TypeError(f"no value in {type(node).__name__}")


def _compares(node: ast.Compare, row: Mapping[str, Any]) -> bool:
    left = _value(node.left, row)
    for kind, right_node in zip(node.ops, node.comparators, strict=True):
        right = _value(right_node, row)
        if isinstance(kind, (ast.Eq, ast.NotEq)):
            comparable = True
        elif isinstance(kind, (ast.In, ast.NotIn)):
            comparable = right is not None
        else:
            comparable = left is not None and right is not None
        if not comparable:
            return False
        if not COMPARISONS[type(kind)](left, right):
            return False
        left = right
    return True
