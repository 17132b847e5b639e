"""CT, structures and dose written and read back: the same numbers at the same places, linked, and nobody's name."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from scipy.ndimage import gaussian_filter

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Phi
from doseledger.dicom.contours import rasterise
from doseledger.dicom.position import check_position
from doseledger.dicom.privacy.phi import scan_phi
from doseledger.dicom.read_dose import read_dose
from doseledger.dicom.read_image import read_image
from doseledger.dicom.read_structures import read_contours, read_rois
from doseledger.dicom.source import SourceFile
from doseledger.dicom.write.objects import Study, decimal, make_uid, to_bytes
from doseledger.dicom.write.outlines import find_outlines
from doseledger.dicom.write.structures import Roi, make_structure_set
from doseledger.dicom.write.volumes import make_ct, make_dose

GRID = Grid((5, 30, 36), (3.0, 2.0, 2.5), (-12.5, 40.25, -31.0))
POSITIONS = ("HFS", "HFP", "FFS", "FFP")


def make_study(position: str = "HFS", key: str = "test") -> Study:
    return Study(
        "phantom_1", "phantom^1", "M", make_uid(key, "s"), make_uid(key, "f"), check_position(position), key
    )  # fmt: skip


def reread(dataset: Dataset) -> Dataset:
    return dcmread(io.BytesIO(to_bytes(dataset)))


def random_ct(seed: int = 1) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-1024, 3000, GRID.shape_zyx).astype(np.int16)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_ct_written_in_any_position_reads_back_voxel_for_voxel(position: str) -> None:
    ct = random_ct()
    image = read_image([reread(item) for item in make_ct(make_study(position), ct, GRID)], "case")
    assert image.grid.same_as(GRID)
    np.testing.assert_array_equal(image.values, ct)


def test_feet_first_images_begin_at_the_head_and_head_first_at_the_feet() -> None:
    # The images follow each other along the normal of their own axes.
    def first_z(position: str) -> float:
        return float(make_ct(make_study(position), random_ct(), GRID)[0].ImagePositionPatient[2])

    assert first_z("HFS") == first_z("HFP") == -12.5
    assert first_z("FFS") == first_z("FFP") == -0.5


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("bits", "error"), [(16, 0.6e-3), (32, 1e-6)])
def test_a_dose_reads_back_at_its_places_to_half_a_stored_unit(position: str, bits: int, error: float) -> None:
    dose = np.random.default_rng(2).uniform(0, 73.0, GRID.shape_zyx).astype(np.float32)
    read = read_dose(reread(make_dose(make_study(position), dose, GRID, bits=bits)), "case")  # type: ignore[arg-type]
    assert read.grid.same_as(GRID)
    # A float32 of about 70 Gy itself steps by 8e-6 Gy.
    np.testing.assert_allclose(read.dose_gy, dose, atol=error + 8e-6, rtol=0)


def test_an_empty_dose_can_be_written() -> None:
    read = read_dose(reread(make_dose(make_study(), np.zeros(GRID.shape_zyx, np.float32), GRID)), "case")
    assert read.dose_gy.max() == 0.0


@pytest.mark.parametrize("value", [-0.1, np.nan])
def test_a_dose_that_is_negative_or_not_finite_is_refused(value: float) -> None:
    dose = np.full(GRID.shape_zyx, value, np.float32)
    with pytest.raises(BadInput, match="phantom_1: a dose must be finite and not negative"):
        make_dose(make_study(), dose, GRID)


def test_a_dose_off_its_grid_and_contours_off_their_images_are_refused() -> None:
    with pytest.raises(BadInput, match="does not fit its grid"):
        make_dose(make_study(), np.zeros((2, 2, 2), np.float32), GRID)
    with pytest.raises(BadInput, match="4 images for 5 slices"):
        make_structure_set(make_study(), [], GRID, make_ct(make_study(), random_ct(), GRID)[:4])
    with pytest.raises(BadInput, match="does not fit its grid"):
        find_outlines(np.zeros((2, 2, 2), np.bool_), GRID)


def blobs(seed: int) -> NDArray[np.bool_]:
    """Random islands with lakes, some touching the edge."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(GRID.shape_zyx), (0, 1.6, 1.6))
    return noise > 0.05


@pytest.mark.parametrize("seed", range(6))
def test_any_mask_comes_back_from_its_contours_holes_included(seed: int) -> None:
    mask = blobs(seed)
    outlines = find_outlines(mask, GRID)
    assert sorted(outlines) == [k for k in range(5) if mask[k].any()]
    for k, polygons in outlines.items():
        np.testing.assert_array_equal(rasterise([np.round(p, 2) for p in polygons], GRID), mask[k])


def test_a_hole_is_joined_to_its_outer_contour_by_a_keyhole() -> None:
    _, y, x = GRID.axes_mm()
    distance = np.hypot(y[:, None] - 68.0, x[None, :] - 12.0)
    mask = np.broadcast_to((distance < 20.0) & (distance > 9.0), GRID.shape_zyx)
    polygons = find_outlines(mask, GRID)[2]
    assert len(polygons) == 1
    ring = polygons[0]
    area = 0.5 * abs(np.sum(ring[:, 0] * np.roll(ring[:, 1], -1) - np.roll(ring[:, 0], -1) * ring[:, 1]))
    assert area == pytest.approx(np.pi * (20.0**2 - 9.0**2), rel=0.04)
    np.testing.assert_array_equal(rasterise(polygons, GRID), mask[2])


