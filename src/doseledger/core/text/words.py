"""Names of metrics and features in the field's words."""

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
    "openkbp_dose_gy": "OpenKBP dose score (Gy)",
    "openkbp_dvh_gy": "OpenKBP DVH score (Gy)",
    "n_cases": "cases",
    "worst_case": "worst case",
    "worst_decile": "worst tenth of the cases",
    "gamma_points_verified": "gamma points calculated again",
    "gamma_largest_difference": "largest difference of a gamma calculated again",
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
# Where a table has one column a metric.
SHORT = {
    "hd95_mm": "HD95 (mm)",
    "iou": "IoU",
    "prediction_acceptable_percent": "acceptable (%)",
    "plan_acceptable_percent": "plan acceptable (%)",
    "prediction_goals_met_percent": "goals met (%)",
    "plan_goals_met_percent": "plan goals met (%)",
    "openkbp_dose_score": "OpenKBP dose (Gy)",
    "openkbp_dvh_score": "OpenKBP DVH (Gy)",
    "template_mae_ratio": "error ÷ template",
    "distance_mae_ratio": "error ÷ distances",
    "prior_mae_ratio": "error ÷ prior",
    "base_mae_ratio": "error ÷ base",
    "template_error_ratio": "error ÷ outline",
    "blank_dice": "Dice, blank",
    "ct_shuffle_change_gy": "CT shuffled (Gy)",
    "prescription_gain": "prescription gain",
    "prescription_swap_share": "prescription swap",
    "target_swap_share": "target swap",
    "target_drop_share": "target drop",
    "target_move_share": "target move",
    "organ_drop_change_gy": "organ drop (Gy)",
}
# Of cases, as `gates.features` names them; the unit stands apart.
FEATURES = {
    "ct_min": "CT, minimum",
    "ct_max": "CT, maximum",
    "ct_p01_body": "CT in the body, 1st percentile",
    "ct_median_body": "CT in the body, median",
    "ct_p99_body": "CT in the body, 99th percentile",
    "ct_median_outside": "CT around the body, median",
    "body_air": "air in the body",
    "dose_max": "highest dose",
    "dose_body_mean": "mean dose in the body",
    "dose_beyond_targets": "D2cc beyond the targets",
    "dose_outside_valid_max": "highest dose outside valid dose",
    "n_fractions": "fractions",
    "plan_technique": "plan technique",
    "case_id": "case",
}
UNITS = {"cc": "cc", "gy": "Gy", "percent": "%", "mm": "mm", "hu": "HU"}
# Dose at a volume, volume at a dose: `PTV70_d98_percent`.
AT_PERCENT = re.compile(r"(?P<name>.+) (?P<kind>[dv])(?P<level>\d+)")
OF_STRUCTURE = re.compile(
    r"(?P<name>.+)_(?P<what>volume|median|mean|d\d+|v\d+|parts|largest_part|prescription|present|(?:offset|extent)_[xyz])"
)
HU_SHARE = re.compile(r"hu_share_(?P<where>below|from)_(?P<hu>-?\d+)")
PARTS = {"train": "training cases", "val": "validation cases"}
ENDS = {"worst": "worst case", "low": "lower end of the 95 % interval", "high": "upper end of the 95 % interval"}
MAE = re.compile(r"mae_(?P<mask>.+)_gy")
GAMMA = re.compile(r"gamma_(?P<percent>[\d.]+)_(?P<mm>[\d.]+)_(?P<kind>global|local)_percent")
FEATURE_TOKEN = re.compile(rf"(?<![\w./-])(?:\w+_(?:{'|'.join(UNITS)}|present)|hu_share_[a-z]+_-?\d+)(?![\w/]|\.\w)")
OVERLAP = re.compile(r"(?P<measure>surface_dice|dice|iou|hd95_mm)_(?P<structure>\w+)")
DVH = re.compile(r"dvh_(?P<structure>.+)_(?P<statistic>[^_]+)")
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
    >>> spell_metric("dice_worst"), spell_metric("surface_dice_Femur_L"), spell_metric("mystery")
    ('Dice, worst case', 'surface Dice, Femur_L', 'mystery')
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
    if found := OVERLAP.fullmatch(name):
        return f"{NAMED[found['measure']]}, {found['structure']}"
    if found := DVH.fullmatch(name):
        return f"{found['structure']} {found['statistic']}, |prediction − plan|"
    if found := GAMMA.fullmatch(name):
        return f"gamma pass rate {found['percent']} %/{found['mm']} mm {found['kind']} (%)"
    return name


