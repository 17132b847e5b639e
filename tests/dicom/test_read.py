"""Which files of a folder make the case, and whether they belong to one patient and one frame of reference."""

from __future__ import annotations

import copy

import pytest

from doseledger.core.errors import BadCase
from doseledger.dicom.read import gather_objects
from doseledger.dicom.source import SourceFile

OBJECTS = ["ct", "rtstruct", "rtdose", "rtplan"]


@pytest.fixture
def patient(factory):
    return factory.make_patient()


def gather(patient, objects=OBJECTS):
    files = [SourceFile(f"{i}.dcm", ds) for i, ds in enumerate(patient.all)]
    return gather_objects(files, objects, "CT", "case_1")


def test_a_whole_case_has_no_warning(patient):
    objects = gather(patient)
    assert len(objects.slices) == 20
    assert objects.warnings == []
    assert objects.absent_note == ""


def test_a_segmentation_case_needs_no_dose_and_no_plan(patient):
    patient.rtdose.Modality = patient.rtplan.Modality = "OTHER"
    objects = gather(patient, ["ct", "rtstruct"])
    assert objects.rtdose is None
    assert objects.rtplan is None
    with pytest.raises(BadCase, match=r"no RTDOSE and no RTPLAN among the files \(20 CT, 2 OTHER, 1 RTSTRUCT\)"):
        gather(patient)


@pytest.mark.parametrize("name", ["rtdose", "rtplan"])
def test_another_frame_of_reference_is_a_bad_case(patient, name):
    getattr(patient, name).FrameOfReferenceUID = "1.2.3.999"
    with pytest.raises(BadCase, match=f"the {name.upper()} is in another frame of reference than the image"):
        gather(patient)


def test_structures_in_another_frame_are_a_bad_case(patient):
    patient.rtstruct.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3.999"
    for roi in patient.rtstruct.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = "1.2.3.999"
    with pytest.raises(BadCase, match="the RTSTRUCT is in another frame of reference"):
        gather(patient)


def test_slices_of_two_frames_are_a_bad_case(patient):
    patient.ct[3].FrameOfReferenceUID = "1.2.3.999"
    with pytest.raises(BadCase, match="slices have different frames of reference"):
        gather(patient)


def test_a_reference_without_its_image_is_a_warning_with_the_count(patient):
    patient.ct = patient.ct[2:]
    objects = gather(patient)
    assert objects.n_absent_images == 2
    assert objects.warnings == ["2 of the 20 images that the RTSTRUCT names are absent"]


def test_a_dose_of_another_plan_is_a_warning(patient):
    patient.rtdose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID = "1.2.3.999"
    assert gather(patient).warnings == ["the RTDOSE refers to another RTPLAN than the one that is here"]


def test_two_patients_in_one_folder_are_refused_without_saying_their_names(patient):
    patient.rtplan.PatientID = "anon_secret"
    with pytest.raises(BadCase, match="different PatientIDs") as error:
        gather(patient)
    assert "secret" not in str(error.value)


def test_of_two_plans_and_structure_sets_the_referenced_ones_are_taken(patient):
    for item in (patient.rtplan, patient.rtstruct):
        other = copy.deepcopy(item)
        other.SOPInstanceUID = other.SOPInstanceUID + ".9"
        patient.extra.append(other)
    objects = gather(patient)
    assert objects.rtplan is patient.rtplan
    assert objects.rtstruct is patient.rtstruct


def test_two_doses_of_whole_plans_are_refused(patient):
    patient.extra.append(copy.deepcopy(patient.rtdose))
    with pytest.raises(BadCase, match="2 files could be the RTDOSE of a whole plan, wanted one"):
        gather(patient)


def test_a_dose_of_one_beam_beside_the_plans_dose_is_left_alone(patient):
    beam = copy.deepcopy(patient.rtdose)
    beam.DoseSummationType = "BEAM"
    patient.extra.append(beam)
    assert gather(patient).rtdose is patient.rtdose


def test_of_two_series_the_one_that_the_structures_are_drawn_on_is_taken(patient, factory):
    other = copy.deepcopy(patient.ct)
    for item in other:
        item.SeriesInstanceUID, item.SOPInstanceUID = "1.2.3.301", item.SOPInstanceUID + ".9"
    patient.extra += other
    assert {str(item.SeriesInstanceUID) for item in gather(patient).slices} == {factory.CT_SERIES}
