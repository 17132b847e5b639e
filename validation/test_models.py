"""Preflight and the verdict on each model of params.yaml."""

from __future__ import annotations

from doseledger.core.project.layout import ModelLayout
from doseledger.core.settings import Settings
from doseledger.gates.model.judge import judge_model
from doseledger.gates.model.preflight import judge_preflight
from doseledger.gates.verdict import enforce, passed_token, require_token
from doseledger.learn.kinds import make_family, recipe_of
from doseledger.learn.run import TrainingRun
from doseledger.ledger.provenance.outs import READS, require_recorded


def test_the_model_passes_preflight(at: ModelLayout, settings: Settings) -> None:
    """The first batch loads and is learned, on this machine."""
    recipe, base = recipe_of(settings, at.name), settings.bases.get(at.name)
    run = TrainingRun(
        model=at.name,
        recipe=recipe,
        lr=settings.lr,
        seed=settings.seed,
        fold=settings.fold,
        repeat=settings.repeat,
        token=passed_token(at.layout.data_verdict.token, "data"),
        provenance={},
        family=make_family(recipe, at.layout.model(base).checkpoint if base else None),
    )
    enforce(judge_preflight(run, at, tell=print))


def test_the_tables_are_those_that_the_pipeline_recorded(at: ModelLayout) -> None:
    """What is judged was not edited since the stage that made it."""
    require_recorded(at.layout.root, READS["judge"], at.layout.cohort, at.name)


def test_the_model_was_judged_fit(at: ModelLayout, settings: Settings) -> None:
    """Metrics, shortcuts and drift keep their limits, and the verdict on disk is about them."""
    verdict = judge_model(at, fold=settings.fold, repeat=settings.repeat)
    enforce(verdict)
    require_token(at.model_verdict.token, verdict.digest, "model")
