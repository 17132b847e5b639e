"""Objects of a tiny patient, every attribute and stored value written out in `known_objects.txt`.

It is written anew where it is deleted: read what changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fixtures.known import assert_known
from pydicom import Dataset

from doseledger.core.grid import Grid
from doseledger.core.plan import Arc, Plan
from doseledger.dicom.plan.source_to_skin import Body
from doseledger.dicom.position import Position
from doseledger.dicom.read_image import arrange_slices
from doseledger.dicom.structure_names import describe
from doseledger.dicom.write.delivery import RoiDvh, make_mimicking_dose, make_mimicking_plan
from doseledger.dicom.write.gamma import make_gamma_dose
from doseledger.dicom.write.objects import Study
from doseledger.dicom.write.plan import BeamDevice, make_plan
from doseledger.dicom.write.prediction import PredictedBy, make_heading, make_predicted_dose, make_predicted_plan
from doseledger.dicom.write.segmentation import Frames, Segment, make_segmentation
from doseledger.dicom.write.structures import Roi, make_structure_set
from doseledger.dicom.write.volumes import make_ct, make_dose

KNOWN = Path(__file__).with_name("known_objects.txt")
GRID = Grid((5, 4, 6), (3.0, 2.0, 1.5), (-10.0, 20.0, -30.0))
BY = PredictedBy("dose_of_a_network_with_a_name_that_is_far_too_long_for_a_title", "ab" * 32, "1.2.3")
# What a UID of ours looks like to a reader of the file: its last digits.
SHOWN_DIGITS = 6


def study(position: Position = "HFS", key: str = "key") -> Study:
    return Study("anon_1", "anon^1", "O", "1.2.3.4", "1.2.3.5", position, key)


def lines(ds: Dataset, indent: str = "  ") -> Iterator[str]:
    """An attribute a line, items below their sequence."""
    for element in ds:
        name = element.keyword or str(element.tag)
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                yield f"{indent}{name} {number}"
                yield from lines(item, indent + "  ")
        elif name == "PixelData":
            stored = np.frombuffer(element.value, f"<u{max(int(ds.BitsAllocated) // 8, 1)}")
            yield f"{indent}{name} {stored.tolist()}"
        else:
            value = str(list(element.value) if element.VM > 1 else element.value)
            yield f"{indent}{name} {'…' + value[-SHOWN_DIGITS:] if value.startswith('2.25.') else value}"


def shapes() -> dict[str, np.ndarray]:
    """A block that ends and begins anew above itself, one with a hole, and a field that is negative inside."""
    z, y, x = np.indices(GRID.shape_zyx)
    parted = np.zeros(GRID.shape_zyx, bool)
    parted[[0, 4], 1:3, 2:5] = True
    ring = (z == 2) & ~((y == 2) & (x == 3)) & (y > 0) & (x > 1)
    field = np.sqrt((3.0 * (z - 2)) ** 2 + (2.0 * (y - 1.6)) ** 2 + (1.5 * (x - 2.7)) ** 2) - 3.6
    return {"parted": parted, "ring": ring, "field": field}


def arcs() -> tuple[Arc, Arc]:
    """An arc against the clock whose jaws follow it, and a static field."""
    leaves = np.array([[[-5.0, -6.0], [7.0, 8.0]], [[-4.5, -6.0], [7.0, 8.25]], [[-4.0, -5.5], [6.5, 8.0]]])
    moving = np.array([[-6.0, 8.0, -9.0, 10.0], [-6.5, 8.25, -9.0, 10.0], [-5.5, 8.0, -9.0, 9.5]])
    turning = Arc(
        "A1", np.array([20.0, 10.0, 355.0]), False, 30.0, 0.0, leaves, (-6.5, 8.25), (-9.0, 10.0),
        np.array([0.0, 12.5, 50.0]), (-26.25, 23.0, -4.0), moving,
    )  # fmt: skip
    still = Arc(
        "F2", np.array([90.0, 90.0]), None, 0.0, 0.0, leaves[[0, 0]], (-6.0, 8.0), (-9.0, 10.0), np.array([0.0, 25.0]),
        (-26.25, 23.0, -4.0),
    )  # fmt: skip
    return turning, still


def objects() -> Iterator[tuple[str, Dataset]]:
    ct_hu = np.arange(120, dtype=np.int16).reshape(GRID.shape_zyx) - 60
    ct_hu[0, 0, 0], ct_hu[0, 0, 1] = -2000, 3000
    images = make_ct(study(), ct_hu, GRID, "PELVIS")
    yield "CT, head first and supine, the second slice from the feet", images[1]
    for position in ("HFP", "FFS", "FFP"):
        yield f"CT, {position}, the second slice", make_ct(study(position), ct_hu, GRID)[1]
    shape = shapes()
    rois = [
        Roi("Parted", shape["parted"], "ORGAN", smooth=True, algorithm="", technique="t" * 70, description="d" * 70),
        Roi("Ring", shape["ring"], "PTV", colour=(1, 2, 3), code=describe("Rectum").kind),
        Roi("Field", shape["field"], "CTV", algorithm="MANUAL"),
        Roi("Nothing", None, "GTV"),
    ]
    structures = make_structure_set(study(), rois, GRID, images, "A label of more than 16 letters")
    yield "structure set", structures
    plan = Plan("SIB", "Machine", 6.0, arcs(), 28, {"PTV70": 70.0, "PTV56": 56.1})
    body = Body(np.sqrt(sum(np.square(part) for part in np.meshgrid(
        *(axis - middle for axis, middle in zip(GRID.axes_mm(), (-4.0, 23.0, -26.25), strict=True)), indexing="ij"
    ))) - 2.4, GRID)  # fmt: skip
    device, numbers = BeamDevice(np.array([-10.0, 0.0, 12.5]), 1000.0), {"PTV70": 2, "PTV56": 3}
    yield "plan", make_plan(study(), plan, device, structures, numbers, body)
    yield "plan, feet first and prone", make_plan(study("FFP"), plan, device, structures, numbers)
    dose_gy = np.linspace(0.0, 71.3, 120).reshape(GRID.shape_zyx)
    yield "dose of a plan", make_dose(study(), dose_gy, GRID, plan=images[0], bits=16)
    yield "dose on structures, prone", make_dose(study("HFP"), dose_gy, GRID, structures=structures)
    yield "dose of nothing", make_dose(study(), 0.0 * dose_gy, GRID, bits=16)
    image = images[0]
    image.StudyDate, image.AccessionNumber, image.PatientIdentityRemoved = "20240102", "77", "YES"
    image.DeidentificationMethod = ["one", "two"]
    heading = make_heading(image, BY, key="another key", case_id="case_1")
    predicted = make_predicted_plan(heading, structures, {2: 70.0, 3: 56.1}, 28)
    yield "plan of a predicted dose", predicted
    yield "plan of a predicted dose without prescription", make_predicted_plan(heading, structures, {}, None)
    yield "predicted dose", make_predicted_dose(heading, dose_gy, GRID, plan=predicted, bits=16)
    mimicking = make_mimicking_plan(heading, plan, device, (structures, numbers), [1.5, 1.0123456])
    yield "plan that mimics", mimicking
    dvh = RoiDvh(2, 0.1, np.array([3.0, 2.5, 0.00004]), 0.05, 1.23456, 2.0)
    yield "dose of a plan that mimics", make_mimicking_dose(heading, dose_gy, GRID, (mimicking, structures), [dvh])
    reference = make_dose(study(key="reference"), dose_gy, GRID, plan=mimicking, bits=16)
    reference.DoseSummationType = "BEAM"
    gamma = dose_gy / 30.0
    gamma[0, 0, :3] = np.nan
    made = make_gamma_dose(reference, gamma, GRID, label="3 %/2 mm local " * 3, key="gamma", version="v" * 70)
    yield "gamma map", made
    segments = [
        Segment(describe("Femur_L"), shape["parted"], "AUTOMATIC", "largest of 2 parts"),
        Segment(describe("PTV70", 70.0), shape["ring"], "SEMIAUTOMATIC"),
        Segment(describe("Unheard of"), shape["field"] < 0, "MANUAL"),
    ]
    planes, stack, _ = arrange_slices(images, "case_1")
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    yield "segmentation", make_segmentation(study(), segments, Frames(stack, planes), "m" * 70, "v" * 70, case_id="c")


def written_out() -> str:
    return "\n".join("\n".join([title, *lines(ds)]) for title, ds in objects())


def test_every_attribute_of_every_object_is_the_known_one() -> None:
    assert_known(KNOWN, written_out(), is_passing=False)
