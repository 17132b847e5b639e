"""Models that others start from: which are taken, and what is said of each that is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.learn.families import cross_fit
from doseledger.learn.families.bases import check_base, check_part, check_told, check_trees, refuse_untold
from doseledger.learn.families.cross_fit import CrossFit, Drawn, error_gy, fold_numbers, grow_cross_fitted
from doseledger.learn.families.segmentation import dice_error
from doseledger.learn.networks.trees import FINAL

BEAMS = {"gantry_deg": [0.0, 120.0, 240.0]}


def case(name: str, sha256: str, beams: Any = BEAMS) -> Any:
    physics = None if beams is None else SimpleNamespace(beams=beams)
    return SimpleNamespace(case_id=name, file=SimpleNamespace(sha256=sha256), physics=physics)


TRAIN, VAL = [case("a", "1"), case("b", "2")], [case("c", "3")]
BOTH: Any = {"train": TRAIN, "val": VAL}
# Preflight opens a case or two of training alone.
FEW: Any = {"train": TRAIN[:1]}
SPEC: Any = SimpleNamespace(structure_names=("PTV70", "Rectum"), target_names=("PTV70",))


def run_of(**changes: Any) -> Any:
    values = {
        "model": "mine",
        "recipe": SimpleNamespace(physics=["conformal", "plan"]),
        "ancestors": (),
        "parent": None,
    }
    return SimpleNamespace(**{**values, **changes})


def part_of(**changes: Any) -> Any:
    values = {
        "model": "part", "structure_names": ("PTV70", "Rectum"), "target_names": ("PTV70", "PTV56"), "beams": BEAMS,
        "recipe": SimpleNamespace(physics=["plan"]), "trained_on": {"a": "1", "b": "2"}, "selected_on": {"c": "3"},
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def test_a_part_that_knows_these_cases_and_no_more_maps_is_taken() -> None:
    check_part(run_of(), SPEC, BOTH, part_of())
    check_part(run_of(), SPEC, FEW, part_of(selected_on={}))
    check_part(run_of(), SPEC, BOTH, part_of(beams=None))


@pytest.mark.parametrize(("changes", "words"), [
    ({"structure_names": ("Rectum", "PTV70")}, "knows other structures or targets"),
    ({"target_names": ("PTV56",)}, "knows other structures or targets"),
    ({"recipe": SimpleNamespace(physics=["plan", "other", "gathered"])}, "sees the maps gathered, other; name them"),
    ({"beams": {"gantry_deg": [0.0]}}, "was trained with maps of other beams; train it again"),
    ({"trained_on": {"a": "1", "b": "9"}}, "was trained on other cases: without b, with none besides"),
    ({"trained_on": {"a": "1"}}, "was trained on other cases: without b, with none besides"),
    ({"trained_on": {"a": "1", "b": "2", "z": "7", "y": "8"}},
    "was trained on other cases: without none, with y, z besides"),
    ({"selected_on": {"c": "4"}}, "was selected on other cases: without c, with none besides"),
    ({"selected_on": {"c": "3", "d": "5"}}, "was selected on other cases: without none, with d besides"),
])  # fmt: skip
def test_a_part_of_other_cases_beams_or_inputs_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=f"mine: its part part {words}"):
        check_part(run_of(), SPEC, BOTH, part_of(**changes))


def test_preflight_asks_for_its_own_cases_alone() -> None:
    with pytest.raises(BadInput, match="other cases: without a, with none besides"):
        check_part(run_of(), SPEC, FEW, part_of(trained_on={"b": "2"}))


def trees_of(**changes: Any) -> Any:
    values = {
        "model": "trees", "spec": SPEC, "recipe": SimpleNamespace(physics=["plan"]), "beams": BEAMS,
        "told_by": {"1": "fold0", "2": "fold1"},
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize(("changes", "words"), [
    ({"spec": SimpleNamespace(structure_names=("PTV70",), target_names=("PTV70",))},
    "knows other structures or targets"),
    ({"spec": SimpleNamespace(structure_names=("PTV70", "Rectum"), target_names=("PTV70", "X"))},
    "knows other structures"),
    ({"recipe": SimpleNamespace(physics=["zoned", "plan", "other"])},
    "sees the maps other, zoned, inputs.physics of mine"),
    ({"beams": {}}, "was grown with maps of other beams"),
])  # fmt: skip
def test_trees_of_other_inputs_or_beams_are_refused(changes: dict[str, Any], words: str) -> None:
    check_trees(run_of(), SPEC, BOTH, trees_of())
    check_trees(run_of(), SPEC, BOTH, trees_of(beams=None))
    with pytest.raises(BadInput, match=f"mine: base trees {words}"):
        check_trees(run_of(), SPEC, BOTH, trees_of(**changes))


@pytest.mark.parametrize(("told", "cases", "words"), [
    ({"1": "f", "2": "f"}, BOTH, ""), ({"1": "f", "2": "f"}, FEW, ""), ({"1": "f"}, FEW, ""),
    ({"1": "f"}, BOTH, "without b, with 0 besides"), ({"1": "f", "2": "f", "3": "f", "4": "f"},
    BOTH, "without none, with 2 besides"),
    ({"2": "f"}, FEW, "without a, with 0 besides"),
])  # fmt: skip
def test_trees_of_other_cases_are_refused(told: dict[str, str], cases: Any, words: str) -> None:
    if not words:
        check_told(run_of(), cases, trees_of(told_by=told))
        return
    with pytest.raises(BadInput, match=f"mine: base trees was trained on other cases: {words}"):
        check_told(run_of(), cases, trees_of(told_by=told))


@pytest.mark.parametrize(("seen", "begun", "words"), [
    (["1", "2"], False, ""), (["1", "2", "7"], True, ""), (["1",
    "7"], False, "seen 1 cases that it doesn't know of, as it begins with none"),
    (["1", "7", "8", "9"], True, "seen 2 cases that it doesn't know of, as it begins with elder"),
])  # fmt: skip
def test_cases_that_anothers_trees_have_seen_must_be_known(seen: list[str], begun: bool, words: str) -> None:
    line = SimpleNamespace(trained_on={"x": "7"})
    run = run_of(ancestors=(line,), parent=SimpleNamespace(name="elder")) if begun else run_of()
    trees = trees_of(told_by=dict.fromkeys(seen, "fold0"))
    refuse_untold(run, FEW, trees)
    if not words:
        refuse_untold(run, BOTH, trees)
        return
    with pytest.raises(BadInput, match=f"mine: trees, the trees of its base, have {words}"):
        refuse_untold(run, BOTH, trees)


def test_a_base_of_another_kind_is_refused() -> None:
    recipe = SimpleNamespace(kind="other")
    base: Any = SimpleNamespace(
        checkpoint=SimpleNamespace(model="old", spec=SPEC, recipe=recipe),
        network="network",
        boosted=trees_of(told_by={}),
    )
    run = run_of(network_recipe=SimpleNamespace(sampling=SimpleNamespace(patch_zyx=(1, 2, 3))))
    with pytest.raises(BadInput, match="mine: base old is of kind other, wanted a network's"):
        check_base(run, SPEC, BOTH, base)
    with pytest.raises(BadInput, match="mine: base old sees other channels or conditions"):
        check_base(run, SimpleNamespace(**vars(SPEC), told=True), BOTH, base)  # type: ignore[arg-type]


def test_a_base_of_trees_is_judged_as_trees() -> None:
    checkpoint = SimpleNamespace(model="old", spec=None, recipe=SimpleNamespace(kind="trees"))
    base: Any = SimpleNamespace(checkpoint=checkpoint, network=None, boosted=trees_of())
    check_base(run_of(), SPEC, BOTH, base)
    for changes, words in (
        ({"beams": {}}, "grown with maps of other beams"),
        ({"told_by": {}}, "trained on other cases"),
    ):
        base.boosted = trees_of(**changes)
        with pytest.raises(BadInput, match=words):
            check_base(run_of(), SPEC, BOTH, base)


@pytest.mark.parametrize(("n_folds", "sizes"), [(2, [3, 2]), (3, [2, 2, 1]), (9, [1, 1, 1, 1, 1])])
def test_patients_are_dealt_to_folds_one_after_another(n_folds: int, sizes: list[int]) -> None:
    patients = ["a", "b", "c", "a", "d", "e", "b"]
    found = fold_numbers(patients, n_folds, seed=4)
    of = dict(zip(patients, found, strict=True))
    assert [of[name] for name in patients] == found
    assert sorted(np.bincount(list(of.values())).tolist(), reverse=True) == sizes
    order = np.random.default_rng(4).permutation(5)
    names = ["a", "b", "c", "d", "e"]
    assert [of[names[k]] for k in order] == [k % min(n_folds, 5) for k in range(5)]


def drawn(name: str, fold: int, dose: float, gy: float) -> Drawn:
    values = np.full(2, dose, np.float32)
    opened: Any = SimpleNamespace(case_id=name, main_prescription_gy=gy)
    return Drawn(opened, fold, np.arange(2), values[:, None], values, np.array([1.0, 3.0], np.float32))


class MeanTree:
    """Trees that tell the weighted mean of what they were grown on."""

    def __init__(self, dose: np.ndarray, weight: np.ndarray | None) -> None:
        self.dose, self.weight = dose.tolist(), None if weight is None else weight.tolist()
        self.told = float(np.average(dose, weights=weight))

    def predict(self, features: np.ndarray) -> np.ndarray:
        return np.full(len(features), self.told)


@pytest.mark.parametrize("structure_weight", [0.0, 0.5])
def test_each_case_is_told_by_the_trees_of_the_other_folds(
    structure_weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_fit, "grow_trees", lambda features, dose, boosting, weight: MeanTree(dose, weight))
    cases = [drawn("a", 0, 0.1, 50.0), drawn("b", 1, 0.4, 70.0), drawn("c", 0, 0.7, 60.0)]
    boosting: Any = SimpleNamespace(structure_weight=structure_weight, stages=1)
    lines: list[str] = []
    spec: Any = None
    found = grow_cross_fitted(cases, spec, boosting, lines.append)
    grown: Any = found.trees
    assert list(grown) == ["fold0", "fold1", FINAL]
    assert {name: sorted(set(np.round(tree.dose, 3))) for name, tree in grown.items()} == {
        "fold0": [0.4], "fold1": [0.1, 0.7], FINAL: [0.1, 0.4, 0.7],
    }  # fmt: skip
    assert grown["fold0"].weight == ([1.0, 3.0] if structure_weight else None)
    assert {name: values.tolist() for name, values in found.told.items()} == {
        "a": pytest.approx([0.4, 0.4]), "c": pytest.approx([0.4, 0.4]), "b": pytest.approx([0.4, 0.4]),
    }  # fmt: skip
    # Told 0.4 of each: 0.3 · 50, 0 and 0.3 · 60 Gy off; after the first fold a and c alone are told.
    assert lines == [
        "fold 1/2: 16.50 Gy on voxels of cases not seen", "fold 2/2: 11.00 Gy on voxels of cases not seen",
    ]  # fmt: skip
    assert found.loss == pytest.approx(0.06)
    assert found.final == (grown[FINAL],)


def test_of_one_fold_trees_are_grown_on_all() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_fit, "grow_trees", lambda features, dose, boosting, weight: MeanTree(dose, weight))
        boosting: Any = SimpleNamespace(structure_weight=0.0, stages=1)
        spec: Any = None
        grown: Any = grow_cross_fitted([drawn("a", 0, 0.1, 50.0)], spec, boosting, lambda line: None).trees
    assert grown["fold0"].told == grown[FINAL].told == pytest.approx(0.1)


def test_the_final_trees_are_those_of_both_stages() -> None:
    one, two, three = (MeanTree(np.ones(1), None) for _ in range(3))
    trees: Any = {"fold0": three, FINAL: one, f"second_{FINAL}": two}
    assert CrossFit(trees, {}, 0.0).final == (one, two)


def test_an_error_is_told_in_gy() -> None:
    opened: Any = SimpleNamespace(main_prescription_gy=60.0)
    assert error_gy(opened, np.array([0.5, 0.1]), np.array([0.4, 0.3])) == pytest.approx(9.0)


def test_dice_is_the_mean_over_structures_that_either_map_has() -> None:
    import torch

    found, wanted = torch.tensor([1, 1, 1, 2, 0, 0]), torch.tensor([1, 1, 0, 0, 0, 3])
    # Of 1: 2 · 2 / 5; of 2 and 3 nothing is shared; 4 is nowhere.
    assert dice_error(found, wanted, 5) == pytest.approx(1.0 - 0.8 / 3)
    assert dice_error(found, wanted, 2) == pytest.approx(0.2)
    assert dice_error(found * 0, wanted * 0, 5) == 0.0