def short_metric(name: str) -> str:
    """Return what heads a narrow column of a metric; `spell_metric` says it in full.

    Examples
    --------
    >>> short_metric("mae_above_10_percent_gy"), short_metric("gamma_3_2_local_percent")
    ('MAE >10 % (Gy)', 'γ 3 %/2 mm local (%)')
    >>> short_metric("dice_worst"), short_metric("dvh_PTV70_D95%"), short_metric("mystery")
    ('Dice, worst', 'PTV70 D95% error', 'mystery')
    """
    if name in SHORT:
        return SHORT[name]
    part, _, rest = name.partition("_")
    if part in PARTS and spell_metric(rest) != rest:
        return f"{part} {short_metric(rest)}"
    before, _, end = name.rpartition("_")
    if end in ENDS and spell_metric(before) != before:
        return f"{short_metric(before)}, {end}"
    if (ratio := name.removesuffix("_above_10_percent")) != name and ratio in SHORT:
        return f"{SHORT[ratio]}, >10 %"
    if found := MAE.fullmatch(name):
        mask = found["mask"]
        return f"MAE {'>10 %' if mask == 'above_10_percent' else spell_mask(mask)} (Gy)"
    if found := OVERLAP.fullmatch(name):
        return f"{SHORT.get(found['measure'], spell_metric(found['measure']))} {found['structure']}"
    if found := DVH.fullmatch(name):
        return f"{found['structure']} {found['statistic']} error"
    if found := GAMMA.fullmatch(name):
        kind = "" if found["kind"] == "global" else " local"
        return f"γ {found['percent']} %/{found['mm']} mm{kind} (%)"
    return spell_metric(name)


def spell_feature(name: str) -> str:
    """Return how a feature of a case is called, with its unit in brackets; a structure keeps its name.

    Examples
    --------
    >>> spell_feature("Femur_L_volume_cc"), spell_feature("PTV70_d98_percent")
    ('Femur_L volume (cc)', 'PTV70 D98% (%)')
    >>> spell_feature("ct_p01_body_hu"), spell_feature("hu_share_below_-300")
    ('CT in the body, 1st percentile (HU)', 'share of the body below −300 HU')
    """
    if share := HU_SHARE.fullmatch(name):
        return f"share of the body {share['where']} {share['hu']} HU".replace("-", "−")
    stem, _, end = name.rpartition("_")
    unit = f" ({UNITS[end]})" if end in UNITS else ""
    stem = stem if unit else name
    if stem in FEATURES:
        return f"{FEATURES[stem]}{unit}"
    if not (found := OF_STRUCTURE.fullmatch(stem)):
        return f"{stem.replace('_', ' ')}{unit}"
    words = f"{found['name']} {found['what'].replace('_', ' ')}"
    if at := AT_PERCENT.fullmatch(words):
        words = f"{at['name']} {at['kind'].upper()}{at['level']}%"
    return f"{words}{unit}"


def _masked(mask: str) -> str:
    return spell_mask(mask).replace("dose above", "dose is above")


def in_words(text: str) -> str:
    """Return a sentence in which metrics and features have their words in place of names, and limits their signs.

    Examples
    --------
    >>> in_words("at most 50, in the cases with Bladder_volume_cc >= 150")
    'at most 50, in the cases with Bladder volume (cc) ≥ 150'
    >>> in_words("dose_unet: base_mae_ratio is 0.97, wanted <= 0.9")
    'dose_unet: error ÷ error of the dose that the network adds to is 0.97, wanted ≤ 0.9'
    """
    # Words without an underscore are English before they are a metric's name.
    found = TOKEN.sub(lambda match: spell_metric(match[0]) if "_" in match[0] else match[0], text)
    found = FEATURE_TOKEN.sub(lambda match: spell_feature(match[0]), found)
    return found.replace("<=", "≤").replace(">=", "≥")
