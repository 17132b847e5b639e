"""A page filled from a Jinja template; equal content gives equal bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.text.words import in_words, spell_feature

CODE = re.compile(r"`([^`]+)`")


def cell(value: Any) -> str:
    """Return a value as it can stand in a cell of a Markdown table: one line, no bar that would end the cell."""
    return " ".join(str(value).replace("\\", "\\\\").replace("|", "\\|").split())


def figure(value: Any) -> str:
    """Return a number with five significant digits, or a dash where there is none."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _with_code(value: Any) -> Any:
    """Return what a page prints of a value: text in backticks is code; what is markup already stays."""
    from markupsafe import Markup, escape

    if not isinstance(value, str) or isinstance(value, Markup) or "`" not in value:
        return value
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(value))))


def render_markdown(templates: Path, name: str, context: dict[str, Any]) -> str:
    """Return the Markdown that a template makes of its content; errors as `render`."""
    # Markdown is no HTML: an escaped ampersand would be shown as such. Cells go through `cell`.
    return render(templates, name, context, is_html=False)


def render(templates: Path, name: str, context: dict[str, Any], *, is_html: bool) -> str:
    """Return the text that a template makes of its content.

    Raises
    ------
    BadInput
        If a template is missing, or asks for something that is not there.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

    environment = Environment(
        loader=FileSystemLoader(templates), autoescape=is_html, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=not is_html, finalize=_with_code if is_html else None,
    )  # fmt: skip
    environment.filters |= {"cell": cell, "figure": figure, "spell_feature": spell_feature, "in_words": in_words}
    try:
        return environment.get_template(name).render(context)
    except TemplateError as error:
        raise BadInput(f"{templates}: {name} can't be filled ({type(error).__name__}: {error})") from error
