"""Our reading of dvc.yaml against DVC's own, on the project's pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.ledger.provenance.pipeline import resolve_stages
from doseledger.ledger.runs.files import files_of_pipeline, models_of, run_files


def test_stages_are_resolved_as_dvc_resolves_them(repository: Path) -> None:
    from dvc.repo import Repo

    ours = resolve_stages(read_yaml(repository / "dvc.yaml"), read_yaml(repository / "params.yaml"))
    with Repo(str(repository)) as repo:
        stages = [stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"]
        theirs = {
            stage.name: (
                {str(dep) for dep in stage.deps if not dep.def_path.endswith(("params.yaml", "thresholds.yaml"))},
                {str(out) for out in stage.outs},
            )
            for stage in stages
        }
    assert set(ours) == set(theirs)
    for name, (deps, outs) in theirs.items():
        assert set(ours[name].outs) == outs, name
        assert deps <= set(ours[name].deps), name


def test_the_contract_finds_its_files_in_the_projects_own_pipeline(repository: Path) -> None:
    for model in read_yaml(repository / "params.yaml")["models"]:
        names = files_of_pipeline(repository, model).by_name()
        assert {"run.json", "metrics_summary.json", "verdicts/metrics_findings.json", "report.pdf"} <= set(names)
        assert names["checkpoints/best.ckpt"].parts[-4:-2] == ("phantom", model)


def test_a_model_that_is_not_trained_is_told_with_those_that_are(repository: Path) -> None:
    with pytest.raises(BadInput, match=r"trains no 'nobody'; params\.yaml names: dose_unet"):
        files_of_pipeline(repository, "nobody")


def test_foreach_over_a_mapping_and_a_list_and_dotted_names_are_filled_in() -> None:
    pipeline = {
        "stages": {
            "a": {"foreach": {"x": {"n": 1}}, "do": {"cmd": "", "outs": ["out/${key}/${item.n}"]}},
            "b": {"foreach": ["p", "q"], "do": {"cmd": "", "deps": ["in/${item}"], "metrics": [{"m.json": {}}]}},
        }
    }
    found = resolve_stages(pipeline, {})
    assert found["a@x"].outs == ("out/x/1",)
    assert found["b@q"].deps == ("in/q",)
    assert found["b@p"].outs == ("m.json",)


def test_a_name_that_the_settings_do_not_have_is_told() -> None:
    with pytest.raises(BadInput, match=r"dvc\.yaml asks for 'nobody', which the settings do not have"):
        resolve_stages({"stages": {"a": {"outs": ["${nobody}/x"]}}}, {"cohort": "phantom"})


def test_a_model_of_another_kind_has_its_own_stages(repository: Path) -> None:
    params = {**read_yaml(repository / "params.yaml"), "diffusion_models": ["dose_diffusion"]}
    stages = resolve_stages(read_yaml(repository / "dvc.yaml"), params)
    assert "dose_diffusion" in models_of(stages)
    files = run_files(stages, "phantom", "dose_diffusion", Path("x"))
    assert files.run == Path("x/models/phantom/dose_diffusion")
    assert files.predictions == Path("x/data/predictions/phantom/dose_diffusion")
    assert list(files.verdicts)[:2] == ["data", "preflight"]
