from __future__ import annotations

from pathlib import Path

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.settings import load_settings


@pytest.fixture
def params(repository: Path) -> str:
    return (repository / "params.yaml").read_text()


def load(text: str, tmp_path: Path):
    (tmp_path / "params.yaml").write_text(text)
    return load_settings(tmp_path / "params.yaml")


def test_the_shipped_params_are_complete(repository: Path) -> None:
    settings = load_settings(repository / "params.yaml")
    assert settings.cohort == "phantom"
    assert set(settings.models) <= set(settings.blocks)


@pytest.mark.parametrize("written", ["1e-4", "1e-05", "0.0001", "1E-4"])
def test_lr_in_any_notation_is_a_number(params: str, tmp_path: Path, written: str) -> None:
    # DVC writes 1e-05, which YAML 1.1 readers take for a string.
    lr_line = next(line for line in params.splitlines() if line.startswith("lr:"))
    settings = load(params.replace(lr_line, f"lr: {written}"), tmp_path)
    assert settings.lr == float(written)


@pytest.mark.parametrize("written", ["abc", "-1e-4", "0", ".nan", "''"])
def test_an_lr_that_is_no_positive_number_is_refused(params: str, tmp_path: Path, written: str) -> None:
    lr_line = next(line for line in params.splitlines() if line.startswith("lr:"))
    with pytest.raises(BadInput, match="lr: "):
        load(params.replace(lr_line, f"lr: {written}"), tmp_path)


def test_a_misspelt_key_is_refused_by_name(params: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="sead: Extra inputs are not permitted"):
        load(params + "\nsead: 3\n", tmp_path)


def test_a_missing_key_is_named(params: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="seed: the key is missing"):
        load(params.replace("\nseed: 1\n", "\n", 1), tmp_path)