def test_a_surface_is_contoured_between_the_pixel_centres() -> None:
    _, y, x = GRID.axes_mm()
    field = np.broadcast_to(np.hypot(y[:, None] - 68.3, x[None, :] - 12.4) - 17.7, GRID.shape_zyx)
    ring = find_outlines(field.astype(np.float32), GRID)[0][0]
    # Straight chords between pixels 2 and 2.5 mm apart stay within 0.1 mm of a circle of 17.7 mm.
    np.testing.assert_allclose(np.hypot(ring[:, 0] - 12.4, ring[:, 1] - 68.3), 17.7, atol=0.1)


def test_an_empty_structure_has_no_contours() -> None:
    assert find_outlines(np.zeros(GRID.shape_zyx, np.bool_), GRID) == {}


def structure_set(study: Study) -> tuple[list[Dataset], Dataset]:
    images = make_ct(study, random_ct(), GRID)
    rois = [Roi("BODY", np.ones(GRID.shape_zyx, np.bool_), "EXTERNAL"), Roi("PTV70", blobs(3), "PTV"),
            Roi("Bowel", None, "ORGAN")]  # fmt: skip
    return images, make_structure_set(study, rois, GRID, images)


@pytest.mark.parametrize("position", ["HFS", "FFP"])
def test_a_structure_set_reads_back_with_names_types_and_masks(position: str) -> None:
    _, dataset = structure_set(make_study(position))
    rois = {roi.name: roi for roi in read_rois(reread(dataset), "case")}
    assert list(rois) == ["BODY", "PTV70", "Bowel"]
    assert rois["BODY"].interpreted_type == "EXTERNAL"
    contours = read_contours(rois["PTV70"], "case")
    mask = blobs(3)
    by_z: dict[float, list[NDArray[np.float64]]] = {}
    for z_mm, polygon in contours.polygons:
        by_z.setdefault(float(z_mm), []).append(polygon)
    for k, z in enumerate(GRID.axes_mm()[0]):
        np.testing.assert_array_equal(rasterise(by_z[float(z)], GRID), mask[k])


def test_contours_name_the_image_that_they_lie_on() -> None:
    images, dataset = structure_set(make_study("FFP"))
    at = {str(image.SOPInstanceUID): float(image.ImagePositionPatient[2]) for image in images}
    for item in reread(dataset).ROIContourSequence[1].ContourSequence:
        z = float(item.ContourData[2])
        assert at[str(item.ContourImageSequence[0].ReferencedSOPInstanceUID)] == z


def test_objects_share_study_frame_and_patient_and_refer_to_each_other() -> None:
    study = make_study()
    images, structures = structure_set(study)
    dose = make_dose(study, np.ones(GRID.shape_zyx, np.float32), GRID, structures=structures)
    objects = [*images, structures, dose]
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert len({str(item.get(keyword)) for item in objects}) == 1
    assert len({str(item.SOPInstanceUID) for item in objects}) == len(objects)
    assert dose.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == structures.SOPInstanceUID
    assert "ReferencedRTPlanSequence" not in dose


def test_a_dose_for_an_existing_patient_joins_that_patients_study() -> None:
    image = reread(make_ct(make_study("FFP"), random_ct(), GRID)[0])
    study = Study.of_image(image, key="prediction")
    dose = make_dose(study, np.ones(GRID.shape_zyx, np.float32), GRID)
    assert (dose.StudyInstanceUID, dose.FrameOfReferenceUID) == (image.StudyInstanceUID, image.FrameOfReferenceUID)
    assert dose.SOPInstanceUID != image.SOPInstanceUID
    assert study.position == "FFP"


def test_the_same_content_gives_the_same_bytes_and_another_key_other_uids() -> None:
    first, again, other = (structure_set(make_study(key=key))[1] for key in ("a", "a", "b"))
    assert to_bytes(first) == to_bytes(again)
    assert first.SOPInstanceUID != other.SOPInstanceUID
    assert len(first.SOPInstanceUID) <= 64


def test_nothing_in_the_files_can_identify_anybody() -> None:
    study = make_study()
    images, structures = structure_set(study)
    files = [SourceFile(f"{k}.dcm", reread(item)) for k, item in enumerate([*images, structures])]
    allow = [{"keyword": "PatientSex", "reason": "test"}, {"keyword": "StructureSetLabel", "reason": "test"}]
    phi = Phi.model_validate({"pseudonym": r"^phantom[_^]\d+$", "allow": allow})
    assert scan_phi(files, phi) == []


def test_decimal_strings_fit_into_sixteen_characters() -> None:
    assert decimal(1.0 / 3.0, 4) == "0.3333"
    assert decimal(-123.45678, 4) == "-123.4568"
    assert decimal(100.0, 0) == "100"
