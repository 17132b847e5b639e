"""One fault at a time is put into a healthy case, and the data gate names it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Protocol
from doseledger.gates.data.cohort import CaseReport, judge_case
from doseledger.gates.data.doses import judge_dose
from doseledger.gates.limits import DataLimits
from doseledger.gates.verdict import Finding

Judge = Callable[[Case], CaseReport]


def index_of(case: Case, name: str) -> int:
    return case.structure_names.index(name)


def with_array(case: Case, field: str, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Case:
    array = np.array(getattr(case, field))
    array[index_of(case, name)] = change(array[index_of(case, name)])
    return replace(case, **{field: array})


def with_dose(case: Case, change: Callable[[np.ndarray], np.ndarray]) -> Case:
    return replace(case, dose_gy=change(np.array(case.dose_gy)).astype(np.float32))


def with_sdf(case: Case, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Case:
    return with_array(case, "sdf_mm", name, lambda sdf: change(sdf.astype(np.float32)).astype(np.float16))


def one_nan(array: np.ndarray) -> np.ndarray:
    array[0, 0, 0] = np.nan
    return array


def moved(mask: np.ndarray, voxels: int, axis: int) -> np.ndarray:
    return np.roll(mask, voxels, axis=axis)


def overlapping(case: Case) -> Case:
    bladder = case.mask("Bladder")
    return with_array(
        case, "masks", "Rectum", lambda rectum: rectum | (bladder & (np.indices(bladder.shape)[0] % 2 == 0))
    )


def swapped(case: Case, one: str, other: str) -> Case:
    order = list(range(len(case.structure_names)))
    a, b = index_of(case, one), index_of(case, other)
    order[a], order[b] = b, a
    parity = dict(case.meta["parity"])
    parity[one], parity[other] = parity[other], parity[one]
    return replace(case, masks=case.masks[order], sdf_mm=case.sdf_mm[order], meta={**case.meta, "parity": parity})


def emptied(case: Case, name: str, present: bool) -> Case:
    case = with_array(case, "masks", name, np.zeros_like)
    case = with_sdf(case, name, lambda sdf: np.full_like(sdf, 50.0))
    flags = np.array(case.present)
    flags[index_of(case, name)] = present
    return replace(case, present=flags)


def with_meta(case: Case, **changes: Any) -> Case:
    return replace(case, meta={**case.meta, **changes})


def with_parity_of(case: Case, name: str, **changes: float) -> Case:
    parity = case.meta["parity"]
    return with_meta(case, parity={**parity, name: {**parity[name], **changes}})


def with_hole(case: Case) -> Case:
    """A hole that is in no structure: neither target nor organ tells of it."""
    free = case.body & ~case.masks.any(axis=0)
    return replace(case, valid_dose=case.valid_dose & ~(free & (np.indices(free.shape)[0] == 11)))


def anothers_image(case: Case) -> Case:
    """The image of a patient half as wide and 40 mm off."""
    other = case.ct_hu[:, :, ::2]
    image = np.full_like(case.ct_hu, -1000)
    image[:, :, 17 : 17 + other.shape[2]] = other
    return replace(case, ct_hu=image)


def with_flank(case: Case, of_dose: int = 1) -> Case:
    """A patient who lacks three columns of one flank in image and body; with -1 the dose lacks them on the other."""
    columns = np.broadcast_to(np.arange(case.body.shape[2]), case.body.shape)
    there = columns > columns[case.body].min() + 2
    body, dosed = case.body & there, there[..., ::of_dose]
    case = replace(case, body=body, valid_dose=body, ct_hu=np.where(body, case.ct_hu, -1000).astype(np.int16))
    return with_dose(case, lambda dose: np.where(dosed, dose, 0.0))


# Numbers that are told beside a sentence that needs them not.
UNSAID = {
    ("sdf_sign", "wrong_inside"), ("sdf_sign", "wrong_outside"), ("sdf_all_positive", "wrong_outside"),
    ("dose_unit", "min_gy"), ("dose_negative", "max_gy"), ("dose_negative", "prescription_gy"),
    ("prescription", "found_gy"), ("image_fit", "best"),
}  # fmt: skip
FAULTS: dict[str, tuple[Callable[[Case], Case], str, str]] = {
    "one NaN in a corner of the dose": (
        lambda c: with_dose(c, one_nan),
        "nan",
        r"case_0001: the dose has 1 NaN or infinite voxel\(s\), the first at \(z, y, x\) = \[0, 0, 0\]",
    ),
    "an infinite dose": (lambda c: with_dose(c, lambda d: np.where(d > 70, np.inf, d)), "nan", "NaN or infinite"),
    "one NaN in an SDF": (lambda c: with_sdf(c, "Rectum", one_nan), "nan", "the SDF of Rectum has 1 NaN"),
    "an SDF that is positive everywhere": (
        lambda c: with_sdf(c, "Rectum", np.abs),
        "sdf_all_positive",
        "the SDF of Rectum is nowhere negative, though Rectum holds",
    ),
    "an SDF with its sign turned round": (
        lambda c: with_sdf(c, "Bladder", np.negative),
        "sdf_sign",
        "the SDF of Bladder is positive inside and negative outside",
    ),
    "an SDF of the structure's neighbour": (
        lambda c: replace(c, sdf_mm=c.sdf_mm[[0, 1, 2, 4, 4, 5, 6, 7]]),
        "sdf_sign",
        "the SDF of Rectum is positive inside and negative outside|has the wrong sign in",
    ),
    "an SDF in voxels": (
        lambda c: with_sdf(c, "PTV70", lambda sdf: sdf / 6.0),
        "sdf_not_mm",
        "the SDF of PTV70 is 0.1[0-9] times the distance measured",
    ),
    "an SDF normalised to one": (
        lambda c: with_sdf(c, "Femur_L", lambda sdf: sdf / 50.0),
        "sdf_not_mm",
        "the SDF of Femur_L is 0.0[0-9] times",
    ),
    "an SDF clipped too near": (
        lambda c: with_sdf(c, "PTV70", lambda sdf: np.clip(sdf, -20, 20)),
        "sdf_not_mm",
        "clipped at 50",
    ),
    "an absent structure whose SDF is zero": (
        lambda c: with_sdf(c, "Bowel", np.zeros_like),
        "sdf_absent",
        "Bowel is absent, but its SDF runs from 0.0 to 0.0 mm",
    ),
    "a structure marked present without a voxel": (
        lambda c: emptied(c, "Rectum", True),
        "mask_empty",
        "Rectum is marked present, but its mask is empty",
    ),
    "a structure marked absent with voxels": (
        lambda c: replace(c, present=c.present & (np.arange(8) != 4)),
        "mask_absent",
        "Bladder is marked absent, but its mask has",
    ),
    "a required structure that is absent": (
        lambda c: emptied(c, "Femur_R", False),
        "missing_structure",
        "Femur_R is absent, and protocol prostate_sib requires it",
    ),
    "a channel missing": (
        lambda c: replace(
            c,
            structure_names=c.structure_names[:-1],
            masks=c.masks[:-1],
            sdf_mm=c.sdf_mm[:-1],
            present=c.present[:-1],
        ),
        "missing_channel",
        "the case lacks Bowel, so channels would be mixed up",
    ),
    "channels in another order": (
        lambda c: replace(c, structure_names=("PTV56", "PTV70", *c.structure_names[2:])),
        "missing_channel",
        "has them in another order",
    ),
    "a mask outside the body": (
        lambda c: replace(c, body=c.body & (np.arange(48) < 40)),
        "mask_outside_body",
        r"[0-9.]+ % of Femur_L lies outside the body",
    ),
    "an empty body": (lambda c: replace(c, body=np.zeros_like(c.body)), "body_empty", "the body is empty"),
    "rectum and bladder that overlap": (overlapping, "mask_overlap", "Rectum and Bladder overlap by"),
    "one contour copied over another": (
        lambda c: replace(c, masks=c.masks[[0, 1, 2, 3, 4, 5, 5, 7]], sdf_mm=c.sdf_mm[[0, 1, 2, 3, 4, 5, 5, 7]]),
        "mask_twin",
        "Femur_L and Femur_R are the very same voxels",
    ),
    "femurs whose names are swapped": (
        lambda c: swapped(c, "Femur_L", "Femur_R"),
        "mask_order",
        "Femur_L should lie more to the patient's left than Femur_R",
    ),
    "an image flipped front to back": (
        lambda c: replace(c, masks=c.masks[:, :, ::-1], sdf_mm=c.sdf_mm[:, :, ::-1], dose_gy=c.dose_gy[:, ::-1]),
        "mask_order",
        "Rectum should lie more posterior than Bladder",
    ),
    "an image flipped head to foot": (
        lambda c: replace(c, masks=c.masks[:, ::-1], sdf_mm=c.sdf_mm[:, ::-1], dose_gy=c.dose_gy[::-1]),
        "mask_order",
        "Bladder should lie nearer the head than Prostate",
    ),
    "a target of another plan": (
        lambda c: with_array(c, "masks", "Prostate", lambda mask: moved(mask, 6, 0)),
        "mask_not_contained",
        "PTV70 holds [0-9.]+ % of Prostate, wanted at least 90 %",
    ),
    "a spacing that is not the protocol's": (
        lambda c: replace(c, grid=Grid(c.grid.shape_zyx, (3.0, 6.0, 6.0), c.grid.origin_mm)),
        "grid",
        "voxels are 3 × 6 × 6 mm .* wants 6 × 6 × 6 mm",
    ),
    "an image that is missing": (
        lambda c: replace(c, ct_hu=np.zeros_like(c.ct_hu)),
        "image_constant",
        "the image is 0 everywhere",
    ),
    "no dose": (lambda c: replace(c, dose_gy=None), "missing_dose", "there is no dose, and protocol"),
    "dose in cGy": (
        lambda c: with_dose(c, lambda d: 100.0 * d),
        "dose_unit",
        "where 70 Gy are prescribed; it looks like cGy: divide by 100",
    ),
    "dose of one fraction": (
        lambda c: with_dose(c, lambda d: d / 28.0),
        "dose_unit",
        "it looks like the dose of one fraction",
    ),
    "dose normalised to one": (lambda c: with_dose(c, lambda d: d / 75.0), "dose_unit", "it looks normalised"),
    "a negative dose": (lambda c: with_dose(c, lambda d: d - 1.0), "dose_negative", "the dose falls to -"),
    "another prescription": (
        lambda c: replace(c, prescription_gy={"PTV70": 78.0, "PTV56": 56.0}),
        "prescription",
        "PTV70 is prescribed 78 Gy; protocol prostate_sib wants 70 Gy",
    ),
    "a prescription missing": (
        lambda c: replace(c, prescription_gy={"PTV70": 70.0}),
        "prescription",
        "PTV56 is there, but has no prescribed dose",
    ),
    "another number of fractions": (
        lambda c: replace(c, n_fractions=35),
        "n_fractions",
        "35 fractions are planned, protocol prostate_sib wants 28",
    ),
    "a target's D95 moved by resampling": (
        lambda c: with_parity_of(c, "PTV70", **{"D95%": c.meta["parity"]["PTV70"]["D95%"] + 11.0}),
        "parity",
        r"resampling moved D95% of PTV70 from [0-9.]+ to [0-9.]+ Gy, by more than 1 Gy",
    ),
    "an organ's mean moved by resampling": (
        lambda c: with_parity_of(c, "Rectum", mean=c.meta["parity"]["Rectum"]["mean"] - 0.8),
        "parity",
        "resampling moved mean of Rectum",
    ),
    "an organ's volume moved by resampling": (
        lambda c: with_parity_of(c, "Bladder", volume_cc=c.meta["parity"]["Bladder"]["volume_cc"] * 1.3),
        "parity",
        "Bladder has [0-9.]+ cc on the case's grid and [0-9.]+ cc on the native one",
    ),
    "no DVH of the native grid": (
        lambda c: with_meta(c, parity={}),
        "parity_unknown",
        "no D95% of PTV70 on the native dose grid",
    ),
    "a NaN in the DVH of the native grid": (
        lambda c: with_meta(c, parity={**c.meta["parity"], "PTV70": {"D95%": None, "mean": 1.0, "volume_cc": 1.0}}),
        "parity_unknown",
        "no D95% of PTV70",
    ),
    "no volume in the DVH of the native grid": (
        lambda c: with_parity_of(c, "Rectum", volume_cc=None),
        "parity_unknown",
        "no volume of Rectum on the native grid",
    ),
    "an empty valid_dose": (
        lambda c: replace(c, valid_dose=np.zeros_like(c.valid_dose)),
        "valid_dose_empty",
        "valid_dose is empty",
    ),
    "a valid_dose with a hole": (with_hole, "valid_dose", r"valid_dose is wrong at [0-9.]+ % of the body's voxels"),
    "a valid_dose that leaves out an organ": (
        lambda c: replace(c, valid_dose=c.valid_dose & ~c.mask("Bladder")),
        "parity_unknown",
        r"no dose is defined \(valid_dose\) in any voxel of Bladder",
    ),
    "a valid_dose that cuts a target": (
        lambda c: replace(c, valid_dose=c.valid_dose & (np.indices(c.body.shape)[0] < 12)),
        "valid_dose_target",
        r"[0-9.]+ % of PTV70 lies where no dose is defined",
    ),
    "a valid_dose beyond the body": (
        lambda c: replace(c, valid_dose=np.ones_like(c.valid_dose)),
        "valid_dose",
        "valid_dose is wrong at",
    ),
    "a dose grid that nobody noted": (
        lambda c: with_meta(c, native_dose_grid=None),
        "valid_dose_unknown",
        "nobody noted where its dose grid lies",
    ),
    "the lowest quarter of the dose lost": (
        lambda c: with_dose(c, lambda d: np.where(d <= np.quantile(d[c.valid_dose], 0.25), 0.0, d)),
        "dose_zero",
        r"the dose is 0 in 2\d\.\d % of the voxels where it is defined",
    ),
    "one slice of the dose lost": (
        lambda c: with_dose(c, lambda d: np.where(np.indices(d.shape)[0] == 11, 0.0, d)),
        "dose_jump",
        "slice 11 is [0-9.]+ Gy off the mean of its neighbours",
    ),
    "another patient's image": (anothers_image, "image_place", "the skin contours fit the image better moved by"),
    "an image that shows no organ": (
        lambda c: replace(c, ct_hu=np.where(c.body, 30, -1000).astype(np.int16)),
        "image_fit",
        "the organ contours explain 0 % of the HU near them, wanted 18 % at least",
    ),
    "an image mirrored left to right": (
        lambda c: replace(c, ct_hu=np.ascontiguousarray(c.ct_hu[..., ::-1])),
        "image_place",
        r"contours fit the image better mirrored left to right \(",
    ),
    "an image moved by 6 mm to the left": (
        lambda c: replace(c, ct_hu=moved(c.ct_hu, 1, 2)),
        "image_place",
        r"the skin contours fit the image better moved by \+6\.0 mm along x",
    ),
    "an image moved by 6 mm to the back": (
        lambda c: replace(c, ct_hu=moved(c.ct_hu, 1, 1)),
        "image_place",
        r"the skin contours fit the image better moved by \+6\.0 mm along y",
    ),
    "an image moved by 6 mm to the head": (
        lambda c: replace(c, ct_hu=moved(c.ct_hu, 1, 0)),
        "image_place",
        r"the organ contours fit the image better moved by \+6\.0 mm along z",
    ),
    "a dose moved by 6 mm to the left": (
        lambda c: with_dose(c, lambda d: moved(d, 1, 2)),
        "dose_place",
        r"the main target fits the dose better moved by \+6\.0 mm along x \(\d+ % of the dose near its",
    ),
    "a mirrored dose of a plan that is alike to both sides": (
        lambda c: with_flank(c, of_dose=-1),
        "dose_place",
        r"the skin fits the dose better mirrored left to right \(\d+ % of the dose near it explained\) than in place",
    ),
    "one slice of air": (
        lambda c: replace(c, ct_hu=np.where(np.indices(c.ct_hu.shape)[0] == 11, -1000, c.ct_hu).astype(np.int16)),
        "slice_air",
        "slice 11 is 100 % air in the body",
    ),
    "a slice of the image that stands there twice": (
        lambda c: replace(c, ct_hu=c.ct_hu[[*range(11), 10, *range(12, 24)]]),
        "slice_repeat",
        "slice 10 is 100 % of the image as in the next slice",
    ),
    "a slice of the dose that stands there twice": (
        lambda c: with_dose(c, lambda d: d[[*range(11), 10, *range(12, 24)]]),
        "slice_repeat",
        "slice 10 is 100 % of the dose as in the next slice",
    ),
    "a slice of another place": (
        lambda c: replace(c, ct_hu=c.ct_hu[[*range(11), 2, *range(12, 24)]]),
        "slice_jump",
        "slice 11 is [0-9.]+ times as far off the mean of its neighbours",
    ),
    "an origin that is off by 50 mm": (
        lambda c: replace(c, grid=Grid(c.grid.shape_zyx, c.grid.spacing_mm, (-70.0, -117.0, -91.0))),
        "grid_place",
        r"begins at \(z, y, x\) = \(-70\.0, -117\.0, -91\.0\) mm, its raw image's grid .*-141\.0\) mm",
    ),
    "an image grid that nobody noted": (
        lambda c: with_meta(c, native_image_grid=None),
        "grid_unknown",
        "nobody noted where its raw image lies",
    ),
    "a plan whose meterset falls": (
        lambda c: with_meta(c, plan={"faults": ["Beam 1, control point 5: the cumulative meterset falls."]}),
        "plan_faults",
        "case_0001: its RTPLAN: Beam 1, control point 5: the cumulative meterset falls. Export the plan again",
    ),
    "a plan that nobody checked": (
        lambda c: with_meta(c, plan=None),
        "plan_unknown",
        "case_0001: nobody noted whether its RTPLAN is sound",
    ),
    "a case of another protocol": (
        lambda c: with_meta(c, protocol="head_neck_openkbp"),
        "identity",
        "made with protocol head_neck_openkbp, wanted prostate_sib",
    ),
    "a case of another modality": (lambda c: with_meta(c, modality="MR"), "identity", "made with modality MR"),
}


def unsaid(finding: Finding) -> set[tuple[str, str]]:
    """Gate and name of a finding's numbers that its sentence does not say, as they are or in percent."""
    found = set()
    for name, value in finding.numbers.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            texts = [str(one)]
            if isinstance(one, (int, float)):
                forms = ("g", ".0f", ".1f", ".2f", ".4g")
                texts = [re.escape(format(form_of, form)) for form in forms for form_of in (one, 100.0 * one)]
            if not re.search(rf"(?<![\w.])({'|'.join(texts)})(?!\w)", finding.message):
                found.add((finding.gate, name))
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gate_names(fault: str, healthy: Callable[[int], Case], judge: Judge) -> None:
    spoil, gate, message = FAULTS[fault]
    findings = [finding for finding in judge(spoil(healthy(1))).findings if finding.severity == "error"]
    assert gate in {finding.gate for finding in findings}, findings
    assert any(f.gate == gate and re.search(message, f.message) for f in findings), findings
    assert all(f.case_id == "case_0001" and "case_0001" in f.message for f in findings)
    assert {item for finding in findings for item in unsaid(finding)} <= UNSAID


