"""Public names of the packages: they import, cost nothing before, and hide no module from the walk over the code."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PUBLIC = {
    "doseledger.core": "Case Layout Protocol Settings load_goals load_protocol load_settings read_table write_npz"
    " write_table",
    "doseledger.dicom": "Roi gather_objects make_ct make_dose make_plan make_segmentation make_structure_set"
    " read_prescription summarise_plan",
    "doseledger.ingest": "convert_case ingest make_splits",
    "doseledger.evaluate": "CaseMetrics compare_models evaluate_case evaluate_cohort",
    "doseledger.gates": "Finding Verdict judge_case judge_cohort",
    "doseledger.learn": "CaseDataModule Checkpoint load_checkpoint load_model predict_case recipe_of",
    "doseledger.dosimetry": "DosePair GammaCriteria bootstrap_interval dvh_curves dvh_statistics evaluate_goals"
    " exact_gamma_map gamma_map pass_rate_percent structure_dose",
    "doseledger.parity": "check_data_set compare_images compare_sets load_contract",
    "doseledger.planning": "OptimiserSettings Patient PlanStyle arc_dose check_plan compute_dose load_machine"
    " optimise_plan",
    "doseledger.phantom": "Dirt draw_patient make_case make_cohort",
    "doseledger.learn.networks": "MeanDose build_network dose_network predict_whole",
    "doseledger.ledger.bundle": "Order Wanted verify_bundle",
    "doseledger.ledger.audit": "append_entry read_entries read_head verify",
}
PACKAGES = tuple(PUBLIC)
HEAVY = ("numba", "torch", "scipy", "pandas", "pydicom", "dvc", "monai")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_imports_and_none_is_a_modules_name(package: str) -> None:
    module = importlib.import_module(package)
    names = dir(module)
    assert sorted(names) == sorted(PUBLIC[package].split())
    for name in names:
        assert getattr(module, name).__name__ == name
        assert importlib.util.find_spec(f"{package}.{name}") is None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_the_short_imports_of_the_reference_work() -> None:
    from doseledger.dosimetry import GammaCriteria, dvh_statistics, gamma_map

    assert (GammaCriteria.__name__, gamma_map.__name__, dvh_statistics.__name__) == (
        "GammaCriteria", "gamma_map", "dvh_statistics",
    )  # fmt: skip


def test_importing_the_packages_loads_no_heavy_library() -> None:
    script = f"import sys, {', '.join(PACKAGES)}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_our_own_code_imports_from_the_modules_so_that_the_walk_over_it_sees_them(repository: Path) -> None:
    lazy = {(package, name) for package in PACKAGES for name in dir(importlib.import_module(package))}
    for path in (repository / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not {(node.module, alias.name) for alias in node.names} & lazy, f"{path}: import from the module"


def test_an_alias_has_one_meaning_wherever_it_is_defined(repository: Path) -> None:
    def aliases(path: Path) -> dict[str, str]:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        plain = [node for node in body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
        return {node.targets[0].id: ast.unparse(node.value) for node in plain}

    shared = aliases(repository / "src" / "doseledger" / "core" / "types.py")
    assert {"GyArray", "Mask", "Sdf", "Tell", "Box"} <= set(shared)
    for path in (repository / "src").rglob("*.py"):
        for name, meaning in aliases(path).items():
            assert shared.get(name, meaning) == meaning, f"{path}: {name} is another thing in core/types.py"
