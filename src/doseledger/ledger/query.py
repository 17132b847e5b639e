"""A condition on runs as text, `mae_gy < 3 and model == 'dose_unet'`: read as a Python expression, never run as one."""

from __future__ import annotations

import ast
import difflib
import operator
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

Condition = Callable[[Mapping[str, Any]], bool]


def parse_condition(text: str, columns: Collection[str]) -> Condition:
    """Return a function of a row that says whether the condition holds.

    Parameters
    ----------
    text
        The condition. A column may have dots (`loss.dvh`); one that a row has no value in makes a comparison false,
        but for `== None` and `!= None`.
    columns
        The names that there are.

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
    try:
        with warnings.catch_warnings():
            # What Python would say of odd but harmless expressions is no concern of a condition's.
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"{text!r} is no condition ({error}); what it may hold: {GRAMMAR}") from error
    _refuse_strangers(tree, columns, text)
    return lambda row: bool(_value(tree, row))


def _refuse_strangers(node: ast.AST, columns: Collection[str], text: str) -> None:
    """Look at all of the tree before anything of it is evaluated."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        name = _dotted(node)
        if name is None:
            raise BadInput(f"{text!r}: {ast.unparse(node)} is no column; what a condition may hold: {GRAMMAR}")
        if name not in columns:
            raise BadInput(unknown_column(name, columns))
        return
    allowed = (ast.BoolOp, ast.Compare, ast.Constant, ast.List, ast.Tuple)
    is_sign = isinstance(node, ast.UnaryOp) and (
        isinstance(node.op, ast.Not)
        or (isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant) and _is_number(node.operand.value))
    )
    is_value = not isinstance(node, ast.Constant) or isinstance(node.value, (str, int, float, bool, type(None)))
    is_known = not isinstance(node, ast.Compare) or all(type(op) in COMPARISONS for op in node.ops)
    if not ((isinstance(node, allowed) or is_sign) and is_value and is_known):
        raise BadInput(f"{text!r}: {ast.unparse(node)} is not allowed; what a condition may hold: {GRAMMAR}")
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            _refuse_strangers(child, columns, text)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def unknown_column(name: str, columns: Collection[str]) -> str:
    """Return the message for a column that no run has, with the nearest that some have."""
    near = difflib.get_close_matches(name, sorted(columns), n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"no run has a column {name!r}{hint}. `doseledger runs list --columns` lists them all"


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = _dotted(node.value)
        return None if left is None else f"{left}.{node.attr}"
    return None


def _value(node: ast.AST, row: Mapping[str, Any]) -> Any:
    name = _dotted(node)
    if name is not None:
        return row.get(name)
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
    raise BadInput(f"{ast.unparse(node) if isinstance(node, ast.expr) else node} is not allowed in a condition")


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
        try:
            holds = bool(COMPARISONS[type(kind)](left, right))
        except TypeError as error:
            raise BadInput(f"{ast.unparse(node)}: {left!r} and {right!r} can't be compared ({error})") from error
        if not holds:
            return False
        left = right
    return True
