"""The dose that is known before a network has said a word."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import sha256_of_file
from doseledger.dicom.distance import signed_distance
from doseledger.learn.data.inputs import OFFSET_SCALE_MM, CaseFile, InputSpec, OpenCase, open_case, spec_of
from doseledger.learn.data.patches import mirror_inputs, read_inputs, read_sample
from doseledger.learn.networks import mean_dose
from doseledger.learn.networks.mean_dose import BY_DISTANCE, BY_PLACE, EDGE_MM, MARGIN_MM, Lattice, MeanDose
from doseledger.learn.recipes.dose import Recipe

MakeRecipe = Callable[..., Recipe]
# PTV70 and PTV56, one organ between them, so that a target's place among structures is not its place among targets.
NAMES, TARGETS = ("PTV70", "Rectum", "PTV56"), ("PTV70", "PTV56")


@pytest.fixture
def spec(make_recipe: MakeRecipe) -> InputSpec:
    return InputSpec(NAMES, TARGETS, make_recipe().inputs)


def ask(prior: MeanDose, spec: InputSpec, lines: dict[str, list[float]], prescribed: Any, present: Any) -> Tensor:
    """The prior along a line of voxels: `lines` holds distances to structures and offsets along z, y or x, in mm."""
    length = len(next(iter(lines.values())))
    image = torch.zeros(1, spec.n_channels, 1, 1, length)
    for name, values in lines.items():
        if name in "zyx":
            image[0, spec.first_offset + "zyx".index(name), 0, 0] = torch.tensor(values) / OFFSET_SCALE_MM
        else:
            channel = spec.first_structure + NAMES.index(name)
            image[0, channel, 0, 0] = torch.tensor(values) / spec.recipe.sdf_scale_mm
    condition = torch.zeros(1, spec.n_conditions)
    condition[0, :3] = torch.tensor([float(there) for there in present])
    condition[0, 3:5] = torch.tensor(prescribed)
    return prior(image, condition)[0, 0, 0, 0].detach()


def test_deep_in_a_target_the_prior_is_its_prescription_and_the_highest_where_two_overlap(spec: InputSpec) -> None:
    distances = {"PTV70": [-40.0, 40.0], "PTV56": [-45.0, -45.0], "Rectum": [-45.0, -45.0]}
    dose = ask(MeanDose(spec), spec, distances, (1.0, 0.8), (1, 1, 1))
    torch.testing.assert_close(dose, torch.tensor([1.0, 0.8]), rtol=0, atol=1e-4)


def ramp(lattice: Lattice) -> Tensor:
    """Values that rise from the lattice's first point on: by 0.001 a mm along its first axis, then 0.002 and 0.003."""
    first, second, third = (step * np.arange(n) for step, n in zip(lattice.step_mm, lattice.points, strict=True))
    return torch.from_numpy(1e-3 * first[:, None, None] + 2e-3 * second[:, None] + 3e-3 * third)


def on_ramp(lattice: Lattice, *coordinates_mm: float) -> float:
    from_first = (c - first for c, first in zip(coordinates_mm, lattice.first_mm, strict=True))
    return sum(slope * c for slope, c in zip((1e-3, 2e-3, 3e-3), from_first, strict=True))


def test_outside_it_falls_to_the_mean_dose_of_its_place(spec: InputSpec) -> None:
    prior = MeanDose(spec)
    prior.by_place.copy_(ramp(BY_PLACE))
    prior.place_share.fill_(1.0)
    lines = {"PTV70": [50.0] * 4, "PTV56": [50.0, 50.0, 50.0, 4.0]}
    offsets = {"z": [0.0, -180.0, 52.5, 0.0], "y": [0.0, -180.0, -20.0, -180.0], "x": [0.0, 0.0, 33.0, 0.0]}
    mean = [on_ramp(BY_PLACE, *at) for at in zip(*offsets.values(), strict=True)]
    mean[3] = max(mean[3], 0.8 / (1 + math.exp((4.0 - MARGIN_MM) / EDGE_MM)))
    dose = ask(prior, spec, {**lines, **offsets}, (1.0, 0.8), (1, 1, 1))
    torch.testing.assert_close(dose, torch.tensor(mean), rtol=1e-4, atol=1e-5)
    # Beyond the lattice its edge holds.
    beyond = ask(prior, spec, {"PTV70": [50.0], "PTV56": [50.0], "z": [500.0]}, (1.0, 0.8), (1, 1, 1))
    torch.testing.assert_close(beyond, torch.tensor([0.36 + 0.36]), rtol=1e-4, atol=1e-5)


