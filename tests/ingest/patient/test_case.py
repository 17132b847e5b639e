"""One patient's DICOM-RT to one case: geometry, dose and distances against the closed form, and each refusal."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, SkippedCase
from doseledger.core.project.protocol import Protocol
from doseledger.ingest.patient.case import Origin, convert_case

POSITIONS = ["HFP", "FFS", "FFP", "HFDL", "HFDR", "FFDL", "FFDR"]


@pytest.fixture
def patient(factory):
    return factory.make_patient()


@pytest.fixture
def convert(factory, tmp_path):
    def run(patient, **changes) -> Case:
        protocol = Protocol.model_validate({**factory.PROTOCOL, **changes})
        return convert_case(patient.save(tmp_path / "raw"), Origin("anon_1"), protocol)

    return run


@pytest.fixture(scope="module")
def plain(factory, tmp_path_factory):
    folder = factory.make_patient().save(tmp_path_factory.mktemp("plain") / "raw")
    return convert_case(folder, Origin("anon_1"), Protocol.model_validate(factory.PROTOCOL))


def test_a_case_holds_what_was_drawn(plain):
    assert plain.present_names == ("PTV70", "PTV56", "Rectum")
    assert plain.grid.spacing_mm == (3.0, 2.5, 2.5)
    z, y, x = np.meshgrid(*plain.grid.axes_mm(), indexing="ij")
    ptv = (x - 0.3) ** 2 + (y + 10.1) ** 2 < 12.0**2
    ptv &= (z > -10.5) & (z < 7.5)
    # The contour is a polygon of 180 corners, a hair inside its circle.
    assert (plain.mask("PTV70") != ptv).sum() <= 6
    assert np.array_equal(plain.body, (np.abs(x) < 50.2) & (np.abs(y) < 50.2))
    assert plain.prescription_gy == {"PTV70": 70.0, "PTV56": 56.0}
    assert plain.n_fractions == 28


def test_a_linear_dose_arrives_exactly(plain, factory):
    z, y, x = np.meshgrid(*plain.grid.axes_mm(), indexing="ij")
    np.testing.assert_allclose(plain.dose_gy, factory.ramp_gy(z, y, x), atol=1e-4)


def test_distances_are_in_mm_negative_inside_and_clipped_where_absent(plain):
    ptv = plain.structure_names.index("PTV56")
    z, y, x = np.meshgrid(*plain.grid.axes_mm(), indexing="ij")
    middle = np.abs(z) < 2.0
    true = np.hypot(x - 0.3, y + 10.1) - 20.0
    near = middle & (np.abs(true) < 8.0)
    assert np.abs(plain.sdf_mm[ptv][near] - true[near]).max() < 2.5
    assert abs((plain.sdf_mm[ptv][near] - true[near]).mean()) < 0.3
    bowel = plain.structure_names.index("Bowel")
    assert not plain.present[bowel]
    assert np.all(plain.sdf_mm[bowel] == 30.0)


@pytest.mark.parametrize("patient_id", ["MUELLER7", "anon_007 b", "anon_007", ""])
def test_an_id_stays_out_of_a_case_that_no_protocol_says_is_a_pseudonym(factory, patient, tmp_path, patient_id):
    # As `deliver` reads a clinic's own patient: nothing was removed from him, and nothing of him is kept.
    for ds in patient.all:
        ds.PatientID = patient_id
    protocol = Protocol.model_validate(factory.PROTOCOL)
    folder = patient.save(tmp_path / "raw")
    case = convert_case(folder, Origin("anon_1"), protocol.model_copy(update={"phi": None}))
    assert case.meta["pseudonym"] == "anon_1"
    assert not patient_id or patient_id not in str(case.meta)
    if patient_id in ("", "anon_007"):
        assert convert_case(folder, Origin("anon_1"), protocol).meta["pseudonym"] == (patient_id or "anon_1")
    else:
        with pytest.raises(BadCase) as refused:
            convert_case(folder, Origin("anon_1"), protocol)
        assert patient_id not in str(refused.value)


def test_meta_says_where_everything_comes_from(plain):
    meta = plain.meta
    assert meta["pseudonym"] == "anon_007"
    assert meta["scanner"] == {}
    assert meta["aliases_used"] == {
        "PTV70": {"roi": "PTV_70", "others": []},
        "Rectum": {"roi": "Rect", "others": []},
    }
    assert meta["body_source"] == "ROI BODY"
    assert meta["warnings"] == []
    assert meta["plan"]["n_beams"] == 1
    assert meta["plan"]["faults"] == []
    assert meta["native_dose_grid"]["spacing_mm"] == [3.0, 4.0, 4.0]
    assert len(meta["source_sha256"]) == 64


def test_parity_holds_the_doses_of_the_native_grid(plain, factory):
    parity = plain.meta["parity"]["PTV56"]
    # The ramp over a disc of 20 mm about x = 0.3 and z from -16.5 to 13.5: its mean is the dose of the centroid.
    rng = np.random.default_rng(3)
    x, y, z = rng.uniform(-20, 20, 200_000), rng.uniform(-20, 20, 200_000), rng.uniform(-16.5, 13.5, 200_000)
    values = factory.ramp_gy(z, y, x + 0.3)[np.hypot(x, y) < 20.0]
    assert parity["mean"] == pytest.approx(60.0 - 0.25 * 0.3 + 0.1 * 1.5, abs=0.02)
    for name, percentile in (("D98%", 2), ("D95%", 5), ("D50%", 50), ("D2%", 98)):
        assert parity[name] == pytest.approx(np.percentile(values, percentile), abs=0.06), name
    assert parity["volume_cc"] == pytest.approx(np.pi * 20.0**2 * 30.0 / 1000, rel=0.01)
    assert parity["outside_percent"] == 0.0


@pytest.mark.parametrize("position", POSITIONS)
def test_every_patient_position_gives_the_same_case(factory, convert, plain, position):
    case = convert(factory.make_patient(position))
    assert case.grid.same_as(plain.grid)
    for name in ("ct_hu", "masks", "sdf_mm", "body"):
        np.testing.assert_array_equal(getattr(case, name), getattr(plain, name), err_msg=name)
    np.testing.assert_allclose(case.dose_gy, plain.dose_gy, atol=1e-4)


def test_native_spacing_keeps_the_images_own_grid(convert, patient, factory):
    case = convert(patient, spacing_mm="native", crop="none")
    assert case.grid.shape_zyx == factory.SHAPE
    assert case.grid.spacing_mm == factory.SPACING
    assert case.crop_start_zyx == (0, 0, 0)


def test_a_crop_can_be_put_back_on_the_full_grid(convert, patient, plain):
    whole = convert(patient, crop="none")
    window = tuple(slice(a, a + n) for a, n in zip(plain.crop_start_zyx, plain.grid.shape_zyx, strict=True))
    assert plain.full_shape_zyx == whole.grid.shape_zyx
    np.testing.assert_array_equal(whole.ct_hu[window], plain.ct_hu)
    np.testing.assert_array_equal(whole.sdf_mm[(slice(None), *window)], plain.sdf_mm)


def test_a_segmentation_protocol_needs_no_dose(convert, patient, factory):
    patient.rtdose.Modality = patient.rtplan.Modality = "OTHER"
    case = convert(patient, objects=["ct", "rtstruct"], prescription_gy={}, n_fractions=None)
    assert case.dose_gy is None
    assert case.prescription_gy == {}
    assert np.array_equal(case.valid_dose, case.body)


def test_without_an_outline_the_body_is_found_in_the_image(convert, patient):
    patient.drop_roi("BODY")
    case = convert(patient)
    assert case.meta["body_source"] == "threshold -500 HU"
    _, y, x = np.meshgrid(*case.grid.axes_mm(), indexing="ij")
    assert np.mean(case.body == ((np.abs(x) < 50.2) & (np.abs(y) < 50.2))) > 0.97


def test_a_dose_grid_smaller_than_the_body_leaves_the_rest_without_dose(convert, patient, factory):
    patient.rtdose = factory.make_rtdose(factory.ramp_gy, (20, 20, 20), (3.0, 3.0, 3.0), (-30.0, -40.0, -28.0))
    case = convert(patient)
    assert np.all(case.dose_gy[~case.valid_dose & case.body] == 0.0)
    _, y, x = np.meshgrid(*case.grid.axes_mm(), indexing="ij")
    assert np.array_equal(case.valid_dose, case.body & (y > -41.5) & (y < 18.5) & (np.abs(x - 0.5) < 30.0))
    assert "100.0 % of Rectum lies beyond the RTDOSE grid" in case.meta["warnings"]
    assert case.meta["parity"]["Rectum"]["points"] == 0


def test_a_target_beyond_the_dose_grid_is_refused(convert, patient, factory):
    patient.rtdose = factory.make_rtdose(factory.ramp_gy, (20, 20, 20), (3.0, 3.0, 3.0), (-30.0, -20.0, -28.0))
    with pytest.raises(BadCase, match=r"% of PTV56 lies beyond the RTDOSE grid; compute the dose on a grid"):
        convert(patient)


def test_a_case_without_a_boost_is_skipped_with_the_protocols_reason(factory, convert, patient):
    patient.drop_roi("PTV56")
    patient.rtplan = factory.make_rtplan(28, [(70.0, 2)])
    with pytest.raises(SkippedCase, match="anon_1: not a simultaneous integrated boost: no ROI matches PTV56"):
        convert(patient)


@pytest.mark.parametrize("doses", [[(70.0, 2), (56.0, 3)], [(70.0, None), (56.0, None)], [(70.0, 2), (50.4, None)]])
def test_a_boost_that_the_plan_prescribes_is_never_skipped(factory, convert, patient, doses):
    patient.drop_roi("PTV56")
    patient.rtplan = factory.make_rtplan(28, doses)
    message = rf'no ROI matches PTV56.*not skipped as "not a sim.*the plan prescribes {doses[1][0]:g} Gy besides'
    with pytest.raises(BadCase, match=message) as error:
        convert(patient)
    assert not isinstance(error.value, SkippedCase)


@pytest.mark.parametrize("name", ["PTV LN", "Lymphabfluss", "PTV_neu", "pTV56_final"])
def test_a_ptv_under_another_name_is_never_skipped_and_named(factory, convert, patient, name):
    """By its ROI type, whatever it is called, and though the plan knows of one dose alone."""
    patient.roi("PTV56").ROIName = name
    patient.rtplan = factory.make_rtplan(28, [(70.0, 2)])
    with pytest.raises(BadCase, match=f'nearest is "{name}".*unclaimed target is "{name}"') as error:
        convert(patient)
    assert not isinstance(error.value, SkippedCase)


def test_the_plan_tells_which_roi_an_absent_target_is(factory, convert, patient):
    """By ROI number: neither the name nor the type says anything."""
    patient.roi("PTV56").ROIName = "xyz"
    for seen in patient.rtstruct.RTROIObservationsSequence:
        seen.RTROIInterpretedType = ""
    with pytest.raises(BadCase, match=r'nearest is "xyz" \(the plan prescribes it 56 Gy\)'):
        convert(patient)


def test_a_side_that_no_name_tells_is_seen_from_the_bodys_middle(factory, convert, patient):
    structures = [*copy.deepcopy(factory.PROTOCOL["structures"]), {"name": "Femur_L", "kind": "organ"}]
    rois = {
        "BODY": factory.stacked(factory.rectangle(*factory.BODY), factory.Z_MM),
        "PTV_70": factory.stacked(factory.circle(0, -10, 12), factory.Z_MM[7:13]),
        "PTV56": factory.stacked(factory.circle(0, -10, 20), factory.Z_MM[5:15]),
        "Rect": factory.stacked(factory.circle(0, 30, 9), factory.Z_MM[4:16]),
        "Hüftkopf 1": factory.stacked(factory.circle(-40, 0, 9), factory.Z_MM[4:16]),
        "Hüftkopf 2": factory.stacked(factory.circle(40, 0, 9), factory.Z_MM[4:16]),
    }
    patient.rtstruct = factory.make_rtstruct(rois, patient.ct, {"BODY": "EXTERNAL"})
    with pytest.raises(BadCase, match=r'no ROI matches Femur_L; nearest is "Hüftkopf 2" \(a name of Femur_Head\)'):
        convert(patient, structures=structures)


def test_a_missing_structure_is_a_bad_case_with_the_nearest_name(convert, patient):
    patient.roi("Rect").ROIName = "Rectm"
    message = r'no ROI matches Rectum \(aliases Rect, Rectum_P\); nearest is "Rectm". Rename it, or add the alias'
    with pytest.raises(BadCase, match=message) as error:
        convert(patient)
    assert not isinstance(error.value, SkippedCase)


def test_a_broken_case_is_never_skipped(convert, patient):
    patient.drop_roi("PTV56")
    patient.ct.pop(5)
    with pytest.raises(BadCase, match=r"1 slices of the usual 3 mm are missing.*1 of the 20 images") as error:
        convert(patient)
    assert not isinstance(error.value, SkippedCase)


def test_what_identifies_a_patient_outweighs_a_skip_and_is_said_with_the_rest(convert, patient):
    patient.drop_roi("PTV56")
    patient.rtplan.PatientName = "Doe^Jane"
    with pytest.raises(
        BadCase, match=r"no ROI matches PTV56.*Besides, it may identify the patient: PatientName"
    ) as error:
        convert(patient)
    assert not isinstance(error.value, SkippedCase)
    assert "Doe" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: setattr(p.rtplan.FractionGroupSequence[0], "NumberOfFractionsPlanned", 35),
            "35 fractions, tiny_sib h",
        ),
        (
            lambda p: setattr(p.rtplan.DoseReferenceSequence[0], "TargetPrescriptionDose", 60),
            "PTV70 60 Gy, tiny_sib has",
        ),
        (lambda p: setattr(p.rtplan.DoseReferenceSequence[0], "TargetPrescriptionDose", 7000), "is it in cGy"),
        (lambda p: setattr(p.rtplan.DoseReferenceSequence[0], "TargetPrescriptionDose", 56), "PTV70 56 Gy"),
    ],
)
def test_a_wrong_prescription_is_a_bad_case(convert, patient, change, message):
    change(patient)
    with pytest.raises(BadCase, match=f"wrong prescription: .*{message}"):
        convert(patient)


def test_a_prescription_for_no_target_in_particular_may_be_any_of_the_protocols(convert, patient, factory):
    patient.rtplan = factory.make_rtplan(28, [(56.0, None)])
    assert convert(patient).n_fractions == 28
    patient.rtplan = factory.make_rtplan(28, [(66.0, None)])
    with pytest.raises(BadCase, match="gives a target 66 Gy, tiny_sib has 70 or 56 Gy"):
        convert(patient)


def test_a_plan_that_prescribes_nothing_is_a_warning(convert, patient, factory):
    patient.rtplan = factory.make_rtplan(28, [])
    assert any("prescribes no dose to a target" in text for text in convert(patient).meta["warnings"])


def test_two_rois_of_one_folded_name_are_an_error(convert, patient):
    patient.roi("PTV56").ROIName = "RECT"
    with pytest.raises(BadCase, match='two ROIs are called "RECT" and "Rect"'):
        convert(patient)


def test_a_required_structure_beyond_the_image_is_refused_and_counts_absent_images(convert, patient):
    patient.ct = patient.ct[:14]
    with pytest.raises(BadCase, match=r"1 of 10 contours of PTV56 lie beyond the image.*; 6 of the 20 images"):
        convert(patient)


def test_an_optional_structure_that_is_not_whole_is_absent_and_said_to_be(convert, patient, factory):
    patient.ct = patient.ct[:14]
    optional = copy.deepcopy(factory.PROTOCOL["structures"])
    optional[2]["required"] = optional[1]["required"] = False
    case = convert(patient, structures=optional)
    assert case.present_names == ("PTV70",)
    assert any(text.startswith("Rectum is taken as absent: 2 of 12 contours") for text in case.meta["warnings"])
    assert any("BODY lie beyond the image and were left out" in text for text in case.meta["warnings"])


def test_a_structure_smaller_than_the_grid_is_never_silently_empty(convert, patient, factory):
    speck = factory.make_contour(factory.Z_MM[8], factory.circle(0.1, 30.1, 0.2))
    number = patient.roi("Rect").ROINumber
    for drawn in patient.rtstruct.ROIContourSequence:
        if drawn.ReferencedROINumber == number:
            drawn.ContourSequence = [speck]
    with pytest.raises(BadCase, match="Rectum has contours, but no voxel centre lies inside them"):
        convert(patient)


def test_an_roi_without_contours_is_not_there_and_the_next_alias_is_taken(convert, patient, factory):
    rois = {"Rectum": [], "BODY": factory.stacked(factory.rectangle(*factory.BODY), factory.Z_MM)}
    rois |= {
        "PTV70": factory.stacked(factory.circle(0, -10, 12), factory.Z_MM[7:13]),
        "PTV56": factory.stacked(factory.circle(0, -10, 20), factory.Z_MM[5:15]),
        "Rectum_P": factory.stacked(factory.circle(0, 30, 9), factory.Z_MM[4:16]),
        "zPTV70_opt": factory.stacked(factory.circle(0, -10, 3), factory.Z_MM[7:13]),
    }
    patient.rtstruct = factory.make_rtstruct(rois, patient.ct, {"BODY": "EXTERNAL"})
    patient.rtplan = factory.make_rtplan(28, [])
    case = convert(patient)
    assert case.meta["aliases_used"]["Rectum"] == {"roi": "Rectum_P", "others": []}
    assert case.meta["unmatched_rois"] == [{"roi": "zPTV70_opt", "type": "ORGAN"}]


def test_a_malformed_file_is_a_bad_case_and_no_crash(convert, patient):
    del patient.rtstruct.StructureSetROISequence[1].ROINumber
    with pytest.raises(BadCase, match=r"RTSTRUCT_020.dcm: item 2 of StructureSetROISequence: ROINumber is missing"):
        convert(patient)


def test_a_spacing_of_zero_is_a_bad_case_and_no_crash(convert, patient):
    for item in patient.ct:
        item.PixelSpacing = [0, 0]
    with pytest.raises(BadCase, match=r"CT_000.dcm: PixelSpacing is \[0.0, 0.0\], wanted two positive"):
        convert(patient)


def test_a_plan_without_fractions_is_a_bad_case(convert, patient):
    patient.rtplan.FractionGroupSequence[0].NumberOfFractionsPlanned = None
    with pytest.raises(BadCase, match="the RTPLAN has no NumberOfFractionsPlanned, wanted"):
        convert(patient)


def test_what_is_wrong_with_a_plan_is_noted_and_fails_no_conversion(convert, patient):
    patient.rtplan.BeamSequence[0].ControlPointSequence[1].CumulativeMetersetWeight = -0.5
    assert convert(patient).meta["plan"]["faults"] == [
        "Beam 1, control point 1: the cumulative meterset falls from 0 to -0.5.",
        "Beam 1: FinalCumulativeMetersetWeight is 1.0, the last control point has -0.5.",
    ]


def test_leaf_positions_that_are_no_pairs_are_named_with_their_beam(convert, patient):
    point = patient.rtplan.BeamSequence[0].ControlPointSequence[0]
    point.BeamLimitingDevicePositionSequence[2].LeafJawPositions = [1, 2, 3]
    patient.rtplan.BeamSequence[0].BeamLimitingDeviceSequence[2].LeafPositionBoundaries = None
    faults = convert(patient).meta["plan"]["faults"]
    assert "Beam 1, control point 0: 3 leaf positions, wanted two of each pair." in faults


def test_a_plan_too_malformed_to_check_has_a_fault_that_repeats_no_value(convert, patient, monkeypatch):
    def fail(dataset):
        raise ValueError("Muster")

    monkeypatch.setattr("doseledger.ingest.patient.read.check_rtplan", fail)
    assert convert(patient).meta["plan"]["faults"] == [
        "The plan is so malformed that it can't be checked (ValueError)."
    ]


def test_a_fault_at_every_control_point_is_not_listed_two_hundred_times(convert, patient, factory):
    weights = tuple(float(200 - k) for k in range(200))
    patient.rtplan.BeamSequence = [factory.make_beam(weights)]
    faults = convert(patient).meta["plan"]["faults"]
    assert len(faults) == 21
    # 199 times it falls, and it does not begin at 0.
    assert faults[-1] == "And 180 faults more."


def test_a_folder_and_a_zip_of_it_give_the_same_bytes(convert, patient, factory, tmp_path):
    from doseledger.ingest.pack import pack_case

    protocol = Protocol.model_validate(factory.PROTOCOL)
    folder = patient.save(tmp_path / "anon_1")
    pack_case(folder, tmp_path / "anon_1.zip")
    for source, name in ((folder, "a"), (tmp_path / "anon_1.zip", "b")):
        convert_case(source, Origin("anon_1"), protocol).save(tmp_path / name / "anon_1.npz")
    assert (tmp_path / "a" / "anon_1.npz").read_bytes() == (tmp_path / "b" / "anon_1.npz").read_bytes()
