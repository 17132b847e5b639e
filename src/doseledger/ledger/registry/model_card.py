"""The model card: intended use, misuse, known weaknesses."""

from __future__ import annotations

from dataclasses import dataclass

from doseledger.core.text.sheet import plural
from doseledger.gates.model.standing import Standing
from doseledger.ledger.runs.facts import RunFacts, fold_rows, stands_on


@dataclass(frozen=True)
class CardPart:
    """A heading of the card and its sentences."""

    title: str
    lines: tuple[str, ...]


def model_card(facts: RunFacts, standing: Standing, *, synthetic: bool) -> list[CardPart]:
    """Return the model card of a run.

    Parameters
    ----------
    standing
        What its badge says, with the reasons.
    synthetic
        Whether the cohort is made up and not of patients.
    """
    if facts.is_segmentation:
        return _segmentation_card(facts, standing, synthetic=synthetic)
    protocol = facts.protocol
    structures = ", ".join(protocol.structure_names)
    prescription = ", ".join(f"{name} {dose:g} Gy" for name, dose in protocol.prescription_gy.items())
    fractions = f" in {protocol.n_fractions} fractions" if protocol.n_fractions else ""
    intended = (
        f"Research on predicting the dose of {protocol.title}.",
        f"Input: {protocol.modality}, the structures {structures}, and the prescription ({prescription}{fractions}). "
        "Output: dose in Gy on the case's grid.",
        "A predicted dose says what a plan of this protocol may be expected to give. It is no plan.",
        "Not a medical device; not for decisions about the treatment of a patient.",
    )
    return [
        CardPart("Intended use", intended),
        CardPart("Not intended for", _out_of_scope(facts)),
        CardPart("Limitations", _limitations(facts, standing, synthetic=synthetic)),
        CardPart("How it fails, and how one would notice", FAILURE_MODES),
    ]


def _segmentation_card(facts: RunFacts, standing: Standing, *, synthetic: bool) -> list[CardPart]:
    names = ", ".join(facts.dataset.get("structure_names", facts.protocol.structure_names))
    intended = (
        f"Research on segmenting {names} on images like those of {facts.protocol.title}.",
        f"Input: {facts.protocol.modality}. Output: one label a voxel, on the image's own grid.",
        "Whoever plans on such a contour looks at it, and mends it, first.",
        "Not a medical device; not for decisions about the treatment of a patient.",
    )
    skipped = tuple(line for line in _out_of_scope(facts) if line.startswith("cases without"))
    others = ("other scanners, sequences, sites or voxel sizes than those of the training images", *skipped)
    return [
        CardPart("Intended use", intended),
        CardPart("Not intended for", others),
        CardPart("Limitations", _limitations(facts, standing, synthetic=synthetic)),
        CardPart("How it fails, and how one would notice", SEGMENTATION_FAILURES),
    ]


SEGMENTATION_FAILURES = (
    "A structure that is absent, cut by the image's edge or changed by surgery is still drawn where it mostly lies: "
    "look at volumes and at the worst cases.",
    "Another contrast or scanner moves borders before it breaks anything: the drift check compares intensities.",
    "A high Dice of a large structure says nothing of its border: look at 95 % Hausdorff distance and surface Dice.",
    "The model draws as its training contours were drawn, with their habits.",
)

FAILURE_MODES = (
    "A structure drawn otherwise than in training (another margin, a bowel bag in place of loops) moves the dose with "
    "it: compare volumes with those of the cohort.",
    "A contour that is missing is told to the model as an absent organ; if it was merely forgotten, the dose goes "
    "through the organ.",
    "Implants, contrast and a couch that the training images lack: look at the CT slices before the dose.",
    "Steep gradients at the targets' edge are smoothed: near-minimum and near-maximum doses (D98%, D2%) are off to "
    "either side, and gamma fails in a ring around the target.",
    "A small mean error says nothing of a single hot spot: look at D2%, at the worst case, and at the clinical goals.",
)


def _out_of_scope(facts: RunFacts) -> tuple[str, ...]:
    skip = facts.protocol.skip_when
    lines = [
        "other sites, prescriptions, fractionations, techniques or machines than those of the training cases",
        "patients with structures missing that the protocol requires",
    ]
    if skip:
        lines.append(f"cases without {' or '.join(skip.any_absent)} ({skip.reason}): they were left out of training")
    return tuple(lines)


def _limitations(facts: RunFacts, standing: Standing, *, synthetic: bool) -> tuple[str, ...]:
    fold = fold_rows(facts)
    counts = {part: int((fold["split"] == part).sum()) for part in ("train", "val", "test")}
    sites = sorted({str(site) for site in facts.cases["site"]})
    lines = []
    if standing.state == "failed":
        lines.append("At least one gate failed: these results are a record, not a release.")
    lines += [f"{reason[:1].upper()}{reason[1:]}." for reason in standing.reasons]
    if synthetic:
        lines.append("The cohort is synthetic: anatomy, dose and their relation are simpler than in patients.")
    lines.append(
        f"Trained on {plural(counts['train'], 'case')}, selected on {counts['val']}, tested on {counts['test']}."
    )
    if models := stands_on(facts.run):
        lines.append(f"It stands on the dose of {models}: what is wrong there is wrong here too.")
    for ancestor in facts.run.get("ancestors", []):
        lines.append(
            f"Its weights began as those of {ancestor['name']} (cohort {ancestor['cohort']}, epoch "
            f"{ancestor['epoch']}, SHA256 {ancestor['sha256'][:12]}…), trained on "
            f"{plural(ancestor['trained_on'], 'case')}, which count as seen."
        )
    told = f"Patients of {', '.join(sites)} alone: nothing is known of other sites."
    lines.append(told if sites != ["unknown"] else "The patients' site is not recorded: nothing is known of others.")
    if not facts.is_segmentation:
        lines.append(
            "Plans of one style are learnt with their habits; a better plan than the clinic's is not predicted."
        )
    if facts.test_set.empty:
        lines.append("The test set is not locked: a result with other splits is not comparable patient by patient.")
    return tuple(lines)
