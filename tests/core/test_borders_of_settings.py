"""Each number of settings, protocols and goals: the last that is taken, and the first that is not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.project.protocol import Beams, Goal, GoalSet, PatientRule, Protocol, Structure
from doseledger.core.schema import load_block
from doseledger.core.settings import Settings, load_settings

# Key, what is taken, what is refused.
OF_SETTINGS: list[tuple[str, list[object], list[object]]] = [
    ("lr", [1e-9], [0.0]),
    ("fold", [0], [-1]),
    ("repeat", [0], [-1]),
    ("models", [["dose_trees", "dose_unet", "dose_trees"]], [[]]),
    ("scale.workers", [1], [0]),
    ("phantom.n_patients", [1], [0]),
    ("phantom.in_plane_pixels", [1], [0]),
    ("phantom.segments_per_arc", [1], [0]),
    ("phantom.iterations", [1], [0]),
    ("phantom.attempts", [1], [0]),
    ("phantom.dose_grid_mm", [0.01], [0.0]),
    ("phantom.near_bowel_share", [0.0, 1.0], [-0.01, 1.01]),
    ("splits.n_folds", [2], [1]),
    ("splits.n_repeats", [1], [0]),
    ("splits.fractions.val", [], [-0.15]),
    ("train.devices", [1], [0]),
    ("train.nodes", [1], [0]),
    ("train.checkpoint_steps", [0], [-1]),
    ("train.watchdog.silence_seconds", [0.5], [0.0]),
    ("train.watchdog.first_batch_seconds", [0.5], [0.0]),
    ("train.watchdog.tries", [1], [0]),
    ("evaluate.gamma.0.gamma_percent", [0.5], [0.0]),
    ("evaluate.gamma.0.gamma_mm", [0.5], [0.0]),
    ("evaluate.gamma.0.cutoff_percent", [0.0, 99.9], [-0.1, 100.0]),
    ("evaluate.gamma.0.interp_fraction", [1], [0]),
    ("evaluate.gamma.0.max_gamma", [0.5], [0.0]),
    ("evaluate.verify_gamma_points", [0], [-1]),
    ("evaluate.surface_tolerance_mm", [0.5], [0.0]),
    ("deliver.segments_per_arc", [1], [0]),
    ("deliver.iterations", [1], [0]),
    ("deliver.n_points", [1], [0]),
    ("deliver.mu_weight", [0.0], [-0.1]),
    ("deliver.edge_weight", [0.0], [-0.1]),
    ("deliver.outline_margin_mm", [0.0], [-0.1]),
    ("report.figure_dpi", [1], [0]),
]
BEAMS: dict[str, Any] = {
    "gantry_deg": [0.0], "bixel_mm": 5.0, "margin_mm": 0.0, "kernel_weights": [1.0, 0.0, 0.0, 0.0], "maps": ["plan"],
    "plan": {"falloff_mm": 8.0, "floor_share": 0.5, "ring_weight": 1.0, "organ_max_gy": {}, "organ_mean_weight": 1.0,
             "smoothness": 1.0, "evaluations": 9},
}  # fmt: skip
OF_BEAMS: list[tuple[str, list[object], list[object]]] = [
    ("gantry_deg", [[10.0]], [[]]),
    ("bixel_mm", [2.5, 7.5], [0.0, -2.5, 6.0]),
    ("margin_mm", [0.0], [-0.1]),
    ("kernel_weights", [[0.0, 0.0, 0.0, 0.1]], [[0.0] * 4, [0.0, 0.0, 0.0, -1.0]]),
    ("maps", [["conformal", "plan"]], [[], ["plan", "plan"], ["none"]]),
    ("plan", [], [None]),
    ("plan.falloff_mm", [0.1], [0.0]),
    ("plan.floor_share", [0.0, 0.99], [-0.01, 1.0]),
    ("plan.ring_weight", [0.0], [-0.1]),
    ("plan.organ_max_gy", [{"Rectum": 0.1}], [{"Rectum": 0.0}]),
    ("plan.organ_mean_weight", [0.0], [-0.1]),
    ("plan.smoothness", [0.0], [-0.1]),
    ("plan.evaluations", [1], [0]),
]
OF_PROTOCOL: list[tuple[str, list[object], list[object]]] = [
    ("sdf_clip_mm", [0.1], [0.0]),
    ("crop.margin_mm", [0.0], [-0.1]),
    ("spacing_mm", [[0.1, 0.1, 0.1]], [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0], "native"]),
    ("most_tilt_deg", [0.0, 45.0], [-0.1, 45.1]),
    ("prescription_gy.PTV70", [0.1], [0.0]),
    ("structures.0.label", [1, 65535, None], [0, 65536]),
    ("structures.0.aliases", [None, []], ["PTV"]),
    ("structures.0.kind", ["organ"], ["bone"]),
    ("objects", [["ct", "rtstruct"]], [[], ["ct", "mr"]]),
    ("phi", [], [None]),
    ("phi.pseudonym", ["x"], ["("]),
    ("modality", ["MR"], ["PT"]),
    ("skip_when.any_absent", [["Bowel"]], [["Liver"]]),
    ("n_fractions", [None, 5], ["many"]),
]


def with_value(block: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(block)
    at: Any = changed
    *way, last = [int(word) if word.isdigit() else word for word in key.split(".")]
    for word in way:
        at = at[word]
    at[last] = value
    return changed


@pytest.fixture(scope="module")
def params(repository: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(repository / "params.yaml")
    known = set(Settings.model_fields)
    return {
        **{key: value for key, value in content.items() if key in known},
        "blocks": {key: value for key, value in content.items() if key not in known},
    }


@pytest.fixture(scope="module")
def prostate(repository: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(repository / "validation/cohorts/phantom/protocol.yaml")
    return {key: value for key, value in content.items() if key != "beams"}


@pytest.mark.parametrize(("key", "taken", "refused"), OF_SETTINGS, ids=[row[0] for row in OF_SETTINGS])
def test_settings_take_a_number_up_to_its_border(key: str, taken: list, refused: list, params: dict[str, Any]) -> None:
    for value in taken:
        load_block(Settings, with_value(params, key, value), "params.yaml")
    for value in refused:
        with pytest.raises(BadInput, match=rf"params\.yaml: {key.rpartition('.')[0]}"):
            load_block(Settings, with_value(params, key, value), "params.yaml")


@pytest.mark.parametrize(("key", "taken", "refused"), OF_BEAMS, ids=[row[0] for row in OF_BEAMS])
def test_beams_take_a_number_up_to_its_border(key: str, taken: list, refused: list) -> None:
    assert load_block(Beams, {**BEAMS, "maps": ["conformal"], "plan": None}, "beams").plan is None
    for value in taken:
        load_block(Beams, with_value(BEAMS, key, value), "beams")
    for value in refused:
        with pytest.raises(BadInput, match="beams: "):
            load_block(Beams, with_value(BEAMS, key, value), "beams")


@pytest.mark.parametrize(("key", "taken", "refused"), OF_PROTOCOL, ids=[row[0] for row in OF_PROTOCOL])
def test_a_protocol_takes_a_value_up_to_its_border(
    key: str, taken: list, refused: list, prostate: dict[str, Any]
) -> None:
    for value in taken:
        changed = with_value(prostate, key, value)
        changed["prescription_gy"] = changed["prescription_gy"] if "rtdose" in changed["objects"] else {}
        load_block(Protocol, changed, "protocol")
    for value in refused:
        with pytest.raises(BadInput, match="protocol: "):
            load_block(Protocol, with_value(prostate, key, value), "protocol")


def test_beams_need_a_ct_a_prescription_and_known_organs(prostate: dict[str, Any]) -> None:
    protocol = load_block(Protocol, {**prostate, "beams": BEAMS}, "protocol")
    assert protocol.beams is not None
    dry = {**prostate, "objects": ["ct"], "prescription_gy": {}}
    for bad in ({**prostate, "modality": "MR"}, dry):
        with pytest.raises(BadInput, match="beams need a CT and a prescription"):
            load_block(Protocol, {**bad, "beams": BEAMS}, "protocol")
    strange = with_value(BEAMS, "plan.organ_max_gy", {"Rectum": 40.0, "Liver": 5.0})
    with pytest.raises(BadInput, match=r"beams\.plan\.organ_max_gy names Liver, not among the structures"):
        load_block(Protocol, {**prostate, "beams": strange}, "protocol")
    assert load_block(Protocol, {**prostate, "crop": "none", "spacing_mm": "native"}, "p").spacing_mm == "native"


def nifti(**changes: object) -> dict[str, Any]:
    labels = [{"name": name, "kind": "organ", "label": n} for n, name in ((2, "Front"), (7, "Back"))]
    return {
        "name": "brain", "title": "t", "source": "nifti", "modality": "MR", "spacing_mm": "native", "crop": "none",
        "sdf_clip_mm": 5.0, "structures": labels, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"objects": ["ct"]}, {"body_names": ["BODY"]}, {"phi": {"pseudonym": "x"}},
        {"prescription_gy": {"Front": 1.0}},
        {"structures": [{"name": "Front", "kind": "organ"}]},
        {"structures": [{"name": n, "kind": "organ", "label": 2} for n in ("Front", "Back")]},
    ],
)  # fmt: skip
def test_a_protocol_of_nifti_has_labels_and_nothing_of_dicom(change: dict[str, Any]) -> None:
    load_block(Protocol, nifti(), "protocol")
    with pytest.raises(BadInput, match="a protocol of NIfTI"):
        load_block(Protocol, nifti(**change), "protocol")


def test_what_a_protocol_says_where_its_keys_are_left_out() -> None:
    protocol = load_block(Protocol, nifti(), "protocol")
    assert (protocol.objects, protocol.prescription_gy, protocol.body_names, protocol.most_tilt_deg) == ([], {}, [], 0)
    assert (protocol.n_fractions, protocol.has_dose, protocol.target_names, protocol.proposed) == (None, False, (), {})
    assert [structure.required for structure in protocol.structures] == [True, True]
    block = {"name": "PTV 1", "kind": "target", "aliases": ["ptv-1", "PTVx"], "proposed": ["Y"]}
    structure = load_block(Structure, block, "s")
    assert structure.folded_names == ["ptv1", "ptvx"]
    assert structure.model_dump() == {
        "name": "PTV 1", "kind": "target", "required": True, "label": None, "aliases": ["ptv-1", "PTVx"],
    }  # fmt: skip
    two = load_block(Protocol, nifti(structures=[{**block, "label": 1}]), "protocol")
    assert (two.proposed, two.target_names, two.structure_names) == ({"PTV 1": ["Y"]}, ("PTV 1",), ("PTV 1",))


@pytest.mark.parametrize(
    ("cases", "name", "patient"),
    [
        (1, "p7", "7"), (1, "p007", "007"), (1, "q7", None), (1, "p7x", None), (2, "p1", "patient_1"),
        (2, "p2", "patient_1"), (2, "p3", "patient_2"), (3, "p3", "patient_1"), (3, "p4", "patient_2"), (2, "px", None),
    ],
)  # fmt: skip
def test_so_many_cases_in_a_row_are_of_one_patient(cases: int, name: str, patient: str | None) -> None:
    assert load_block(PatientRule, {"pattern": r"p(\d+|x)", "cases": cases}, "patient").patient_of(name) == patient
    for bad in ({"pattern": "p", "cases": 1}, {"pattern": "(p)(q)", "cases": 1}, {"pattern": "(p)", "cases": 0}):
        with pytest.raises(BadInput, match="patient: "):
            load_block(PatientRule, bad, "patient")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "Rectum V65Gy ≤ 15 %"),
        ({"operator": ">=", "unit": "Gy", "limit": 2.5}, "Rectum V65Gy ≥ 2.5 Gy"),
        ({"unit": "1", "minus": ["PTV70", "PTV56"]}, "Rectum minus (PTV70 + PTV56 + 0 mm) V65Gy ≤ 15"),
        ({"minus": ["PTV70"], "minus_margin_mm": 3.5}, "Rectum minus (PTV70 + 3.5 mm) V65Gy ≤ 15 %"),
    ],
)
def test_a_goal_is_called_by_all_that_it_says(change: dict[str, Any], name: str) -> None:
    goal = {"structure": "Rectum", "statistic": "V65Gy", "operator": "<=", "limit": 15.0, "unit": "%", "source": "x"}
    made = load_block(Goal, {**goal, **change}, "goal")
    assert made.name == name
    assert (made.gating, made.acceptable) == (True, None)
    with pytest.raises(BadInput, match="minus_margin_mm"):
        load_block(
            GoalSet, {"name": "a", "protocol": "b", "title": "c", "goals": [{**goal, "minus_margin_mm": -1}]}, "g"
        )


def test_a_circle_of_bases_and_parts_is_walked_once(params: dict[str, Any]) -> None:
    blocks = {name: {"kind": "dose"} for name in ("a", "b", "c")} | {"m": {"kind": "mean", "weights": {"b": 1, "c": 2}}}
    base = {**params, "models": ["a", "b", "c", "m"], "bases": {"a": "m", "b": "c"}, "part_of": {"b": "m", "c": "m"}}
    settings = load_block(Settings, {**base, "blocks": blocks}, "params.yaml")
    assert settings._behind("a") == {"a", "m", "b", "c"}
    assert (settings.parts_of("m"), settings.parts_of("a"), settings.model("a")) == (["b", "c"], [], {"kind": "dose"})
    for bases in ({"b": "a", "a": "m"}, {"m": "a", "a": "m"}):
        with pytest.raises(BadInput, match="must not start from"):
            load_block(Settings, {**base, "blocks": blocks, "bases": bases}, "params.yaml")
    with pytest.raises(BadInput, match="has no block 'zzz'; model blocks there: a, b, c, m"):
        settings.model("zzz")


@pytest.mark.parametrize(
    ("contours", "message"),
    [
        ({"a": "s"}, ""), ({"s": "s"}, "is given those of"), ({"a": "a"}, "is given those of"),
        ({"a": "zzz"}, "is given those of"), ({"zzz": "s"}, "is given those of"),
    ],
)  # fmt: skip
def test_contours_are_given_to_a_dose_model_by_a_segmentation(
    contours: dict[str, str], message: str, params: dict[str, Any]
) -> None:
    blocks = {"a": {"kind": "dose"}, "s": {"kind": "segmentation"}}
    value = {**params, "models": ["a", "s"], "bases": {}, "part_of": {}, "blocks": blocks, "contours": contours}
    if not message:
        assert load_block(Settings, value, "p").contours == contours
        return
    with pytest.raises(BadInput, match=message):
        load_block(Settings, value, "p")


def test_init_from_a_model_of_these_settings_is_named_in_bases(params: dict[str, Any]) -> None:
    blocks = {"a": {"kind": "dose"}, "b": {"kind": "dose", "init_from": "a"}}
    value = {**params, "models": ["a", "b"], "bases": {}, "part_of": {}, "contours": {}, "blocks": blocks}
    with pytest.raises(BadInput, match="b: init_from a is a model of these settings; write `b: a` under bases too"):
        load_block(Settings, value, "p")
    assert load_block(Settings, {**value, "bases": {"b": "a"}}, "p").bases == {"b": "a"}
    of_all = {**value, "model_base": {"init_from": "a"}, "blocks": {"a": {"kind": "dose"}, "b": {"kind": "dose"}}}
    with pytest.raises(BadInput, match="init_from a is a model of these settings"):
        load_block(Settings, {**of_all, "bases": {"b": "a"}}, "p")


def test_a_mapping_without_a_kind_is_a_misspelt_key(repository: Path, tmp_path: Path) -> None:
    text = (repository / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text + "\nphantm:\n  seed: 1\n")
    with pytest.raises(BadInput, match="phantm: Extra inputs are not permitted"):
        load_settings(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- a\n")
    with pytest.raises(BadInput, match=r"params\.yaml: wanted a mapping of settings, found list"):
        load_settings(tmp_path / "params.yaml")
