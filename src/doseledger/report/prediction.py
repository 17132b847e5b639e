"""Predicted patients for people: a page each, and a table of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from doseledger.core.project.protocol import GoalSet, Protocol
from doseledger.core.text.sheet import MISSING, Cell, State, Table, format_number, make_table, plural
from doseledger.deliver.dose import PageWriter, PredictedPatient
from doseledger.report.blocks import Picture
from doseledger.report.case_pages import curves_of_doses
from doseledger.report.figures.curves import plot_dvh
from doseledger.report.figures.overview import WASH_PART, plot_prediction
from doseledger.report.figures.style import house_style, page_uri, structure_colours, svg_uri
from doseledger.report.page import render_page, running, write_page
from doseledger.report.tables.results import STATE_OF

TEMPLATE = "prediction.html.j2"
ONE_DOSE = "The model gives one dose and does not say how sure it is of it."
DRAWN = (
    "Doses were drawn: the spread is their standard deviation, voxel by voxel in the picture and by statistic in the "
    "table. How far it can be trusted is measured on the test cases (section Uncertainty of the model's report)."
)
NO_PLAN = (
    "Not known: no plan was made of this dose. The command deliver plan makes one, and tells how far it lies from the "
    "prediction."
)
APART = (
    "No plan was made of this dose. On average it lies {apart} Gy from the nearest that the protocol's beams can give. "
    "The command deliver plan makes a plan, and tells how far it lies from the prediction."
)
PROJECTED = (
    "The dose is the nearest that the protocol's beams can give; on average it lies {apart} Gy from what the model "
    "told (predict.project). It is no plan yet: the command deliver plan makes one."
)


def page_maker(
    templates: Path, protocol: Protocol, goals: GoalSet | None, dpi: int
) -> Callable[[PredictedPatient], PageWriter]:
    """Return what makes the page of a predicted patient, to be written as HTML and PDF.

    Parameters
    ----------
    goals
        Marked in the DVHs; None marks none.
    """

    def make(patient: PredictedPatient) -> PageWriter:
        return partial(write_page, render_page(templates, TEMPLATE, page_context(patient, protocol, goals, dpi)))

    return make


def page_context(patient: PredictedPatient, protocol: Protocol, goals: GoalSet | None, dpi: int) -> dict[str, Any]:
    """Return everything that the template prints.

    Raises
    ------
    BadCase
        If the patient can't be drawn: no target, or no dose anywhere.
    """
    record, colours = patient.record, structure_colours(protocol.structure_names)
    drawn = "dose_sd_gy" in patient.arrays
    return {
        "record": record,
        "protocol_title": protocol.title,
        "sentence": tell_prediction(record),
        "notes": [*record["seen_before"], *record["warnings"]],
        "slices": _slices(patient, colours, dpi),
        "dvh": _dvh(patient, protocol, goals if record.get("goals") else None),
        "goals_note": record.get("goals_note", ""),
        "goals": goals_table(record.get("goals", []), colours),
        "statistics": statistics_table(record.get("dvh", []), colours, drawn=drawn),
        "uncertainty": DRAWN if drawn else ONE_DOSE,
        "deliverability": tell_deliverability(record),
        "provenance": provenance_table(record),
        **running(f"Predicted dose of {record['case_id']}", f"checkpoint {record['checkpoint_sha256'][:12]}"),
    }


def tell_prediction(record: Mapping[str, Any]) -> str:
    """Return a predicted dose in one sentence: targets' means, highest dose, goals met.

    Examples
    --------
    >>> tell_prediction({"mean_gy": {"PTV70": 70.12}, "prescription_gy": {"PTV70": 70.0}, "highest_gy": 75.5,
    ...     "goals": [{"met": True}, {"met": None}]})
    'PTV70 gets 70.1 Gy on average (70 Gy prescribed); the highest dose is 75.5 Gy; 1 of 1 goals met.'
    """
    means = [
        f"{name} gets {format_number(mean, 1)} Gy on average ({record['prescription_gy'][name]:g} Gy prescribed)"
        for name, mean in record["mean_gy"].items()
    ]
    told = [*means, f"the highest dose is {format_number(record['highest_gy'], 1)} Gy"]
    if judged := [goal["met"] for goal in record.get("goals", []) if goal["met"] is not None]:
        told.append(f"{sum(judged)} of {len(judged)} goals met")
    return f"{'; '.join(told)}."


def tell_deliverability(record: Mapping[str, Any]) -> str:
    """Return what is known of a dose's distance from what beams can give.

    Examples
    --------
    >>> tell_deliverability({"undeliverable_gy": 1.5, "settings": {"project": False}})[31:79]
    'On average it lies 1.50 Gy from the nearest that'
    """
    apart_gy = record["undeliverable_gy"]
    if apart_gy is None:
        return NO_PLAN
    told = PROJECTED if record.get("settings", {}).get("project") else APART
    return told.format(apart=format_number(apart_gy, 2))


def _slices(patient: PredictedPatient, colours: Mapping[str, str], dpi: int) -> Picture:
    case, name = patient.case, patient.case.case_id
    spread_gy = patient.arrays.get("dose_sd_gy")
    with house_style():
        uri = page_uri(plot_prediction(case, patient.arrays["dose_gy"], spread_gy, colours), dpi)
    below = "" if spread_gy is None else " Below: the spread of the drawn doses."
    return Picture(
        uri,
        "Slices through the centre of the target of the highest prescription. The wash begins at "
        f"{100 * WASH_PART:.0f} % of that prescription.{below} Patient's left is on the right of axial and coronal "
        "slices.",
        f"Predicted dose of {name} as wash on axial, coronal and sagittal slices with contours",
    )


def _dvh(patient: PredictedPatient, protocol: Protocol, goals: GoalSet | None) -> Picture:
    dose_gy = patient.arrays["dose_gy"]
    curves = curves_of_doses(patient.case, dose_gy, (dose_gy,), protocol)
    marks = () if goals is None else goals.goals
    with house_style():
        uri = svg_uri(plot_dvh(curves, marks, 1.12 * float(dose_gy.max()), (), solid="prediction"))
    told = " Triangles mark clinical goals: a curve should pass below ▼ and above ▲." if marks else ""
    return Picture(
        uri, f"Cumulative DVHs of the predicted dose.{told}", f"Dose-volume histograms of {patient.case.case_id}"
    )


def goal_state(row: Mapping[str, Any]) -> str:
    """Return what became of a goal: met, acceptable, missed or not judged."""
    if row["met"] is None:
        return "not judged"
    return "met" if row["met"] else "acceptable" if row["acceptable"] else "missed"


def goals_table(rows: list[dict[str, Any]], colours: Mapping[str, str]) -> Table:
    """Return the goals with their values and what became of each."""
    cells = []
    for row in rows:
        state = goal_state(row)
        name = Cell(row["goal"], swatch=colours.get(row["structure"], ""))
        cells.append((name, "gating" if row["gating"] else "reported", _with_unit(row["value"], row["unit"]),
                      Cell(state, STATE_OF[state]), row["reason"]))  # fmt: skip
    columns = ("=Goal", "Kind", "#Value", "Verdict", "Remark")
    note = "Of a predicted dose, which no machine need be able to give. Acceptable: missed, but within the wider limit."
    return make_table("Clinical goals", columns, cells, note=note)


def statistics_table(rows: list[dict[str, Any]], colours: Mapping[str, str], *, drawn: bool) -> Table:
    """Return one row a structure, one column a statistic; with the spread over drawn doses where there are some."""
    heads = list(dict.fromkeys(f"{row['statistic']} ({row['unit']})" for row in rows))
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        number = format_number(row["value"], 2)
        spread = f" ± {format_number(row['sd'], 2)}" if row["sd"] is not None else ""
        found.setdefault(row["structure"], {})[f"{row['statistic']} ({row['unit']})"] = f"{number}{spread}"
    cells = [
        (Cell(name, swatch=colours.get(name, "")), *(values.get(head, "") for head in heads))
        for name, values in found.items()
    ]
    note = "±: standard deviation over the drawn doses." if drawn else ""
    return make_table("DVH statistics", ("Structure", *(f"#{head}" for head in heads)), cells, note=note)


def _with_unit(value: float | None, unit: str) -> str:
    number = format_number(value, 2)
    return number if number == MISSING or unit == "1" else f"{number} {unit}"


def provenance_table(record: Mapping[str, Any]) -> Table:
    """Return what made the dose: model, its version, code, and the hashes of what went in."""
    registered = record.get("registered_as") or ()
    commit = record.get("commit")
    dirty = Cell("yes: no commit describes this code", "bad") if record.get("dirty") else Cell("no")
    rows = [
        ("Model", f"{record['model']}, epoch {record['epoch']}"),
        ("Registered as", ", ".join(registered) or "not registered"),
        ("Checkpoint (SHA256)", Cell(record["checkpoint_sha256"], "hash")),
        ("Program", f"doseledger {record['program']}"),
        ("Code of the prediction (SHA256)", Cell(record["code_sha256"], "hash")),
        *([("Commit", Cell(commit, "hash")), ("Dirty tree", dirty)] if commit else []),
        ("Files of the patient (SHA256)", Cell(record["input_sha256"], "hash")),
        ("Case made of them (SHA256)", Cell(record["case_sha256"], "hash")),
        ("Protocol", record["protocol"]),
        ("Protocol's content (SHA256)", Cell(record["protocol_sha256"], "hash")),
        ("Prescription", _prescription(record)),
        ("Known patients were looked for by", record["seen_before_was_judged_by"]),
    ]
    return make_table("What made this dose", ("", "Value"), rows)


def _prescription(record: Mapping[str, Any]) -> str:
    doses = ", ".join(f"{name} {dose:g} Gy" for name, dose in record["prescription_gy"].items())
    return doses if record["n_fractions"] is None else f"{doses} in {plural(record['n_fractions'], 'fraction')}"


def predictions_table(found: Mapping[str, Any]) -> Table:
    """Return one row a patient for the console: doses, goals, warnings; why there is none."""
    rows: list[tuple[str | Cell, ...]] = []
    for name, one in found["predicted"].items():
        means = ", ".join(f"{target} {format_number(mean, 1)}" for target, mean in one["mean_gy"].items())
        states = [goal_state(goal) for goal in one.get("goals", [])]
        judged = [state for state in states if state != "not judged"]
        missed = judged.count("missed")
        worst: State = "bad" if missed else "warn" if "acceptable" in judged else "good" if judged else ""
        goals = f"{judged.count('met')} of {len(judged)} met" if judged else MISSING
        notes = [*(["seen in training"] if one["seen_before"] else []), *one["warnings"]]
        told = plural(len(notes), "warning") if notes else ""
        rows.append(
            (name, Cell("predicted", "good"), means, format_number(one["highest_gy"], 1), Cell(goals, worst),
             Cell(told, "warn" if told else ""))
        )  # fmt: skip
    rows += [(name, Cell("failed", "bad"), "", "", "", reason) for name, reason in found["failed"].items()]
    columns = ("Patient", "State", "Mean of targets (Gy)", "#Highest (Gy)", "Goals", "Remarks")
    return make_table("Predicted patients", columns, rows, empty="no patient")
