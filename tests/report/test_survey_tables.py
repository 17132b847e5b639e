"""Tables of a survey by rows written out: what is known, what is absent, what differs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doseledger.core.text.sheet import MISSING, Table
from doseledger.report import survey as page


def cells(table: Table) -> list[list[tuple[str, str]]]:
    return [[(cell.text, cell.state) for cell in row] for row in table.rows]


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def roi(**change: Any) -> dict[str, Any]:
    return {
        "roi": "Rect", "patients": 3, "empty": 0, "types": {"ORGAN": 3}, "side_by_place": {}, "sides_differ": 0,
        "volume_cc": {"least": 40.04, "median": 50.0, "most": 61.0}, "claimed_by": ["Rectum"], "proposed_for": [],
        "standard_name": "Rectum", **change,
    }  # fmt: skip


def test_rois_are_told_with_volume_side_and_structure() -> None:
    table = page._rois_table([
        roi(),
        roi(roi="Fem L", empty=1, types={}, volume_cc=None, claimed_by=[], proposed_for=["Femur_L", "Femur_R"],
            side_by_place={"left": 2}, sides_differ=1, standard_name=""),
        roi(roi="x", volume_cc={"least": 5.01, "median": 5.0, "most": 5.04}, claimed_by=[]),
    ])  # fmt: skip
    first, second, third = cells(table)
    assert first[:3] == [("Rect", ""), ("3", ""), ("0", "")]
    assert first[4:] == [("50.0 (40.0 to 61.0)", ""), (MISSING, ""), ("Rectum", "good"), ("Rectum", "")]
    assert second[2:5] == [("1", "warn"), (MISSING, ""), (MISSING, "")]
    assert second[5][0].endswith(": 1 on the other side than the name says")
    assert second[5][1] == "bad"
    assert second[6:] == [("may be Femur_L, may be Femur_R", "warn"), (MISSING, "")]
    assert (third[4], third[6]) == (("5.0", ""), (MISSING, "muted"))


def test_structures_are_good_where_all_have_them_and_bad_where_a_required_one_is_absent() -> None:
    def row(**change: Any) -> dict[str, Any]:
        return {"structure": "Rectum", "required": True, "found": 4, "patients": 4, "standard_name": "Rectum",
                "claimed": [{"roi": "Rect", "patients": 4}], "proposed": [], **change}  # fmt: skip

    proposed = [{"roi": "RECTM", "patients": 1, "why": "spelt alike"}, {"roi": "rc", "patients": 2, "why": "place"}]
    survey: Any = SimpleNamespace(structures=lambda: [
        row(), row(found=3, proposed=proposed), row(required=False, found=0, claimed=[], standard_name=""),
    ])  # fmt: skip
    found = cells(page._structures_table(survey))
    assert [line[1] for line in found] == [("4 of 4", "good"), ("3 of 4", "bad"), ("0 of 4", "warn")]
    assert [line[0][0] for line in found] == ["Rectum", "Rectum", "Rectum (optional)"]
    assert [line[2][0] for line in found] == ["Rect (4)", "Rect (4)", MISSING]
    assert [line[3][0] for line in found] == [MISSING, "RECTM (1): spelt alike; rc (2): place", MISSING]
    assert [line[4][0] for line in found] == ["Rectum", "Rectum", MISSING]


def patient(**objects: Any) -> Any:
    return SimpleNamespace(
        case_id="anon_1", objects={"plans": [], "doses": [], "series": [], **objects}, leftovers=[], complaints=[],
        claims={"Rectum": "Rect"}, hints={"Femur_L": SimpleNamespace(roi="FL")}, rois=[{"roi": "Rect"}, {"roi": "q"}],
    )  # fmt: skip


def test_plans_are_told_with_the_doses_that_are_theirs() -> None:
    plan = {"label": "P1", "date": "2024", "approval": "APPROVED", "intent": "CURATIVE", "fractions": 28,
            "prescription_gy": {"PTV70": 70.0}, "technique": "VMAT", "planning_system": "TPS",
            "chosen": True}  # fmt: skip
    bare = {**dict.fromkeys(plan, ""), "prescription_gy": {}, "chosen": False}
    doses = [{"plan": "P1", "sums": "PLAN"}, {"plan": "P1", "sums": "BEAM"}, {"plan": "P2", "sums": "FRACTION"}]
    first, second = cells(page._plans_table([patient(plans=[plan, bare], doses=doses)]))
    assert [text for text, _ in first[:5]] == ["anon_1", "P1", "2024", "APPROVED CURATIVE", "28"]
    assert [text for text, _ in first[6:9]] == ["VMAT", "TPS", "PLAN, BEAM"]
    assert (first[9], second[9]) == (("yes", "good"), ("no", "muted"))
    assert [text for text, _ in second[1:9]] == [MISSING, MISSING, "", MISSING, MISSING, MISSING, MISSING, "none"]


def test_series_and_what_is_left_over_are_counted() -> None:
    series = {"modality": "CT", "images": 86, "rows": 512, "columns": 256, "pixel_mm": "0.98", "scanner": "ACME",
              "looks_like": "", "chosen": False}  # fmt: skip
    first, second = texts(page._series_table([patient(series=[series, {**series, "scanner": ""}])]))
    assert first == ["anon_1", "CT", "86", "512 × 256", "0.98", "ACME", "no"]
    assert second == [*first[:5], MISSING, "no"]
    one = patient()
    one.leftovers = [("a", "twice"), ("b", "broken"), ("c", "twice")]
    survey: Any = SimpleNamespace(patients=[one, patient()])
    assert texts(page._left_table(survey)) == [["anon_1", "broken", "1"], ["anon_1", "twice", "2"]]


def test_proposed_rois_are_dashed_and_without_a_protocol_all_have_one_colour() -> None:
    colours = {"Rectum": "#111111", "Femur_L": "#222222"}
    assert page._roi_colours(patient(), colours) == {"Rect": ("#111111", False), "FL": ("#222222", True)}
    nobody = patient()
    nobody.claims, nobody.hints = {}, {}
    plain = (page.STRUCTURE_COLOURS[0], False)
    assert page._roi_colours(nobody, {}) == {"Rect": plain, "q": plain}


@pytest.mark.parametrize(("aspect", "size"), [(1.0, (240, 120)), (2.0, (240, 240))])
def test_a_picture_has_its_pixels_proportions(aspect: float, size: tuple[int, int]) -> None:
    import base64
    import io

    from PIL import Image

    picture: Any = SimpleNamespace(
        grey=np.zeros((10, 20), np.uint8), aspect=aspect, outlines=[("Rect", np.array([[2.0, 2], [8, 2], [8, 8]]))]
    )
    uri = page._draw(picture, {"Rect": ("#FF0000", False)})
    shown = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert shown.size == (page.PICTURE_PX, round(page.PICTURE_PX * size[1] / size[0]))
    red = np.asarray(shown)[..., 0]
    # The line from (2, 2) to (8, 2), half a pixel within the picture.
    scale = page.PICTURE_PX / 20
    assert red[round(2.5 * scale * aspect), round(5.5 * scale)] > 100
    assert red[round(5.5 * scale * aspect), round(3.0 * scale)] < 60
