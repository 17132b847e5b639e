"""Pages and their prints: long tables, figures of many points."""

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.text.sheet import make_table
from doseledger.report.figures.style import MOST_ELEMENTS, house_style, new_figure, save_figure
from doseledger.report.page import MOST_PRINTED, ReportOutputs, shorten_tables, write_report


def long_table(n_rows: int) -> object:
    return make_table("Cases", ("Case",), [(f"case_{n:04d}",) for n in range(n_rows)], note="All of them.")


def test_the_page_holds_every_row_and_its_print_the_first_ones_and_where_the_rest_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.html.j2").write_text(
        "{% for t in tables.values() %}{{ t.note }}{% for row in t.rows %} {{ row[0].text }}{% endfor %}{% endfor %}"
    )
    printed: list[str] = []
    monkeypatch.setattr("doseledger.report.page.write_pdf", lambda page, target: printed.append(page) or "")
    outputs = ReportOutputs(tmp_path / "data_report.html", tmp_path / "data_report.pdf", tmp_path)
    context = {"tables": {"cases": long_table(MOST_PRINTED + 1)}}
    write_report(tmp_path, "rows.html.j2", context, outputs, lambda line: None)
    last = f"case_{MOST_PRINTED:04d}"
    assert last in outputs.html.read_text()
    assert last not in printed[0]
    assert "case_0199" in printed[0]
    assert "All of them. The first 200 of 201 rows; all are in data_report.html." in printed[0]


def test_a_table_that_fits_is_printed_as_it_is() -> None:
    context = {"tables": [long_table(MOST_PRINTED)], "pair": (1, 2), "title": "a", "none": None}
    assert shorten_tables(context, "page.html") is context


@pytest.mark.parametrize(("n_rows", "renderings"), [(MOST_PRINTED, 1), (MOST_PRINTED + 1, 2)])
def test_a_page_is_rendered_again_for_print_only_where_a_table_is_cut(
    n_rows: int, renderings: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[str] = []
    written: list[str] = []

    def render_page(templates: Path, name: str, context: dict[str, Any]) -> str:
        rendered.append(" ".join(row[0].text for row in context["tables"][0].rows))
        return rendered[-1]

    monkeypatch.setattr("doseledger.report.page.render_page", render_page)
    monkeypatch.setattr("doseledger.report.page.write_pdf", lambda page, target: written.append(page) or "")
    outputs = ReportOutputs(tmp_path / "page.html", tmp_path / "page.pdf", tmp_path)
    context = {"tables": (long_table(n_rows),)}
    write_report(tmp_path, "rows.html.j2", context, outputs, lambda line: None)
    assert len(rendered) == renderings
    assert outputs.html.read_text() == rendered[0]
    assert written == [rendered[-1]]
    assert (written[0] == rendered[0]) == (renderings == 1)


def test_a_row_of_many_points_is_one_image_in_an_svg_and_stays_points_in_a_pdf(tmp_path: Path) -> None:
    def saved(n: int) -> tuple[str, bytes]:
        figure = new_figure(2.0)
        axis = figure.add_axes((0.1, 0.2, 0.8, 0.7))
        axis.plot(np.arange(n), np.arange(n), "o")
        # A line without marks stays a line, whatever its length.
        axis.plot(np.arange(9 * n), np.sin(np.arange(9 * n)))
        with house_style():
            paths = save_figure(figure, tmp_path, f"points_{n}", 100)
        return paths["svg"].read_text(), paths["pdf"].read_bytes()

    few, _ = saved(MOST_ELEMENTS)
    many, pdf = saved(MOST_ELEMENTS + 1)
    assert "<image" not in few
    assert few.count("<use") > MOST_ELEMENTS
    assert len(re.findall("<image", many)) == 1
    assert many.count("<use") < MOST_ELEMENTS
    image = re.search(r"data:image/png;base64,([^\"]+)", many)
    assert image is not None
    assert base64.b64decode(image[1]).startswith(b"\x89PNG")
    assert b"/Subtype /Image" not in pdf
    assert saved(MOST_ELEMENTS + 1) == (many, pdf)


def test_a_cohorts_report_needs_no_torch() -> None:
    # Each process that reads cases would load it, for two seconds.
    code = "import sys, doseledger.report.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
