"""Preflight: the machine, real cases, and one batch that a model must learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.project.layout import ModelLayout
from doseledger.gates.limits import PreflightLimits, load_thresholds
from doseledger.gates.model.machine import Machine, describe_machine, judge_machine, look_at_machine
from doseledger.gates.run_digest import run_digest
from doseledger.gates.verdict import Finding, Verdict, make_verdict

if TYPE_CHECKING:
    from doseledger.learn.run import TrainingRun
    from doseledger.learn.training.probe import ProbeResult

N_STEPS = 20
# Losses are reported to so many digits: the last ones are the machine's, not the model's.
DIGITS = 4


def judge_preflight(
    run: TrainingRun,
    at: ModelLayout,
    *,
    tell: Callable[[str], None],
    machine: Machine | None = None,
) -> Verdict:
    """Return preflight's verdict on a model, its data and this machine.

    Parameters
    ----------
    at
        Where the cohort's cases, splits and limits lie.
    machine
        What was seen of a machine; None looks at this one.

    Notes
    -----
    The batch comes through the training's own loader, from the first training cases; the steps run on the CPU. What was
    seen of the machine is told; the findings say only what falls short, as a verdict holds nothing of its host.
    """
    from doseledger.learn.training.probe import probe_steps

    layout = at.layout
    limits, findings = _limits(at, run.recipe.kind)
    seen = machine or look_at_machine(layout.cases, layout.splits.parent)
    tell(f"machine: {describe_machine(seen)}")
    findings += judge_machine(seen, limits, _loader_workers(run))
    for finding in findings:
        tell(f"{finding.severity}: {finding.message}")
    details: dict[str, object] = {"model": run.model}
    try:
        probe = probe_steps(run, layout.cases, layout.splits, n_steps=N_STEPS, physics=layout.physics)
    except (BadCase, BadInput, NotReady) as error:
        message = f"{run.model} can't take its first batch: {error}"
        findings.append(Finding("first_batch", "", "error", message))
    else:
        tell(f"{run.model}: {probe.n_weights} weights, {probe.n_steps} steps on one batch: {_losses(probe)}")
        findings += judge_probe(run.model, probe, limits)
        details |= {
            "steps": probe.n_steps,
            "losses": [float(f"{loss:.{DIGITS}g}") for loss in probe.losses],
            "image_shape": list(probe.image_shape),
            "output_shape": list(probe.output_shape),
            "n_weights": probe.n_weights,
            "cases": probe.case_ids,
        }
    return make_verdict("preflight", run_digest(run, layout.splits, limits), findings, details)


def _loader_workers(run: TrainingRun) -> int:
    """Processes that bring a network its patches; trees read their cases themselves."""
    loader = getattr(run.recipe, "loader", None)
    return int(loader.workers) if loader is not None else 0


def _limits(at: ModelLayout, kind: str) -> tuple[PreflightLimits, list[Finding]]:
    """The limits of preflight, and whether the model has those that it will be judged by when it is trained."""
    thresholds = load_thresholds(at.layout)
    findings = []
    for limits_of in (thresholds.metrics_of, partial(thresholds.shortcuts_of, kind=kind)):
        try:
            limits_of(at.name)
        except BadInput as error:
            findings.append(Finding("limits", "", "error", f"{at.name}: {error}"))
    return thresholds.preflight, findings


def judge_probe(model: str, probe: ProbeResult, limits: PreflightLimits) -> list[Finding]:
    """Return what a model's first steps on one batch show to be wrong with it."""
    if not probe.finite:
        message = (
            f"{model}: the output or the loss is not finite within {probe.n_steps} steps on one batch "
            f"({_losses(probe)}); lower lr, or look at the inputs' scale"
        )
        return [Finding("not_finite", "", "error", message)]
    ratio = probe.last_loss / probe.first_loss if probe.first_loss > 0 else float("inf")
    if ratio <= limits.max_loss_ratio:
        return []
    message = (
        f"{model}: {probe.n_steps} steps on one batch bring its loss to {ratio:.2f} of what it was ({_losses(probe)}), "
        f"wanted at most {limits.max_loss_ratio:g}: a model that can't learn one batch learns nothing. Raise or "
        "lower lr, and check the loss and the target's scale"
    )
    return [Finding("does_not_learn", "", "error", message, {"ratio": float(f"{ratio:.{DIGITS}g}")})]


def _losses(probe: ProbeResult) -> str:
    return f"loss {probe.first_loss:.{DIGITS}g} → {probe.last_loss:.{DIGITS}g}"
