"""The survey of a raw export as one HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doseledger.core.files import write_text
from doseledger.core.text.lists import first_of
from doseledger.core.text.sheet import MISSING, Cell, State, Table, format_number, make_table, plural
from doseledger.ingest.survey.choice import RULE
from doseledger.ingest.survey.cohort import Row, Survey
from doseledger.ingest.survey.mid_slice import MidSlice
from doseledger.ingest.survey.patient import PatientSurvey
from doseledger.ingest.survey.record import as_words, patient_line
from doseledger.report.blocks import Card
from doseledger.report.figures.style import STRUCTURE_COLOURS, structure_colours
from doseledger.report.page import render_page, running

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

TEMPLATE = "survey.html.j2"
STATES: dict[str, State] = {
    "converts": "good", "converts once de-identified": "good", "skipped": "warn", "fails": "bad",
}  # fmt: skip
# Pictures are drawn twice as large as they are shown, and at least so wide.
PICTURE_PX, OVERSIZE, JPEG_QUALITY = 256, 2, 82
UNCLAIMED = "#9aa7b4"
# How many cases a row spells out.
MOST_CASES = 12


def write_survey_page(survey: Survey, templates: Path, out: Path) -> None:
    """Write a survey as one HTML file that needs no other and no network.

    Raises
    ------
    BadInput
        If a template is missing.

    Notes
    -----
    No PatientID and no file name is in it, but ROI names, labels and dates as the clinic wrote them, and pixels.
    """
    write_text(out, render_page(templates, TEMPLATE, survey_context(survey)))


def survey_context(survey: Survey) -> dict[str, Any]:
    """Return everything that the template prints."""
    colours = _colours(survey)
    legend = [*colours.items(), ("no structure of the protocol", UNCLAIMED)]
    return {
        "protocol": survey.protocol.name if survey.protocol is not None else "",
        "protocol_title": survey.protocol.title if survey.protocol is not None else "no protocol given",
        "cards_items": _cards(survey),
        "rule": RULE,
        "legend": legend if survey.protocol is not None else [("ROI", STRUCTURE_COLOURS[0])],
        "tables": {
            "complaints": _complaints_table(survey),
            "structures": _structures_table(survey),
            "rois": _rois_table(survey.rois()),
            "patients": _patients_table(survey.patients),
            "plans": _plans_table(survey.patients),
            "series": _series_table(survey.patients),
            "left": _left_table(survey),
        },
        "pictures": [_picture(patient, colours) for patient in survey.patients],
        **running("survey", "holds what a clinic wrote"),
    }


def _cards(survey: Survey) -> list[Card]:
    files = survey.n_files - survey.n_strangers - survey.n_broken
    notes = [
        Card("Patients", str(len(survey.patients)), "", f"in {files} DICOM files, {survey.n_copies} of them copies"),
        Card("Stray files", str(survey.n_strangers), "", f"no DICOM; {survey.n_broken} more are cut short"),
    ]
    told = {
        "converts": "as they are, once they are laid out",
        "converts once de-identified": "nothing but attributes that identify",
        "skipped": "sound, but outside the protocol",
        "fails": "ingest would refuse them",
    }
    notes += [Card(state.capitalize(), str(n), "", told[state]) for state, n in survey.states.items()]
    return notes


def _complaints_table(survey: Survey) -> Table:
    rows = []
    for row in survey.complaints():
        found = "; ".join(f"{item['text']} ({item['count']})" for item in row["found"])
        rows.append((Cell(row["sentence"], "bad" if row["kind"] != "skipped" else "warn"), found, _cases(row["cases"])))
    return make_table(
        "What ingest would refuse",
        ("Patients", "Found (patients)", "Cases"),
        rows,
        note="All at once, of each case as `doseledger sort` would lay it out.",
        empty="Ingest would refuse nothing.",
    )


def _cases(names: Sequence[str]) -> str:
    return first_of(names, MOST_CASES)


def _structures_table(survey: Survey) -> Table:
    rows = []
    for row in survey.structures():
        state: State = "good" if row["found"] == row["patients"] else "bad" if row["required"] else "warn"
        read = ", ".join(f"{item['roi']} ({item['patients']})" for item in row["claimed"])
        proposed = "; ".join(f"{item['roi']} ({item['patients']}): {item['why']}" for item in row["proposed"])
        name = row["structure"] if row["required"] else f"{row['structure']} (optional)"
        count = Cell(f"{row['found']} of {row['patients']}", state)
        rows.append((name, count, read or MISSING, proposed or MISSING, row["standard_name"] or MISSING))
    return make_table(
        "Structures of the protocol",
        ("Structure", "#Found in", "Read from (patients)", "May be it (patients): why", "TG-263"),
        rows,
        note="A proposal is for a person to confirm: add it to the protocol's aliases, or rename the ROI. The standard "
        "name is advice.",
    )


def _rois_table(rows: Sequence[Row]) -> Table:
    cells = []
    for row in rows:
        volume = row["volume_cc"]
        spread = MISSING
        if volume is not None:
            least, middle, most = (format_number(volume[name], 1) for name in ("least", "median", "most"))
            spread = middle if least == most else f"{middle} ({least} to {most})"
        side = Cell(as_words(row["side_by_place"]) or MISSING)
        if row["sides_differ"]:
            side = Cell(f"{side.text}: {row['sides_differ']} on the other side than the name says", "bad")
        claimed = ", ".join(row["claimed_by"])
        proposed = ", ".join(f"may be {name}" for name in row["proposed_for"])
        empty = Cell(str(row["empty"]), "warn" if row["empty"] else "")
        what = Cell(claimed or proposed or MISSING, "good" if claimed else "warn" if proposed else "muted")
        cells.append(
            (row["roi"], row["patients"], empty, as_words(row["types"]) or MISSING, spread, side, what,
             row["standard_name"] or MISSING)
        )  # fmt: skip
    columns = ("ROI", "#Patients", "#Empty", "Type", "#Volume, median (cc)", "Side", "Structure", "TG-263")
    note = (
        "Of the structure sets that the chosen plans refer to. Side: where the contours lie from the outline's middle, "
        "by patients."
    )
    return make_table("ROI names", columns, cells, note=note, empty="There is no structure set.")


def _patients_table(patients: Sequence[PatientSurvey]) -> Table:
    rows = []
    for patient in patients:
        row = patient_line(patient)
        state = Cell(patient.state, STATES[patient.state])
        counts = [row["images"], row["series"], row["plans"], row["doses"], row["rois"]]
        rows.append((patient.case_id, state, *counts, row["complaints"] or MISSING))
    columns = ("Case", "State", "#Images", "#Series", "#Plans", "#Doses", "#ROIs", "Complaints")
    return make_table("Patients", columns, rows)


def _plans_table(patients: Sequence[PatientSurvey]) -> Table:
    rows = []
    for patient in patients:
        for plan in patient.objects["plans"]:
            doses = [dose["sums"] for dose in patient.objects["doses"] if dose["plan"] == plan["label"]]
            approval = " ".join(filter(None, (plan["approval"], plan["intent"])))
            rows.append(
                (patient.case_id, plan["label"] or MISSING, plan["date"] or MISSING, approval,
                 plan["fractions"] or MISSING, as_words(plan["prescription_gy"]) or MISSING,
                 plan["technique"] or MISSING, plan["planning_system"] or MISSING, ", ".join(doses) or "none",
                 _yes(plan))
            )  # fmt: skip
    columns = (
        "Case", "Plan", "Date", "Approval", "#Fractions", "#Dose (Gy)", "Technique", "Planning system", "Doses of",
        "Chosen",
    )  # fmt: skip
    return make_table("Plans and their doses", columns, rows, note=RULE, empty="There is no plan.")


def _yes(row: Mapping[str, Any]) -> Cell:
    return Cell("yes", "good") if row["chosen"] else Cell("no", "muted")


def _series_table(patients: Sequence[PatientSurvey]) -> Table:
    rows = []
    for patient in patients:
        for series in patient.objects["series"]:
            size = f"{series['rows']} × {series['columns']}"
            scanner = " ".join(filter(None, (series["scanner"], series["looks_like"])))
            rows.append(
                (patient.case_id, series["modality"], series["images"], size, series["pixel_mm"], scanner or MISSING,
                 _yes(series))
            )  # fmt: skip
    columns = ("Case", "Modality", "#Images", "#Rows × columns", "#Pixel (mm)", "Scanner", "Chosen")
    return make_table("Image series", columns, rows, empty="There is no image.")


def _left_table(survey: Survey) -> Table:
    rows = []
    for patient in survey.patients:
        counts: dict[str, int] = {}
        for _, why in patient.leftovers:
            counts[why] = counts.get(why, 0) + 1
        rows += [(patient.case_id, why, n) for why, n in sorted(counts.items())]
    note = "files.csv beside this page names each; it is for its owner's eyes."
    columns = ("Case", "Why", "#Files")
    return make_table("Left over", columns, rows, note=note, empty="Every DICOM file belongs to a case.")


def _colours(survey: Survey) -> dict[str, str]:
    return {} if survey.protocol is None else structure_colours(survey.protocol.structure_names)


def _picture(patient: PatientSurvey, colours: Mapping[str, str]) -> dict[str, Any]:
    picture = patient.mid_slice
    text = f"{plural(len(patient.complaints), 'complaint')}" if patient.complaints else "no complaint"
    return {
        "case_id": patient.case_id,
        "state": STATES[patient.state],
        "word": patient.state,
        "text": text,
        "uri": "" if picture is None else _draw(picture, _roi_colours(patient, colours)),
        "z_mm": "" if picture is None else format_number(picture.z_mm, 1),
    }


def _roi_colours(patient: PatientSurvey, colours: Mapping[str, str]) -> dict[str, tuple[str, bool]]:
    """Colour of each ROI, and whether it is only proposed."""
    found = {roi: (colours[name], False) for name, roi in patient.claims.items()}
    found |= {hint.roi: (colours[name], True) for name, hint in patient.hints.items()}
    return found if colours else {str(row["roi"]): (STRUCTURE_COLOURS[0], False) for row in patient.rois}


def _draw(picture: MidSlice, colours: Mapping[str, tuple[str, bool]]) -> str:
    """A slice with its outlines as the data URI of a JPEG; proposed ROIs are dashed, unclaimed ones grey."""
    from PIL import Image, ImageDraw

    rows, columns = picture.grey.shape
    scale = PICTURE_PX * OVERSIZE / columns
    size = (PICTURE_PX * OVERSIZE, max(1, round(rows * scale * picture.aspect)))
    image = Image.fromarray(picture.grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    draw = ImageDraw.Draw(image)
    known = sorted(picture.outlines, key=lambda item: item[0] in colours)
    for name, points in known:
        colour, dashed = colours.get(name, (UNCLAIMED, False))
        # The centre of the first pixel lies half a pixel within the picture.
        drawn = [((x + 0.5) * scale, (y + 0.5) * scale * picture.aspect) for x, y in points.tolist()]
        _outline(draw, [*drawn, drawn[0]], colour, dashed)
    stream = io.BytesIO()
    shown = image.resize((size[0] // OVERSIZE, max(1, size[1] // OVERSIZE)), Image.Resampling.LANCZOS)
    shown.save(stream, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _outline(draw: ImageDraw, points: list[tuple[float, float]], colour: str, dashed: bool) -> None:
    width = 2 * OVERSIZE if not dashed else OVERSIZE + 1
    if not dashed:
        draw.line(points, fill=colour, width=width, joint="curve")
        return
    length, on = 0.0, 6.0 * OVERSIZE
    for (x0, y0), (x1, y1) in pairwise(points):
        if length % (2 * on) < on:
            draw.line([(x0, y0), (x1, y1)], fill=colour, width=width)
        length += ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
