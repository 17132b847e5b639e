"""A case from files as clinics have them: what suffices is read, what does not is one sentence, in every command."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
from pydicom import Dataset

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.source import lenient
from doseledger.evaluate.files.dvh import dvh_of_rtdose
from doseledger.evaluate.files.gamma import read_dose_file
from doseledger.evaluate.files.plan_dose import recompute_dose
from doseledger.gates.data.doses import judge_dose
from doseledger.gates.limits import load_thresholds
from doseledger.ingest.cohort import IngestRun, ingest
from doseledger.ingest.patient.case import Origin, convert_case


@pytest.fixture
def patient(factory):
    return factory.make_patient()


@pytest.fixture
def convert(factory, tmp_path):
    def run(patient, origin=None, **changes):
        protocol = Protocol.model_validate({**factory.PROTOCOL, **changes})
        return convert_case(patient.save(tmp_path / "raw"), origin or Origin("anon_1"), protocol)

    return run


def beams(patient) -> list[Dataset]:
    """The plan's dose as doses of two beams, which the plan gets as well."""
    plan, group = patient.rtplan, patient.rtplan.FractionGroupSequence[0]
    second, used = copy.deepcopy(plan.BeamSequence[0]), copy.deepcopy(group.ReferencedBeamSequence[0])
    second.BeamNumber = used.ReferencedBeamNumber = 2
    plan.BeamSequence, group.NumberOfBeams = [*plan.BeamSequence, second], 2
    group.ReferencedBeamSequence = [*group.ReferencedBeamSequence, used]
    doses = []
    for number in (1, 2):
        dose = copy.deepcopy(patient.rtdose)
        dose.DoseSummationType, dose.SOPInstanceUID = "BEAM", f"1.2.3.500.{number}"
        dose.DoseGridScaling = float(dose.DoseGridScaling) / 2
        fraction, beam = Dataset(), Dataset()
        beam.ReferencedBeamNumber, fraction.ReferencedFractionGroupNumber = number, 1
        fraction.ReferencedBeamSequence = [beam]
        dose.ReferencedRTPlanSequence[0].ReferencedFractionGroupSequence = [fraction]
        doses.append(dose)
    return doses


def test_a_case_of_beam_doses_is_the_case_of_their_sum(convert, patient, factory):
    plain = convert(factory.make_patient())
    patient.rtdose, other = beams(patient)
    patient.extra.append(other)
    case = convert(patient)
    np.testing.assert_allclose(case.dose_gy, plain.dose_gy, atol=1e-5)
    assert case.meta["warnings"] == ["the dose is the sum of 2 RTDOSE of DoseSummationType BEAM: beams 1, 2"]


def test_a_beam_that_is_missing_is_named(convert, patient):
    patient.rtdose, _ = beams(patient)
    with pytest.raises(BadCase, match=r"of the plan's beams 1, 2: 2 is missing"):
        convert(patient)


def test_how_objects_were_linked_is_kept_with_the_case(convert, patient):
    del patient.rtdose.ReferencedRTPlanSequence
    other = copy.deepcopy(patient.rtplan)
    other.SOPInstanceUID, other.FrameOfReferenceUID = "1.2.3.600.9", "1.2.3.999"
    patient.extra.append(other)
    with pytest.raises(BadCase, match="2 files could be the RTPLAN"):
        convert(patient)
    case = convert(patient, Origin("anon_1", link="frame-of-reference"))
    assert case.meta["link"] == "frame-of-reference"
    assert case.meta["warnings"] == ["the RTPLAN was found by its frame of reference (--link frame-of-reference)"]


def test_a_cohort_linked_otherwise_is_converted_anew(patient, factory, tmp_path):
    raw, protocol = tmp_path / "raw", Protocol.model_validate(factory.PROTOCOL)
    patient.save(raw / "anon_1")
    index = tmp_path / "index.json"

    def run(link):
        return ingest(raw, tmp_path / "out", protocol, IngestRun(index=index, link=link), lambda line: None)

    assert (run("references").converted, run("references").reused) == (1, 1)
    assert run("frame-of-reference").converted == 1