def test_or_to_the_mean_dose_of_its_distance_to_the_main_target_and_to_the_nearest(spec: InputSpec) -> None:
    prior = MeanDose(spec)
    prior.by_distance.copy_(ramp(BY_DISTANCE))
    lines = {"PTV70": [50.0, 33.0, 20.0], "PTV56": [50.0, 21.0, 42.0], "z": [0.0, -35.0, 115.0]}
    # With PTV70 absent, PTV56 is the main target and the nearest.
    both = [(0.0, 50.0, 50.0), (-35.0, 33.0, 21.0), (115.0, 20.0, 20.0)]
    dose = ask(prior, spec, lines, (1.0, 0.8), (1, 1, 1))
    torch.testing.assert_close(dose, torch.tensor([on_ramp(BY_DISTANCE, *at) for at in both]), rtol=1e-4, atol=1e-5)
    alone = ask(prior, spec, {**lines, "PTV70": [50.0] * 3}, (1.0, 0.8), (0, 1, 1))
    wanted = [0.8 * on_ramp(BY_DISTANCE, z, s, s) for z, s in zip(lines["z"], lines["PTV56"], strict=True)]
    torch.testing.assert_close(alone, torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_the_two_means_are_mixed_by_their_share(spec: InputSpec) -> None:
    prior = MeanDose(spec)
    prior.by_place.fill_(0.4)
    prior.by_distance.fill_(0.2)
    prior.place_share.fill_(0.75)
    dose = ask(prior, spec, {"PTV70": [50.0], "PTV56": [50.0]}, (1.0, 0.8), (1, 1, 1))
    torch.testing.assert_close(dose, torch.tensor([0.35]))


@pytest.mark.parametrize("lattice", [BY_PLACE, BY_DISTANCE])
def test_the_nearest_point_of_a_lattice_is_where_interpolation_has_its_value(lattice: Lattice) -> None:
    values = torch.rand(lattice.points)
    index = np.random.default_rng(0).integers(0, lattice.points, (50, 3))
    coordinates = torch.from_numpy(np.array(lattice.first_mm) + np.array(lattice.step_mm) * index).float()
    found = lattice.interpolate(values, coordinates.view(1, 1, 1, -1, 3)).view(-1)
    torch.testing.assert_close(found, values.view(-1)[lattice.nearest(coordinates)], rtol=0, atol=1e-4)
    near = coordinates + torch.tensor(lattice.step_mm) * 0.45 * (2 * torch.rand(50, 3) - 1)
    np.testing.assert_array_equal(lattice.nearest(near), np.ravel_multi_index(tuple(index.T), lattice.points))
    far = torch.tensor([[-1e4, -1e4, -1e4], [1e4, 1e4, 1e4]])
    assert lattice.nearest(far).tolist() == [0, math.prod(lattice.points) - 1]


def test_a_prescription_is_followed_whole_and_an_absent_target_gives_nothing(spec: InputSpec) -> None:
    prior = MeanDose(spec)
    prior.by_distance.fill_(0.3)
    lines = {"PTV70": [50.0, 50.0], "PTV56": [-30.0, 10.0]}
    alone = ask(prior, spec, lines, (1.0, 0.8), (0, 1, 1))
    torch.testing.assert_close(alone, ask(prior, spec, lines, (2.0, 0.8), (0, 1, 1)))
    torch.testing.assert_close(1.1 * alone, ask(prior, spec, lines, (1.1, 0.88), (0, 1, 1)))
    assert not ask(prior, spec, lines, (1.0, 0.8), (0, 0, 0)).any()


def test_edges_are_learned_and_the_mean_is_not(spec: InputSpec) -> None:
    prior = MeanDose(spec)
    image = torch.linspace(-1, 1, 2 * spec.n_channels * 6).view(2, spec.n_channels, 1, 2, 3)
    prior(image, torch.ones(2, spec.n_conditions)).sum().backward()
    assert {name for name, _ in prior.named_parameters()} == {"margin_mm", "log_edge_mm"}
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in prior.parameters())
    assert {"by_place", "by_distance", "place_share"} < set(prior.state_dict())