def test_a_patient_without_a_flank_and_his_dose_go_together(healthy: Callable[[int], Case], judge: Judge) -> None:
    assert "dose_place" not in {finding.gate for finding in judge(with_flank(healthy(1))).findings}


def test_numbers_beside_a_sentence_are_those_of_the_case(healthy: Callable[[int], Case], judge: Judge) -> None:
    case = healthy(1)
    dose, inside = np.asarray(case.dose_gy), int(case.mask("Rectum").sum())

    def numbers(spoilt: Case, gate: str) -> dict[str, Any]:
        (finding,) = [f for f in judge(spoilt).findings if f.gate == gate]
        return finding.numbers

    thirtieth = numbers(with_dose(case, lambda d: d / 30.0), "dose_unit")
    assert thirtieth == pytest.approx(
        {"min_gy": dose.min() / 30.0, "max_gy": dose.max() / 30.0, "prescription_gy": 70.0}, rel=1e-5
    )
    lowered = numbers(with_dose(case, lambda d: d - 1.0), "dose_negative")
    assert lowered == pytest.approx({"min_gy": -1.0, "max_gy": dose.max() - 1.0, "prescription_gy": 70.0}, rel=1e-5)
    missing = numbers(replace(case, prescription_gy={"PTV70": 70.0}), "prescription")
    assert missing == {"structure": "PTV56", "found_gy": None, "wanted_gy": 56.0}
    positive = numbers(with_sdf(case, "Rectum", np.abs), "sdf_all_positive")
    assert positive == {"structure": "Rectum", "wrong_inside": inside, "wrong_outside": 0}
    turned = numbers(with_sdf(case, "Bladder", np.negative), "sdf_sign")
    bladder = case.mask("Bladder")
    assert turned == {
        "structure": "Bladder", "wrong_inside": int(bladder.sum()), "wrong_outside": int((~bladder).sum()),
    }  # fmt: skip