def test_an_unreadable_groups_table_is_one_sentence(patient, factory, tmp_path):
    patient.save(tmp_path / "raw" / "anon_1")
    (tmp_path / "raw" / "groups.csv").write_bytes("größe".encode("latin-1"))
    with pytest.raises(BadInput, match=r"groups\.csv: not a CSV table"):
        ingest(tmp_path / "raw", tmp_path / "out", Protocol.model_validate(factory.PROTOCOL), IngestRun(), print)


def test_a_spacing_that_no_patient_has_stops_its_case_before_memory_is_asked_for(convert, patient):
    for item in patient.ct:
        item.PixelSpacing = [2.5e4, 2e4]
        item.ImagePositionPatient = [0, 0, item.ImagePositionPatient[2]]
    with pytest.raises(BadCase, match=r"anon_1: .*larger than any patient's"):
        convert(patient)


def test_an_odd_file_is_listed_and_the_rest_goes_on(convert, patient, factory, tmp_path):
    folder = tmp_path / "raw"
    patient.save(folder)
    (folder / "notes.txt").write_text("look")
    (folder / "empty.dcm").write_bytes(b"")
    spare = copy.deepcopy(patient.rtplan)
    spare.Modality, spare.SOPInstanceUID = "REG", "1.2.3.9"
    stream = io.BytesIO()
    spare.save_as(stream, enforce_file_format=True)
    (folder / "REG.dcm").write_bytes(stream.getvalue()[:-30])
    case = convert_case(folder, Origin("anon_1"), Protocol.model_validate(factory.PROTOCOL))
    assert case.meta["warnings"] == [
        "1 files that are not needed can't be read to their end",
        "2 files are no DICOM and were left out",
    ]


def test_a_plan_with_a_meterset_that_is_no_number_has_a_fault_and_the_case_goes_on(convert, patient):
    item = patient.rtplan.FractionGroupSequence[0].ReferencedBeamSequence[0]
    with lenient():
        item.BeamMeterset = "nan"
    assert any("BeamMeterset" in fault for fault in convert(patient).meta["plan"]["faults"])


def test_each_command_says_file_and_attribute(patient, tmp_path):
    del patient.rtstruct.RTROIObservationsSequence[1].ReferencedROINumber
    patient.rtdose.NumberOfFrames = 22
    folder = patient.save(tmp_path / "anon_1")
    rtdose, rtstruct = folder / "RTDOSE_021.dcm", folder / "RTSTRUCT_020.dcm"
    content = rtdose.read_bytes()
    at = content.index(b"\x28\x00\x08\x00IS") + 8
    broken = content[:at] + b"xx" + content[at + 2 :]
    with pytest.raises(
        BadCase, match=r"RTSTRUCT_020\.dcm: item 2 of RTROIObservationsSequence: ReferencedROINumber is"
    ):
        dvh_of_rtdose(rtstruct, rtdose)
    rtdose.write_bytes(broken)
    with pytest.raises(BadCase, match=r"RTDOSE_021\.dcm: NumberOfFrames is no number"):
        dvh_of_rtdose(rtstruct, rtdose)
    with pytest.raises(BadInput, match=r"RTDOSE_021\.dcm: NumberOfFrames is no number"):
        read_dose_file(rtdose)
    with pytest.raises(BadCase, match=r"RTDOSE_021\.dcm: .*NumberOfFrames is no number"):
        recompute_dose(folder)
    rtdose.write_bytes(content)
    with pytest.raises(
        BadCase, match=r"RTPLAN_022\.dcm: the RTPLAN has no PatientSetupSequence with a PatientPosition"
    ):
        recompute_dose(folder)
    rtstruct.write_bytes(rtstruct.read_bytes()[:-800])
    with pytest.raises(BadInput, match=r"RTSTRUCT_020\.dcm (is cut short|can't be read to its end)"):
        dvh_of_rtdose(rtstruct, rtdose)