def test_the_means_are_those_of_the_training_cases_about_their_targets_both_sides_alike(
    cohort: Any, make_recipe: MakeRecipe
) -> None:
    opened = cohort.open()
    prior = MeanDose(spec_of(opened, make_recipe().inputs))
    prior.fit(opened)
    sums: list[dict[tuple[int, ...], list[float]]] = [{}, {}]
    for case in opened:
        loaded, place = Case.load(case.file.path), case.place
        assert loaded.dose_gy is not None
        assert place is not None
        _, y_centre, x_centre = np.argwhere(loaded.mask("PTV70")).mean(axis=0)
        sdf_mm = np.clip(loaded.sdf_mm[[loaded.structure_names.index(n) for n in TARGETS]].astype(float), -50, 50)
        for z, y, x in np.argwhere(loaded.valid_dose & loaded.body):
            along = float(place.along_mm(np.array([z]), 6.0)[0])
            at_place = along, (y - y_centre) * 6.0, abs(x - x_centre) * 6.0
            at_distance = along, sdf_mm[0, z, y, x], sdf_mm[:, z, y, x].min()
            for kept, lattice, at in zip(sums, (BY_PLACE, BY_DISTANCE), (at_place, at_distance), strict=True):
                steps = (np.float32(at) - np.float32(lattice.first_mm)) / np.float32(lattice.step_mm)
                point = tuple(np.clip(np.rint(steps), 0, np.array(lattice.points) - 1).astype(int))
                kept.setdefault(point, []).append(loaded.dose_gy[z, y, x] / 70.0)
    for kept, found in zip(sums, (prior.by_place, prior.by_distance), strict=True):
        errors = [abs(float(found[point]) - np.mean(doses)) for point, doses in kept.items()]
        # A voxel halfway between two points may fall to either by its last bit.
        assert np.quantile(errors, 0.98) < 1e-5
        assert max(errors) < 0.1
    assert prior.by_place.max() > 0.9


def test_a_point_that_no_voxel_reached_has_the_mean_of_the_nearest_that_one_did(
    cohort: Any, make_recipe: MakeRecipe
) -> None:
    prior = MeanDose(spec_of(cohort.open(), make_recipe().inputs))
    prior.fit(cohort.open())
    # Deep in both targets, slices far beyond their ends: there is no such voxel.
    assert prior.by_distance[0, 0, 0] > 0.5
    # A body of 260 mm ends long before the lattice does.
    torch.testing.assert_close(prior.by_place[36, 36, -1], prior.by_place[36, 36, -10])