def test_parity_is_judged_on_the_images_own_grid_too(
    healthy: Callable[[int], Case], protocol: Protocol, limits: DataLimits
) -> None:
    native = protocol.model_copy(update={"spacing_mm": "native", "crop": "none"})
    assert judge_dose(healthy(1), native, limits) == []
    moved = with_parity_of(healthy(1), "PTV70", **{"D95%": healthy(1).meta["parity"]["PTV70"]["D95%"] + 11.0})
    (finding,) = judge_dose(moved, native, limits)
    assert finding.gate == "parity"
    assert "case_0001: resampling moved D95% of PTV70" in finding.message
    unknown = judge_dose(with_meta(healthy(1), parity={}), native, limits)
    assert {finding.gate for finding in unknown} == {"parity_unknown"}
    assert judge_dose(moved, native, limits.model_copy(update={"parity": None})) == []


def test_a_healthy_case_has_no_finding(healthy: Callable[[int], Case], judge: Judge) -> None:
    for number in range(1, 5):
        assert judge(healthy(number)).findings == ()


def test_a_case_under_another_pseudonym_than_its_row_is_named(
    healthy: Callable[[int], Case], protocol: Protocol, limits: DataLimits, tmp_path: Path
) -> None:
    case = healthy(1)
    case.save(tmp_path / "case_0001.npz")
    row = {**case.meta, "pseudonym": "phantom_case_0777", "sha256": "0" * 64}
    messages = [finding.message for finding in judge_case(tmp_path / "case_0001.npz", row, protocol, limits).findings]
    assert any("cases.csv says phantom_case_0777" in message for message in messages)
    assert any("SHA256" in message for message in messages)


@pytest.mark.parametrize("damage", ["meta", "spacing", "shape"])
def test_garbage_with_the_form_of_a_case_is_a_bad_case_and_no_crash(
    damage: str, healthy: Callable[[int], Case], protocol: Protocol, limits: DataLimits, tmp_path: Path
) -> None:
    case = healthy(1)
    path = tmp_path / "case_0001.npz"
    case.save(path)
    with np.load(path) as npz:
        arrays = dict(npz)
    if damage == "meta":
        arrays["meta"] = np.asarray(json.dumps({"nothing": 1}))
    elif damage == "spacing":
        arrays["spacing_mm"] = np.asarray([np.nan, 6.0, 6.0])
    else:
        arrays["dose_gy"] = arrays["dose_gy"][1:]
    write_npz(path, arrays)
    with pytest.raises(BadCase, match="case_0001"):
        judge_case(path, {**case.meta, "sha256": "0" * 64}, protocol, limits)
