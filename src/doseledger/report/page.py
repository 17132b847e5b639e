"""Pages from Jinja templates, and the same as PDF: equal content, equal bytes."""

from __future__ import annotations

import os
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import all_or_none, atomic_path, write_text
from doseledger.core.text.sheet import Table
from doseledger.core.text.template import render
from doseledger.core.types import Tell
from doseledger.report.figures.style import NO_METADATA, house_style, new_figure

# Any fixed moment: a PDF and the fonts in it would else carry the clock.
FIXED_EPOCH = "315532800"
# Rows of a table in print, some four pages: laying out a thousand takes ten seconds, and nobody leafs through them.
MOST_PRINTED = 200


@dataclass(frozen=True)
class ReportOutputs:
    """Where a report goes: the page, the PDF and the folder of its figures."""

    html: Path
    pdf: Path
    figures: Path


def render_page(templates: Path, name: str, context: dict[str, Any]) -> str:
    """Return the page that a template makes of its content; errors as `core.text.template.render`."""
    return render(templates, name, context, is_html=True)


def running(left: str, right: str, *, alarm: bool = False) -> dict[str, Any]:
    """Return what stands about every page: the program's version, and the heads of its PDF; red with an alarm."""
    heads = {"running_left": left, "running_right": right, "running_alarm": alarm}
    return {"version": metadata.version("doseledger"), **heads}


def write_report(templates: Path, name: str, context: dict[str, Any], outputs: ReportOutputs, tell: Tell) -> None:
    """Write the page that a template makes of its content, and the same as PDF with its longest tables cut.

    Parameters
    ----------
    templates, name, context
        As `render_page` takes them.

    Raises
    ------
    BadInput
        As `render_page` and `write_pdf`.
    """
    page = render_page(templates, name, context)
    short = shorten_tables(context, outputs.html.name)
    printed = page if short is context else render_page(templates, name, short)
    note = write_page(page, outputs.html, outputs.pdf, printed=printed)
    tell(f"wrote {outputs.html}")
    tell(note or f"wrote {outputs.pdf}")


def shorten_tables(content: Any, page: str) -> Any:
    """Return a page's content for print: of each long table the first rows, and a note that the page has all.

    Content without a long table comes back as the object that it is, so that nothing is rendered twice.

    Parameters
    ----------
    page
        Name of the HTML file that holds every row.
    """
    if isinstance(content, Table):
        n_rows = len(content.rows)
        if n_rows <= MOST_PRINTED:
            return content
        note = f"{content.note} The first {MOST_PRINTED} of {n_rows} rows; all are in {page}.".lstrip()
        return replace(content, rows=content.rows[:MOST_PRINTED], note=note)
    if isinstance(content, Mapping):
        parts = {key: shorten_tables(value, page) for key, value in content.items()}
        return parts if any(part is not content[key] for key, part in parts.items()) else content
    if isinstance(content, list | tuple):
        short = [shorten_tables(value, page) for value in content]
        return short if any(part is not whole for part, whole in zip(short, content, strict=True)) else content
    return content


def write_page(page: str, html: Path, pdf: Path, *, printed: str = "") -> str:
    """Write a page and the same (or what shall be printed of it) as PDF, both or neither; the rest as `write_pdf`."""
    with all_or_none():
        write_text(html, page)
        return write_pdf(printed or page, pdf)


def write_pdf(page: str, target: Path) -> str:
    """Write the page as PDF; where WeasyPrint or its libraries are absent, a one-page PDF that says so.

    Returns
    -------
    str
        Empty, or why the PDF is only a note.

    Raises
    ------
    BadInput
        If the page asks for a file or an address outside itself.

    Notes
    -----
    A stage that declares an out must write it, so a machine without Pango gets a valid PDF with the reason and what to
    install; the HTML page is complete either way.
    """
    try:
        with warnings.catch_warnings():
            # Where HarfBuzz's subsetter is not installed it says that a later version will want it.
            warnings.filterwarnings("ignore", "HarfBuzz-Subset", DeprecationWarning)
            import weasyprint
    except (ImportError, OSError) as error:
        reason = f"no PDF: WeasyPrint can't be loaded here ({str(error).splitlines()[0]})"
        _write_note(target, reason)
        return f"{reason}; the HTML report is complete"
    # The page holds all it shows: anything that it would load from elsewhere is an error, not a gap.
    fetcher = weasyprint.urls.URLFetcher(allowed_protocols=("data",), fail_on_errors=True)
    try:
        with atomic_path(target) as part, _fixed_clock():
            weasyprint.HTML(string=page, url_fetcher=fetcher).write_pdf(part)
    except weasyprint.urls.FatalURLFetchingError as error:
        raise BadInput(f"{target}: the page must hold all that it shows, but asks for more ({error})") from error
    return ""


@contextmanager
def _fixed_clock() -> Iterator[None]:
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = FIXED_EPOCH
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
        else:
            os.environ["SOURCE_DATE_EPOCH"] = before


def _write_note(target: Path, reason: str) -> None:
    lines = (
        "This report has no PDF.", "", *textwrap.wrap(reason, 68), "",
        "The HTML report beside it is complete. For the PDF install Pango:",
        "Debian and Ubuntu: libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz0b", "libfontconfig1 fonts-dejavu-core",
    )  # fmt: skip
    with house_style():
        figure = new_figure(4.0)
        figure.text(0.06, 0.94, "\n".join(lines), va="top", linespacing=1.5)
        with atomic_path(target) as part:
            figure.savefig(part, format="pdf", metadata=NO_METADATA["pdf"])
