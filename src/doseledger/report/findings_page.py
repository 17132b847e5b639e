"""A gate's findings as a page for people: our own template, because GX's Data Docs load from the network."""

from __future__ import annotations

from pathlib import Path

from doseledger.core.errors import BadInput
from doseledger.core.files import write_text
from doseledger.gates.verdict import Verdict, verdict_as_json


def write_page(verdict: Verdict, template: Path, out: Path) -> None:
    """Write a gate's findings as one self-contained HTML file.

    Parameters
    ----------
    verdict
        Of the gate.
    template
        The page of that gate: `data_findings.html.j2` or `drift.html.j2` of reports/templates.
    out
        The page.

    Raises
    ------
    BadInput
        If the template is absent or asks for something that a verdict does not have.
    """
    from jinja2 import Environment, StrictUndefined, TemplateError

    try:
        source = template.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{template}: can't be read ({error})") from error
    # Names of structures and reasons come from clinics: nothing of them may become markup.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        page = environment.from_string(source).render(verdict_as_json(verdict))
    except TemplateError as error:
        raise BadInput(f"{template}: can't be rendered ({error})") from error
    write_text(out, page)
