"""Names of metrics in the field's words."""

from __future__ import annotations

import re

# Masks of errors that are no structure.
REGIONS = {
    "above_10_percent": "dose above 10 % of the highest prescription",
    "body": "body",
    "valid_dose": "valid dose",
}
NAMED = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "lr": "learning rate",
    "dice": "Dice",
    "iou": "intersection over union",
    "hd95_mm": "95 % Hausdorff distance (mm)",
    "surface_dice": "surface Dice",
    "dice_error": "1 − Dice",
    "prediction_acceptable_percent": "cases acceptable by the prediction (%)",
    "plan_acceptable_percent": "cases acceptable by the plan (%)",
    "prediction_goals_met_percent": "goals met by the prediction (%)",
    "plan_goals_met_percent": "goals met by the plan (%)",
    "openkbp_dose_score": "OpenKBP dose score (Gy)",
    "openkbp_dvh_score": "OpenKBP DVH score (Gy)",
    # Of shortcuts: the model beside trivial ones, and with inputs spoiled.
    "template_mae_ratio": "error ÷ error of the training patients' mean dose about the target's centre",
    "distance_mae_ratio": "error ÷ error of a dose by distances to all structures",
    "prior_mae_ratio": "error ÷ error of the training patients' mean dose by place and distance",
    "base_mae_ratio": "error ÷ error of the dose that the network adds to",
    "template_error_ratio": "error ÷ error of the training patients' mean outline",
    "blank_dice": "Dice on an image without content",
    "ct_shuffle_change_gy": "change of dose with the CT's voxels shuffled (Gy)",
    "prescription_gain": "rise of dose ÷ rise of prescription",
    "prescription_swap_share": "rise of dose with prescriptions swapped ÷ expected rise",
    "target_swap_share": "rise of dose with targets swapped ÷ expected rise",
    "target_drop_share": "fall of dose without the main target ÷ expected fall",
    "target_move_share": "way of the high dose ÷ way of the moved targets",
    "organ_drop_change_gy": "change of the main target's dose without the nearest organ (Gy)",
}
PARTS = {"train": "training cases", "val": "validation cases"}
ENDS = {"worst": "worst case", "low": "lower end of the 95 % interval", "high": "upper end of the 95 % interval"}
MAE = re.compile(r"mae_(?P<mask>.+)_gy")
GAMMA = re.compile(r"gamma_(?P<percent>[\d.]+)_(?P<mm>[\d.]+)_(?P<kind>global|local)_percent")
TOKEN = re.compile(r"(?<![\w./-])[a-z]\w*(?![\w/]|\.\w)")


def spell_mask(mask: str) -> str:
    """Return how a mask is called; a structure keeps its name."""
    return REGIONS.get(mask, mask)


def spell_metric(name: str) -> str:
    """Return how a metric is called; one that is not known keeps its name.

    Examples
    --------
    >>> spell_metric("val_mae_body_gy"), spell_metric("gamma_3_2_local_percent")
    ('MAE in body (Gy), validation cases', 'gamma pass rate 3 %/2 mm local (%)')
    >>> spell_metric("dice_worst"), spell_metric("mystery")
    ('Dice, worst case', 'mystery')
    """
    if name in NAMED:
        return NAMED[name]
    part, _, rest = name.partition("_")
    if part in PARTS and spell_metric(rest) != rest:
        return f"{spell_metric(rest)}, {PARTS[part]}"
    before, _, end = name.rpartition("_")
    if end in ENDS and spell_metric(before) != before:
        return f"{spell_metric(before)}, {ENDS[end]}"
    if (ratio := name.removesuffix("_above_10_percent")) != name and ratio in NAMED:
        return f"{NAMED[ratio]}, where the {_masked('above_10_percent')}"
    if found := MAE.fullmatch(name):
        mask = found["mask"]
        return f"MAE {'where the ' if mask == 'above_10_percent' else 'in '}{_masked(mask)} (Gy)"
    if found := GAMMA.fullmatch(name):
        return f"gamma pass rate {found['percent']} %/{found['mm']} mm {found['kind']} (%)"
    return name


def _masked(mask: str) -> str:
    return spell_mask(mask).replace("dose above", "dose is above")


def in_words(text: str) -> str:
    """Return a sentence in which every metric has its words in place of its name, and limits their signs.

    Examples
    --------
    >>> in_words("dose_unet: base_mae_ratio is 0.97, wanted <= 0.9")
    'dose_unet: error ÷ error of the dose that the network adds to is 0.97, wanted ≤ 0.9'
    """
    # Words without an underscore are English before they are a metric's name.
    found = TOKEN.sub(lambda match: spell_metric(match[0]) if "_" in match[0] else match[0], text)
    return found.replace("<=", "≤").replace(">=", "≥")
