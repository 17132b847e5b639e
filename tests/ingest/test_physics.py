"""Physics maps beside the cases: never of the dose, made once, and refused for another case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.files import sha256_of_file
from doseledger.core.physics import MAP_STEP_GY, as_steps, open_physics
from doseledger.core.pool.cluster import HERE
from doseledger.core.project.protocol import Beams
from doseledger.ingest.physics import field_case, make_cohort_physics, make_physics, projected, with_physics
from doseledger.learn.data.inputs import CaseFile, InputSpec, open_case, read_channels, spec_of
from doseledger.learn.predict.predictor import Predictor
from doseledger.learn.recipes.dose import InputRecipe, TrainedPart
from doseledger.learn.training.checkpoint import Checkpoint
from doseledger.planning.fields.maps import physics_maps

BEAMS = Beams(
    gantry_deg=[0.0, 90.0], bixel_mm=10.0, margin_mm=7.0, kernel_weights=(1.0, 1.0, 1.0, 1.0),
    maps=["conformal", "gathered"],
)  # fmt: skip
INPUTS = InputRecipe(
    structures="sdf", sdf_scale_mm=50.0, prescription="numbers_and_map", place="targets",
    physics=["gathered", "conformal"], dose_scale_gy=70.0,
)  # fmt: skip
MakeCase = Callable[..., Case]


def quiet(_line: str) -> None:
    """Tell nobody."""


@pytest.fixture
def cases(tmp_path: Path, make_case: MakeCase) -> Path:
    """Two cases in a folder."""
    for seed, name in enumerate(("case_0001", "case_0002")):
        make_case(name, seed=seed).save(tmp_path / "cases" / f"{name}.npz")
    return tmp_path / "cases"


def channels_of(path: Path, maps: Path) -> tuple[np.ndarray, InputSpec]:
    case = open_case(CaseFile(path.stem, path, sha256_of_file(path), maps))
    spec = spec_of([case], INPUTS)
    return read_channels(case, spec, case.whole), spec


def test_another_dose_leaves_every_channel_as_it_was(cases: Path, tmp_path: Path) -> None:
    seen = []
    case = Case.load(cases / "case_0001.npz")
    assert case.dose_gy is not None
    noise = np.random.default_rng(1).uniform(0.0, 90.0, case.dose_gy.shape).astype(np.float32)
    for name, dose_gy in (("as_planned", case.dose_gy), ("other", noise)):
        path, maps = tmp_path / name / "case_0001.npz", tmp_path / name / "maps.npz"
        replace(case, dose_gy=dose_gy).save(path)
        make_physics(path, BEAMS, maps)
        seen.append(channels_of(path, maps)[0])
    np.testing.assert_array_equal(*seen)


def test_where_a_dose_is_defined_is_no_matter_to_the_maps(cases: Path, tmp_path: Path) -> None:
    case = Case.load(cases / "case_0001.npz")
    nowhere = tmp_path / "case_0001.npz"
    replace(case, valid_dose=np.zeros_like(case.valid_dose)).save(nowhere)
    found = []
    for path in (cases / "case_0001.npz", nowhere):
        make_physics(path, BEAMS, tmp_path / "maps.npz")
        with np.load(tmp_path / "maps.npz") as npz:
            found.append(npz["conformal"])
    np.testing.assert_array_equal(*found)


def test_maps_are_the_last_channels_in_the_recipes_order(cases: Path, tmp_path: Path) -> None:
    path, maps = cases / "case_0001.npz", tmp_path / "maps.npz"
    make_physics(path, BEAMS, maps)
    channels, spec = channels_of(path, maps)
    assert len(channels) == spec.n_channels == spec.first_physics + 2
    with np.load(maps) as npz:
        steps = {name: npz[name] for name in BEAMS.maps}
    for channel, name in zip(channels[spec.first_physics :], INPUTS.physics, strict=True):
        np.testing.assert_allclose(channel, steps[name] * np.float32(MAP_STEP_GY / 70.0), rtol=1e-6)
    order = spec.mirrored_orders({"Femur_L": "Femur_R"})[0]
    assert order[-2:] == [spec.n_channels - 2, spec.n_channels - 1]


def test_a_dose_is_kept_in_steps_and_what_is_too_high_is_the_highest() -> None:
    assert as_steps(np.array([0.0, 0.16, 70.0, 99.0], dtype=np.float32)).tolist() == [0, 1, 233, 255]


def test_a_cohorts_maps_are_made_once_and_anew_for_a_changed_case(
    cases: Path, tmp_path: Path, make_case: MakeCase
) -> None:
    out, lines = tmp_path / "physics", []
    first = make_cohort_physics(cases, BEAMS, out, scale=HERE, tell=lines.append)
    assert len(lines) == 2
    again = make_cohort_physics(cases, BEAMS, out, scale=HERE, tell=lines.append)
    assert len(lines) == 2
    assert again.equals(first)
    make_case("case_0002", seed=7).save(cases / "case_0002.npz")
    changed = make_cohort_physics(cases, BEAMS, out, scale=HERE, tell=lines.append)
    assert lines[2:] == ["[1/1] case_0002"]
    assert (changed["sha256"] == first["sha256"]).tolist() == [True, False]
    other = BEAMS.model_copy(update={"gantry_deg": [0.0]})
    assert (make_cohort_physics(cases, other, out, scale=HERE, tell=quiet)["sha256"] != changed["sha256"]).all()


def test_a_case_without_a_target_is_told_with_its_reason_and_stops_no_other(cases: Path, tmp_path: Path) -> None:
    case = Case.load(cases / "case_0002.npz")
    nothing = np.zeros_like(case.masks)
    replace(case, masks=nothing, present=np.zeros_like(case.present)).save(cases / "case_0002.npz")
    table = make_cohort_physics(cases, BEAMS, tmp_path / "physics", scale=HERE, tell=quiet)
    assert table["reason"].tolist() == ["", "no target with a prescription is there to open fields to"]
    assert not (tmp_path / "physics/case_0002.npz").exists()


def test_without_beams_there_are_no_maps_and_the_table_is_empty(cases: Path, tmp_path: Path) -> None:
    assert make_cohort_physics(cases, None, tmp_path / "physics", scale=HERE, tell=quiet).empty
    assert [path.name for path in sorted((tmp_path / "physics").iterdir())] == ["keys.json", "physics.csv"]


def test_maps_of_another_case_are_refused(cases: Path, tmp_path: Path) -> None:
    make_physics(cases / "case_0001.npz", BEAMS, tmp_path / "maps.npz")
    with pytest.raises(NotReady, match=r"made of the case .* run `doseledger physics` again"):
        open_physics(tmp_path / "maps.npz", "case_0002", "0" * 64)
    with pytest.raises(NotReady, match=r"no physics maps absent\.npz; run `doseledger physics`"):
        open_physics(tmp_path / "absent.npz", "case_0002", "0" * 64)


def test_a_map_that_the_protocol_does_not_make_is_asked_for_by_name(cases: Path, tmp_path: Path) -> None:
    path, maps = cases / "case_0001.npz", tmp_path / "maps.npz"
    make_physics(path, BEAMS.model_copy(update={"maps": ["conformal"]}), maps)
    with pytest.raises(NotReady, match="asks for the map gathered, there are conformal"):
        channels_of(path, maps)


def test_a_projected_dose_is_one_that_the_beams_give_and_says_how_far_that_is(cases: Path, tmp_path: Path) -> None:
    path = cases / "case_0001.npz"
    file = CaseFile("case_0001", path, sha256_of_file(path))
    opened, case = open_case(file), Case.load(path)
    told = {"noise": np.random.default_rng(1).uniform(0, 70, case.grid.shape_zyx).astype(np.float32)}
    told["deliverable"] = physics_maps(field_case(case), BEAMS)["conformal"]
    apart = {}
    for name, dose_gy in told.items():
        model = Checkpoint(
            "dose_unet", TrainedPart(kind="dose", inputs=INPUTS), {}, (), (), ((), ()), {}, {}, 1, {}, {},
            BEAMS.model_dump(mode="json"),
        )  # fmt: skip
        predictor = Predictor(model, "", {"project": True}, lambda _case, dose_gy=dose_gy: {"dose_gy": dose_gy})
        arrays = projected(predictor).predict(opened)
        assert not arrays["dose_gy"][~(case.body & case.valid_dose)].any()
        apart[name] = float(arrays["undeliverable_gy"])
        as_it_is = replace(predictor, settings={"project": False})
        assert projected(as_it_is) is as_it_is
    assert apart["deliverable"] < 0.5 < 5.0 < apart["noise"]
    without = replace(predictor, checkpoint=replace(model, beams=None))
    with pytest.raises(BadInput, match=r"dose_unet: predict\.project is on, but the model was trained without"):
        projected(without)


def test_a_new_patient_gets_the_maps_of_the_models_own_beams(cases: Path, tmp_path: Path) -> None:
    path = cases / "case_0001.npz"
    file = CaseFile("case_0001", path, sha256_of_file(path))
    assert with_physics(file, None, tmp_path) is file
    case = open_case(with_physics(file, BEAMS.model_dump(mode="json"), tmp_path))
    assert case.physics is not None
    assert case.physics.beams == BEAMS.model_dump(mode="json")
    alone = Case.load(path)
    replace(alone, masks=np.zeros_like(alone.masks), present=np.zeros_like(alone.present)).save(path)
    with pytest.raises(BadCase, match="no target"):
        with_physics(file, BEAMS.model_dump(mode="json"), tmp_path)


def test_maps_in_which_one_byte_flipped_are_refused(cases: Path, tmp_path: Path) -> None:
    path, sha256 = tmp_path / "maps.npz", sha256_of_file(cases / "case_0001.npz")
    make_physics(cases / "case_0001.npz", BEAMS, path)
    open_physics(path, "case_0001", sha256)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"maps\.npz: .*\.npy is not what was written .* run `doseledger verify`"):
        open_physics(path, "case_0001", sha256)