def test_two_fraction_groups_are_added_in_fractions_and_dose(patient, convert):
    second = copy.deepcopy(patient.rtplan.FractionGroupSequence[0])
    first = patient.rtplan.FractionGroupSequence[0]
    first.NumberOfFractionsPlanned, second.NumberOfFractionsPlanned, second.FractionGroupNumber = 20, 8, 2
    patient.rtplan.FractionGroupSequence = [first, second]
    case = convert(patient)
    assert case.n_fractions == 28
    assert "the RTPLAN has 2 fraction groups; their fractions were added" in case.meta["warnings"]


def as_enhanced(slices: list[Dataset]) -> Dataset:
    item = copy.deepcopy(slices[0])
    shared, scale, orientation, measures = (Dataset() for _ in range(4))
    for group, keywords in (
        (scale, ("RescaleSlope", "RescaleIntercept")),
        (orientation, ("ImageOrientationPatient",)),
        (measures, ("PixelSpacing",)),
    ):
        for keyword in keywords:
            setattr(group, keyword, getattr(item, keyword))
            delattr(item, keyword)
    del item.ImagePositionPatient
    shared.PixelValueTransformationSequence, shared.PlaneOrientationSequence = [scale], [orientation]
    shared.PixelMeasuresSequence = [measures]
    frames = []
    for plane in slices:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient, frame.PlanePositionSequence = plane.ImagePositionPatient, [position]
        frames.append(frame)
    item.SharedFunctionalGroupsSequence, item.PerFrameFunctionalGroupsSequence = [shared], frames
    item.NumberOfFrames, item.PixelData = len(slices), b"".join(plane.PixelData for plane in slices)
    item["PixelData"].VR = "OW"
    item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    return item


def test_an_enhanced_ct_gives_the_same_case(convert, patient, factory, tmp_path):
    plain = convert(factory.make_patient())
    patient.ct = [as_enhanced(patient.ct)]
    case = convert_case(
        patient.save(tmp_path / "enhanced"), Origin("anon_1"), Protocol.model_validate(factory.PROTOCOL)
    )
    np.testing.assert_array_equal(case.ct_hu, plain.ct_hu)
    np.testing.assert_array_equal(case.masks, plain.masks)


def test_a_case_whose_files_pydicom_warns_of_says_so(patient, factory, tmp_path):
    folder = patient.save(tmp_path / "raw")
    path = folder / "RTPLAN_022.dcm"
    content = path.read_bytes()
    at = content.index(b"\x08\x00\x18\x00UI") + 8
    path.write_bytes(content[:at] + b"A" + content[at + 1 :])
    case = convert_case(folder, Origin("anon_1"), Protocol.model_validate(factory.PROTOCOL))
    assert "the files hold values that break the form of their type" in case.meta["warnings"]


@pytest.mark.parametrize("kind", ["PLAN", "FRACTION"])
def test_a_dose_of_one_fraction_is_read_as_told_and_the_data_gate_names_it(convert, patient, factory, repository, kind):
    patient.rtdose.DoseSummationType = kind
    patient.rtdose.DoseGridScaling = float(patient.rtdose.DoseGridScaling) / 28
    case = convert(patient)
    limits = load_thresholds(Layout(repository, "phantom")).data
    (found,) = judge_dose(case, Protocol.model_validate({**factory.PROTOCOL, "n_fractions": None}), limits)
    assert (found.gate, found.severity) == ("dose_unit", "error")
    assert "it looks like the dose of one fraction" in found.message
    noted = [note for note in case.meta["warnings"] if "DoseSummationType FRACTION" in note]
    assert len(noted) == (kind == "FRACTION")