def test_a_model_without_a_block_is_refused(params: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\['dose_unat'\] have no block"):
        load(params.replace("- dose_unet\n", "- dose_unat\n"), tmp_path)


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        ("{dose_dream: dose_unet}", "dose_dream starts from dose_unet; both must be among the models"),
        ("{dose_unet: dose_dream}", "dose_unet starts from dose_dream; both must be among the models"),
        (
            "{dose_unet: dose_unet}",
            "dose_unet starts from dose_unet; .* and dose_unet must not start from dose_unet",
        ),
    ],
)
def test_a_base_that_is_not_trained_is_refused(params: str, tmp_path: Path, bases: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(params.replace(SHIPPED_BASES, f"bases: {bases}"), tmp_path)


@pytest.mark.parametrize("contours", ["{dose_unet: seg_organs}", "{dose_unet: dose_unet}", "{seg: dose_unet}"])
def test_contours_that_no_trained_segmentation_draws_are_refused(params: str, tmp_path: Path, contours: str) -> None:
    wanted = (
        r"is given those of .*; wanted a dose model and a segmentation, both among .* trained \(dose_trees, dose_unet\)"
    )
    with pytest.raises(BadInput, match=wanted):
        load(params.replace("contours: {}", f"contours: {contours}"), tmp_path)


SHIPPED_BASES = "bases:\n  dose_unet: dose_trees"
FINE = """
dose_fine:
  kind: dose
  init_from: dose_unet
"""


def with_child(params: str, bases: str, block: str = FINE) -> str:
    return params.replace("models:\n", "models:\n- dose_fine\n").replace(SHIPPED_BASES, f"bases: {bases}") + block


def test_a_model_that_begins_with_another_of_these_settings_waits_for_it(params: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"dose_fine: init_from dose_unet .* write `dose_fine: dose_unet` under bases"):
        load(with_child(params, "{}"), tmp_path)
    settings = load(with_child(params, "{dose_fine: dose_unet}"), tmp_path)
    assert settings.bases == {"dose_fine": "dose_unet"}
    # A registered version is waited for by nobody.
    load(with_child(params, "{}", FINE.replace("dose_unet", "dose_unet@v0.1.0")), tmp_path)


def test_models_that_start_from_each_other_are_refused_and_a_line_of_them_is_not(params: str, tmp_path: Path) -> None:
    third = FINE + FINE.replace("dose_fine", "dose_finer").replace("dose_unet", "dose_fine")
    models = params.replace("models:\n", "models:\n- dose_finer\n")
    line = load(with_child(models, "{dose_fine: dose_unet, dose_finer: dose_fine}", third), tmp_path)
    assert list(line.bases) == ["dose_fine", "dose_finer"]
    with pytest.raises(BadInput, match=r"dose_fine starts from dose_finer; .* must not start from dose_fine"):
        load(with_child(models, "{dose_fine: dose_finer, dose_finer: dose_fine}", third), tmp_path)


@pytest.mark.parametrize(
    ("parts", "weights", "message"),
    [
        ("{dose_dream: dose_mean}", "{}", "dose_dream is a part of dose_mean; wanted a model of kind mean, both among"),
        ("{dose_trees: dose_unet}", "{}", "dose_trees is a part of dose_unet; wanted a model of kind mean"),
        ("{dose_mean: dose_mean}", "{}", "dose_mean must not start from dose_mean"),
        ("{dose_trees: dose_mean}", "{dose_unet: 1}", "weights names dose_unet, part_of dose_trees; name the same"),
    ],
)
def test_a_mean_waits_for_the_very_models_that_it_weighs(
    params: str, tmp_path: Path, parts: str, weights: str, message: str
) -> None:
    wide = params.replace("models:\n", "models:\n- dose_mean\n")
    block = "\ndose_mean:\n  kind: mean\n  weights: "
    both = "{dose_trees: dose_mean, dose_unet: dose_mean}"
    fine = wide.replace("part_of: {}", f"part_of: {both}") + block + "{dose_unet: 2, dose_trees: 1}"
    assert load(fine, tmp_path).parts_of("dose_mean") == ["dose_trees", "dose_unet"]
    with pytest.raises(BadInput, match=message):
        load(wide.replace("part_of: {}", f"part_of: {parts}") + block + weights, tmp_path)


def test_a_model_that_starts_from_the_mean_of_it_is_refused(params: str, tmp_path: Path) -> None:
    text = params.replace("models:\n", "models:\n- dose_mean\n").replace(
        "part_of: {}", "part_of: {dose_unet: dose_mean}"
    )
    text = text.replace(SHIPPED_BASES, "bases:\n  dose_unet: dose_mean") + "\ndose_mean:\n  kind: mean\n"
    with pytest.raises(BadInput, match="dose_mean must not start from dose_unet"):
        load(text, tmp_path)


def test_a_model_without_its_block_is_told_where_to_get_one(params: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\['dose_dream'\] have no block .*`doseledger recipe use NAME`"):
        load(params.replace("models:\n- dose_trees", "models:\n- dose_dream"), tmp_path)


def test_inverted_fractions_are_refused(params: str, tmp_path: Path) -> None:
    swapped = params.replace("train: 0.7", "train: 0.15").replace("test: 0.15", "test: 0.7")
    with pytest.raises(BadInput, match="inverted"):
        load(swapped, tmp_path)


@pytest.mark.parametrize("empty", ['""', '" "'])
def test_a_failed_case_is_not_accepted_without_a_reason(params: str, tmp_path: Path, empty: str) -> None:
    accepted = params.replace("accept_failed: {}", f"accept_failed: {{case_0007: {empty}}}")
    with pytest.raises(BadInput, match=r"ingest\.accept_failed\.case_0007: String should have at least 1 character"):
        load(accepted, tmp_path)


def test_gamma_criteria_that_differ_in_their_cutoff_alone_are_refused(params: str, tmp_path: Path) -> None:
    again = "  - {gamma_percent: 3, gamma_mm: 3, cutoff_percent: 20, local: false, interp_fraction: 10, max_gamma: 2}\n"
    first = next(line for line in params.splitlines(keepends=True) if line.lstrip().startswith("- gamma_percent: 3.0"))
    with pytest.raises(BadInput, match="gamma 3 %/3 mm global stands there twice"):
        load(params.replace(first, again + first), tmp_path)
    settings = load(params.replace(first, again.replace("gamma_mm: 3", "gamma_mm: 2") + first), tmp_path)
    assert len(settings.evaluate.gamma) == 2