def one_sided(case: Case, side: int, by_place: bool) -> Case:
    """A case with PTV56 on one side alone; its dose is told by the place about PTV70, or by distance to PTV56."""
    z, y, x = np.meshgrid(*case.grid.axes_mm(), indexing="ij")
    masks, sdf_mm = case.masks.copy(), case.sdf_mm.copy()
    low = z**2 + y**2 + (x - 70.0 * side) ** 2 < 30.0**2
    index = case.structure_names.index("PTV56")
    masks[index], sdf_mm[index] = low, signed_distance(low, case.grid, 50.0)
    centre = case.grid.index_to_mm(np.argwhere(case.mask("PTV70")).mean(axis=0))
    from_centre = np.sqrt((y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    gone = from_centre / 60.0 if by_place else np.maximum(sdf_mm[index].astype(float), 0.0) / 20.0
    return replace(case, masks=masks, sdf_mm=sdf_mm, dose_gy=(70.0 * np.exp(-gone) * case.body).astype(np.float32))


@pytest.mark.parametrize("by_place", [True, False])
def test_the_mean_that_tells_the_others_doses_has_the_larger_share(
    tmp_path: Path, make_case: Callable[..., Case], make_recipe: MakeRecipe, by_place: bool
) -> None:
    opened = []
    for number, side in enumerate((-1, 1, 1, -1)):
        path = tmp_path / f"case_{number}.npz"
        one_sided(make_case(f"case_{number}", seed=number), side, by_place).save(path)
        opened.append(open_case(CaseFile(f"case_{number}", path, sha256_of_file(path))))
    prior = MeanDose(spec_of(opened, make_recipe().inputs))
    prior.fit(opened)
    assert prior.place_share > 0.8 if by_place else prior.place_share < 0.2
    # One case alone has no others to ask: its targets may lie anywhere in the next patient.
    prior.fit(opened[:1])
    assert prior.place_share == 0.0


def test_of_many_cases_some_evenly_spread_are_taken(
    cohort: Any, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = cohort.open()
    assert len(opened) == 3
    some, all_of_fewer = (MeanDose(spec_of(opened, make_recipe().inputs)) for _ in range(2))
    all_of_fewer.fit([opened[0], opened[2]])
    monkeypatch.setattr(mean_dose, "MOST_CASES", 2)
    some.fit(opened)
    for name, values in some.state_dict().items():
        torch.testing.assert_close(values, all_of_fewer.state_dict()[name], rtol=0, atol=0)


def test_left_out_a_training_case_is_told_as_by_a_mean_of_the_others(cohort: Any, make_recipe: MakeRecipe) -> None:
    opened = cohort.open()
    spec = spec_of(opened, make_recipe().inputs)
    prior, others = MeanDose(spec), MeanDose(spec)
    prior.fit(opened, leave_out=True)
    others.fit(opened[1:])
    # Of two cases left, how to mix is found anew; the means are what is compared.
    others.place_share.copy_(prior.place_share)
    sample = read_sample(opened[0], spec, opened[0].whole)
    image, condition = (torch.from_numpy(sample[name])[None] for name in ("image", "condition"))
    with torch.no_grad():
        left_out = prior(image, condition, [opened[0].case_id])
        torch.testing.assert_close(left_out, others(image, condition), rtol=1e-4, atol=1e-4)
        assert (left_out - prior(image, condition)).abs().max() > 0.01
        stranger = prior(image, condition, ["case_9999"])
        torch.testing.assert_close(stranger, prior(image, condition), rtol=0, atol=0)
    assert set(prior.state_dict()) == set(others.state_dict())


def changed(case: OpenCase, **values: Any) -> OpenCase:
    replace(Case.load(case.file.path), **values).save(case.file.path)
    return open_case(replace(case.file, sha256=sha256_of_file(case.file.path)))


def test_a_mean_of_no_dose_is_refused(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    loaded = Case.load(case.file.path)
    masks, present = loaded.masks.copy(), loaded.present.copy()
    for name in TARGETS:
        masks[loaded.structure_names.index(name)] = False
        present[loaded.structure_names.index(name)] = False
    spec = spec_of([case], make_recipe().inputs)
    with pytest.raises(BadInput, match="no training case with a target and a dose to take a mean of"):
        MeanDose(spec).fit([changed(case, masks=masks, present=present)])


def test_a_dose_that_is_not_finite_is_refused_by_its_case(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    dose_gy = Case.load(case.file.path).dose_gy
    assert dose_gy is not None
    dose_gy = dose_gy.copy()
    dose_gy[10, 20, 20] = np.nan
    with pytest.raises(BadCase, match=f"{case.case_id}: its dose is not finite"):
        MeanDose(spec_of([case], make_recipe().inputs)).fit([changed(case, dose_gy=dose_gy)])


def test_the_prior_of_the_mirrored_patient_is_the_mirrored_prior(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    spec = spec_of([case], make_recipe().inputs)
    sample = read_inputs(case, spec, ((0, 0, 0), case.shape_zyx))
    prior, orders = MeanDose(spec), spec.mirrored_orders({"Femur_L": "Femur_R"})
    prior.fit(cohort.open())

    def dose(inputs: dict[str, Any]) -> Tensor:
        image, condition = (torch.from_numpy(inputs[name].copy())[None] for name in ("image", "condition"))
        return prior(image, condition).detach()

    torch.testing.assert_close(dose(mirror_inputs(sample, orders)).flip(-1), dose(sample))
