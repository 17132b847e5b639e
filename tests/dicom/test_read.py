"""Which files of a folder make the case, and whether they belong to one patient and one frame of reference."""

from __future__ import annotations

import copy

import pytest
from pydicom import Dataset

from doseledger.core.errors import BadCase, BadInput
from doseledger.dicom.read import check_link, gather_objects
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


def labelled(patient):
    for index, item in enumerate(patient.all):
        item.file_label = f"{index}.dcm"
    return patient


def again(item, **changes):
    """The same object under another UID."""
    other = copy.deepcopy(item)
    other.SOPInstanceUID = item.SOPInstanceUID + ".9"
    for keyword, value in changes.items():
        setattr(other, keyword, value)
    return other


@pytest.mark.parametrize("name", ["rtplan", "rtstruct"])
def test_of_two_approval_states_the_approved_one_is_taken_and_said_to_be(patient, name):
    del patient.rtdose.ReferencedRTPlanSequence, patient.rtplan.ReferencedStructureSetSequence
    item = getattr(patient, name)
    item.ApprovalStatus = "APPROVED"
    patient.extra.append(again(item, ApprovalStatus="UNAPPROVED"))
    objects = gather(labelled(patient))
    assert getattr(objects, name) is item
    assert any(f"of 2 {name.upper()} the approved one was taken" in text for text in objects.warnings)
    item.ApprovalStatus = "UNAPPROVED"
    with pytest.raises(BadCase, match=rf"2 files could be the {name.upper()}, wanted one: 2.\.dcm, 2.\.dcm; leave"):
        gather(patient)
    label = "RTPlanLabel" if name == "rtplan" else "StructureSetLabel"
    setattr(item, label, "SIB")
    setattr(patient.extra[-1], label, " SIB v2 ")
    with pytest.raises(BadCase, match=r'2.\.dcm "SIB", 2.\.dcm "SIB v2"; leave'):
        gather(patient)


def test_padding_of_patient_ids_makes_no_second_patient(patient):
    patient.rtplan.PatientID = " anon_007 "
    assert gather(patient).warnings == []


def test_screen_captures_of_the_scans_modality_are_no_series(patient):
    capture = again(patient.ct[0], SeriesInstanceUID="1.2.3.999")
    del capture.ImagePositionPatient
    del patient.rtstruct.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    patient.extra.append(capture)
    assert len(gather(patient).slices) == 20


def other_frame(item):
    return again(item, FrameOfReferenceUID="1.2.3.999", SeriesInstanceUID="1.2.3.998")


def unlinked(patient):
    """A patient whose objects name none of each other any more, beside objects of another frame of reference."""
    del patient.rtdose.ReferencedRTPlanSequence, patient.rtplan.ReferencedStructureSetSequence
    del patient.rtstruct.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    return patient


@pytest.mark.parametrize("kind", ["rtdose", "rtplan", "series"])
def test_links_that_are_missing_are_made_by_frame_of_reference_only_where_asked_and_said_to_be(patient, kind):
    unlinked(patient)
    items = patient.ct if kind == "series" else [getattr(patient, kind)]
    patient.extra += [other_frame(item) for item in items]
    if kind != "series":
        # The other dose or plan is of another scan, which is not here.
        patient.extra = [again(item, FrameOfReferenceUID="1.2.3.999") for item in items]
    with pytest.raises(BadCase, match="could be the"):
        gather(patient)
    files = [SourceFile(f"{i}.dcm", ds) for i, ds in enumerate(patient.all)]
    objects = gather_objects(files, OBJECTS, "CT", "case_1", "frame-of-reference")
    assert len(objects.slices) == 20
    assert (objects.rtdose, objects.rtplan) == (patient.rtdose, patient.rtplan)
    assert [text for text in objects.warnings if "(--link frame-of-reference)" in text]


def test_two_candidates_in_one_frame_stay_refused(patient):
    unlinked(patient).extra.append(again(patient.rtplan))
    files = [SourceFile(f"{i}.dcm", ds) for i, ds in enumerate(patient.all)]
    with pytest.raises(BadCase, match="2 files could be the RTPLAN"):
        gather_objects(files, OBJECTS, "CT", "case_1", "frame-of-reference")


def test_another_way_to_link_is_refused():
    with pytest.raises(BadInput, match=r"--link 'guess': wanted one of references, frame-of-reference"):
        check_link("guess")


def test_a_file_that_breaks_off_is_refused_only_where_it_is_needed(patient):
    files = [SourceFile(f"{i}.dcm", ds) for i, ds in enumerate(patient.all)]
    spare = again(patient.rtplan)
    unneeded = gather_objects([*files, SourceFile("x.dcm", spare, "is cut short")], OBJECTS, "CT", "case_1")
    assert unneeded.warnings == ["1 files that are not needed can't be read to their end"]
    for index in (3, 20, 21, 22):
        broken = [*files]
        broken[index] = SourceFile(files[index].name, files[index].dataset, "is cut short: PixelData has 1 of 2 bytes")
        with pytest.raises(BadCase, match=r"case_1: .*is cut short: PixelData"):
            gather_objects(broken, OBJECTS, "CT", "case_1")


def test_the_dose_of_beams_finds_its_plan_where_no_plan_is_asked_for(patient):
    from doseledger.dicom.dose_parts import read_parts

    patient.rtdose.DoseSummationType = "BEAM"
    link, group, beam = patient.rtdose.ReferencedRTPlanSequence[0], Dataset(), Dataset()
    beam.ReferencedBeamNumber = 1
    group.ReferencedFractionGroupNumber, group.ReferencedBeamSequence = 1, [beam]
    link.ReferencedFractionGroupSequence = [group]
    objects = gather(patient, ["ct", "rtstruct", "rtdose"])
    assert objects.rtplan is None
    _, notes = read_parts(objects.dose_parts, objects.dose_plan, "case_1")
    assert notes == ["the dose is the sum of 1 RTDOSE of DoseSummationType BEAM: beams 1"]
