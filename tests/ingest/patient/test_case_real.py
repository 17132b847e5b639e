"""Real DICOM-RT of four sources through the whole conversion: ingested whole, or refused for what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import load_protocol
from doseledger.dicom.contours import stack_contours
from doseledger.dicom.read_dose import read_dose
from doseledger.dicom.read_structures import read_contours, read_rois
from doseledger.dicom.source import lenient, read_source
from doseledger.ingest.cohort import IngestCount, IngestRun, ingest
from doseledger.ingest.patient.case import Origin, convert_case
from doseledger.ingest.patient.native_dvh import native_statistics

PROTOCOLS = Path(__file__).parent / "protocols"


def test_a_head_and_neck_case_without_file_meta_ingests_whole(shared_data, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "HNC-0522c0009").symlink_to(shared_data / "dicom" / "proknow_becker_hn")
    protocol = load_protocol(PROTOCOLS / "becker_hn.yaml")
    count = ingest(raw, tmp_path / "out", protocol, IngestRun(), lambda line: None)
    assert count == IngestCount(converted=1, reused=0, skipped=0, failed=0)


@pytest.fixture(scope="module")
def becker(shared_data):
    protocol = load_protocol(PROTOCOLS / "becker_hn.yaml")
    return convert_case(shared_data / "dicom" / "proknow_becker_hn", Origin("HNC-0522c0009"), protocol)


def test_its_targets_dose_and_prescription_are_where_they_belong(becker):
    assert becker.present_names == ("PTV", "Parotid_L")
    assert (becker.prescription_gy, becker.n_fractions) == ({"PTV": 78.0}, 30)
    assert becker.meta["aliases_used"] == {"Parotid_L": {"roi": "PAROTID_LT", "others": []}}
    assert becker.meta["plan"]["technique"] == "static"
    assert becker.meta["plan"]["faults"] == []
    assert becker.meta["warnings"] == []
    # RescaleSlope is 1.001: air and bone are a little off the stored values.
    assert becker.ct_hu.min() == -1024
    assert becker.ct_hu[becker.mask("PTV")].mean() == pytest.approx(40, abs=60)
    # The left parotid lies to the patient's left of the target's middle: +x in LPS.
    x = becker.grid.axes_mm()[2]
    assert x[np.nonzero(becker.mask("Parotid_L"))[2]].mean() > 20


def test_resampling_keeps_its_doses(becker):
    for name in becker.present_names:
        native, values = becker.meta["parity"][name], becker.dose_gy[becker.mask(name)]
        # A field of 10 mm on slices of 3 mm: the dose falls by a third from slice to slice, so sampling alone tells.
        assert values.mean() == pytest.approx(native["mean"], abs=3.0), name
        volume = becker.mask(name).sum() * becker.grid.voxel_volume_cc
        assert volume == pytest.approx(native["volume_cc"], rel=0.03), name


def test_a_breast_case_with_one_of_its_98_slices_is_refused_clearly(shared_data):
    protocol = load_protocol(PROTOCOLS / "breast_imrt.yaml")
    message = (
        r"1 image slice found, wanted at least 2; export the whole series; 97 of the 98 images that the RTSTRUCT names"
    )
    with pytest.raises(BadCase, match=message):
        convert_case(shared_data / "dicom" / "dicompyler_breast_imrt", Origin("breast"), protocol)


def test_one_slice_is_refused_for_that_under_any_protocol(shared_data, repository):
    protocol = load_protocol(repository / "validation/cohorts/phantom/protocol.yaml")
    with pytest.raises(BadCase, match="1 image slice found, wanted at least 2"):
        convert_case(shared_data / "dicom" / "dicompyler_breast_imrt", Origin("breast"), protocol)


def test_mean_doses_agree_with_the_planning_systems_own_dvhs(shared_data):
    files, _ = read_source(shared_data / "dicom" / "dicompyler_breast_imrt")
    with lenient():
        data = {file.dataset.Modality: file.dataset for file in files}
        dose, rois = read_dose(data["RTDOSE"], "breast"), read_rois(data["RTSTRUCT"], "breast")
        numbers = {roi.name: roi.number for roi in rois}
        # DVHMeanDose is in percent of the prescribed 14 Gy, whatever DoseUnits says.
        planned = {
            int(dvh.DVHReferencedROISequence[0].ReferencedROINumber): float(dvh.DVHMeanDose) * 14.0 / 100.0
            for dvh in data["RTDOSE"].DVHSequence
        }
        body = read_contours(next(roi for roi in rois if roi.name == "BODY"), "breast")
        z = np.unique([z for z, _ in body.polygons])
        # The slices that are missing, from where the outline was drawn.
        image = Grid((len(z), 512, 512), (float(np.diff(z).mean()), 1.074219, 1.074219), (float(z[0]), -524.0, -275.0))
        found = {}
        for name in ("Heart", "Lt Lung", "Tumor Bed"):
            contours = read_contours(rois[[roi.name for roi in rois].index(name)], "breast")
            stack, _ = stack_contours(contours.polygons, image, "breast", name)
            found[name] = native_statistics(stack, image, dose)
    for name, statistics in found.items():
        wanted = planned[numbers[name]]
        assert abs(statistics["mean"] - wanted) <= max(0.01 * wanted, 0.02), (name, statistics["mean"], wanted)


def test_a_sarcoma_ingests_without_dose_on_the_cts_own_grid(shared_data):
    protocol = load_protocol(PROTOCOLS / "sts.yaml")
    case = convert_case(shared_data / "dicom" / "sts_001", Origin("STS_001"), protocol)
    assert case.mask("GTV").sum() == 117_145
    assert case.grid.shape_zyx == (59, 202, 198)
    assert case.dose_gy is None
    # The structure set names the images of the whole series; only the frame of reference still matches.
    assert case.meta["n_absent_images"] > 0
    assert any("images that the RTSTRUCT names are absent" in text for text in case.meta["warnings"])
    assert case.meta["aliases_used"]["GTV"]["roi"] == "GTV_Mass_CT"


def test_a_tiny_plan_case_is_read_with_its_dicom_links(shared_data, factory, tmp_path):
    from doseledger.core.project.protocol import Protocol

    files = sorted((shared_data / "dicom" / "rtplans").glob("TinyVMAT*"))
    (tmp_path / "tiny").mkdir()
    for path in files:
        (tmp_path / "tiny" / path.name).symlink_to(path)
    protocol = Protocol.model_validate(
        {
            **factory.PROTOCOL,
            "objects": ["ct", "rtstruct", "rtplan"],
            "prescription_gy": {"tumor": 1.0},
            "n_fractions": 2,
            "spacing_mm": "native",
            "crop": "none",
            "structures": [{"name": "tumor", "kind": "target"}],
            "skip_when": None,
            "phi": {"pseudonym": ".*", "allow": [{"keyword": k, "reason": "a test plan"} for k in ALLOWED.split()]},
        }
    )
    case = convert_case(tmp_path / "tiny", Origin("tiny"), protocol)
    assert case.meta["plan"]["technique"] == "arc"
    assert case.meta["plan"]["n_control_points"] == 110
    assert case.n_fractions == 2


ALLOWED = """
InstanceCreationDate InstanceCreationTime StudyDate StudyTime SeriesDate SeriesTime ContentDate ContentTime
AcquisitionDate AcquisitionTime StructureSetDate StructureSetTime StructureSetLabel StructureSetName RTPlanDate
RTPlanTime RTPlanLabel RTPlanName InstitutionalDepartmentName TreatmentMachineName BeamDescription PatientSex
PatientBirthDate PrescriptionDescription OtherPatientIDs StudyDescription SeriesDescription InstitutionName
ReviewDate ReviewTime StationName PatientAge DerivationDescription
"""
