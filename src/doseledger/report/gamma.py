"""The page of a gamma comparison of two dose files, and its PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.files import sha256_of_file
from doseledger.core.text.sheet import Cell, Table, format_number, make_table
from doseledger.core.types import Tell
from doseledger.dosimetry.gamma.map import PASS_GAMMA
from doseledger.evaluate.files.gamma import ComparedDoses, gamma_words
from doseledger.report.blocks import Picture
from doseledger.report.figures.gamma_figure import plot_gamma, plot_gamma_histogram
from doseledger.report.figures.style import house_style, page_uri, svg_uri
from doseledger.report.page import ReportOutputs, running, write_report

TEMPLATE = "gamma.html.j2"
# Reference dose in percent of the normalisation: between these the pass rate is told apart.
LEVELS = (10.0, 30.0, 50.0, 70.0, 90.0)


def write_gamma_page(
    compared: ComparedDoses, files: tuple[Path, Path], templates: Path, page: Path, tell: Tell, *, dpi: int
) -> None:
    """Write the page of a comparison, and the PDF beside it under the same name.

    Parameters
    ----------
    files
        Reference and evaluation, named on the page with their digests.
    """
    outputs = ReportOutputs(page, page.with_suffix(".pdf"), page.parent)
    write_report(templates, TEMPLATE, gamma_context(compared, files, dpi), outputs, tell)


def gamma_context(compared: ComparedDoses, files: tuple[Path, Path], dpi: int) -> dict[str, Any]:
    """Return everything that the template prints."""
    words = gamma_words(compared.criteria)
    with house_style():
        slices = page_uri(plot_gamma(compared), dpi)
        histogram = svg_uri(plot_gamma_histogram(compared.gamma))
    return {
        **running("Comparison of two doses", words),
        "words": words,
        "sentence": tell_gamma(compared.found, words),
        "differ": compared.found["differ"],
        "slices": Picture(
            slices,
            "Slices through the middle of what gets 80 % of the highest reference dose. Difference: red where the "
            "evaluation is hotter. Gamma: orange to brown fails; white has none.",
            "Slices of the reference dose, of the difference and of gamma",
        ),
        "histogram": Picture(
            histogram,
            "Points by their gamma; a point passes left of the dotted line. The last bar holds all that lie beyond.",
            "Histogram of gamma",
        ),
        "numbers": numbers_table(compared),
        "levels": levels_table(compared),
        "files": files_table(compared, files),
    }


def tell_gamma(found: dict[str, Any], words: str) -> str:
    """Return a comparison as one sentence.

    Examples
    --------
    >>> tell_gamma({"pass_rate_percent": 98.456, "n_points": 1200, "n_without": 3}, "gamma 3 %/3 mm global")
    '98.46 % of 1,200 points pass gamma 3 %/3 mm global; 3 more have no gamma and are not counted.'
    """
    rest = f"; {found['n_without']} more have no gamma and are not counted" if found["n_without"] else ""
    return f"{found['pass_rate_percent']:.2f} % of {found['n_points']:,} points pass {words}{rest}."


def numbers_table(compared: ComparedDoses) -> Table:
    """Return pass rate, mean and highest gamma and where, highest doses, and how it was computed."""
    found, grid = compared.found, compared.reference.grid
    worst = np.unravel_index(np.nanargmax(compared.gamma), compared.gamma.shape)
    z, y, x = (float(value) for value in grid.index_to_mm(np.asarray(worst)))
    beyond = " or more" if found["highest_gamma"] >= compared.criteria.max_gamma else ""
    place = f"{format_number(found['highest_gamma'], 3)}{beyond} at x {x:.1f}, y {y:.1f}, z {z:.1f} mm"
    normalisation = compared.criteria.normalisation_gy or found["max_dose_reference_gy"]
    rows = [
        ("Pass rate (%)", format_number(found["pass_rate_percent"], 2)),
        ("Points that count", f"{found['n_points']:,}"),
        ("Points without gamma", str(found["n_without"])),
        ("Mean gamma", format_number(found["mean_gamma"], 3)),
        ("Highest gamma", place.replace("-", "−")),
        ("100 % (Gy)", format_number(normalisation, 2)),
        ("Highest dose of the reference (Gy)", format_number(found["max_dose_reference_gy"], 2)),
        ("Highest dose of the evaluation (Gy)", format_number(found["max_dose_evaluation_gy"], 2)),
        ("Engine", found["engine"]),
        ("Search steps per distance criterion", f"{compared.criteria.interp_fraction:g}"),
        ("Gamma is searched up to", f"{compared.criteria.max_gamma:g}"),
    ]
    if (largest := found.get("largest_difference_from_pymedphys")) is not None:
        rows.append(("Largest difference from pymedphys", f"{largest:.1e}"))
    return make_table("Numbers", ("", "Value"), rows)


def levels_table(compared: ComparedDoses) -> Table:
    """Return the pass rate by level of the reference dose."""
    gamma, found = compared.gamma, compared.found
    top_gy = compared.criteria.normalisation_gy or found["max_dose_reference_gy"]
    percent = 100.0 * compared.reference.dose_gy / top_gy
    rows = []
    for low, high in zip(LEVELS, (*LEVELS[1:], np.inf), strict=True):
        inside = gamma[(percent >= low) & (percent < high) & np.isfinite(gamma)]
        if not len(inside):
            continue
        rate = 100.0 * float(np.mean(inside <= PASS_GAMMA))
        name = f"{low:g} % and more" if np.isinf(high) else f"{low:g} to {high:g} %"
        rows.append((name, f"{len(inside):,}", format_number(rate, 2), format_number(float(inside.mean()), 3)))
    columns = ("Reference dose", "#Points", "#Pass rate (%)", "#Mean gamma")
    return make_table("Pass rate by dose", columns, rows)


def files_table(compared: ComparedDoses, files: tuple[Path, Path]) -> Table:
    """Return the two files with their grids and digests."""
    rows = []
    for role, path, dose in zip(
        ("Reference", "Evaluation"), files, (compared.reference, compared.evaluation), strict=True
    ):
        shape = " × ".join(str(n) for n in dose.grid.shape_zyx)
        spacing = " × ".join(f"{step:g}" for step in dose.grid.spacing_mm)
        rows.append((role, path.name, shape, spacing, Cell(sha256_of_file(path), "hash")))
    columns = ("Role", "File", "#Voxels (z, y, x)", "#Spacing (mm)", "SHA256")
    return make_table("Files", columns, rows)
