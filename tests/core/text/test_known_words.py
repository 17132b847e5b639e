"""Metrics and features in words, pages from templates: each kind of name and value written out."""

from __future__ import annotations

from pathlib import Path

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.text.template import cell, figure, render, render_markdown
from doseledger.core.text.words import in_words, short_metric, spell_feature, spell_metric

METRICS = {
    "mae_body_gy": ("MAE in body (Gy)", "MAE body (Gy)"),
    "mae_above_10_percent_gy": ("MAE where the dose is above 10 % of the highest prescription (Gy)", "MAE >10 % (Gy)"),
    "val_mae_PTV70_gy": ("MAE in PTV70 (Gy), validation cases", "val MAE PTV70 (Gy)"),
    "train_dice": ("Dice, training cases", "train Dice"),
    "dice_worst": ("Dice, worst case", "Dice, worst"),
    "hd95_mm_high": ("95 % Hausdorff distance (mm), upper end of the 95 % interval", "HD95 (mm), high"),
    "surface_dice_Femur_L": ("surface Dice, Femur_L", "surface Dice Femur_L"),
    "dvh_PTV70_D95%": ("PTV70 D95%, |prediction − plan|", "PTV70 D95% error"),
    "gamma_3_2.5_global_percent": ("gamma pass rate 3 %/2.5 mm global (%)", "γ 3 %/2.5 mm (%)"),
    "gamma_3_2_local_percent": ("gamma pass rate 3 %/2 mm local (%)", "γ 3 %/2 mm local (%)"),
    "prior_mae_ratio_above_10_percent": (
        "error ÷ error of the training patients' mean dose by place and distance, where the dose is above 10 % of the "
        "highest prescription",
        "error ÷ prior, >10 %",
    ),
    "lr": ("learning rate", "learning rate"),
    "train_mystery": ("train_mystery", "train_mystery"),
    "mystery_worst": ("mystery_worst", "mystery_worst"),
    "other_dice": ("other_dice", "other_dice"),
}
FEATURES = {
    "Femur_L_volume_cc": "Femur_L volume (cc)", "PTV70_d98_percent": "PTV70 D98% (%)", "Rectum_v50_percent":
    "Rectum V50% (%)", "ct_p01_body_hu": "CT in the body, 1st percentile (HU)", "n_fractions": "fractions",
    "hu_share_below_-300": "share of the body below −300 HU", "hu_share_from_200": "share of the body from 200 HU",
    "dose_max_gy": "highest dose (Gy)", "Rectum_present": "Rectum present",
    "Rectum_offset_x_mm": "Rectum offset x (mm)",
    "Rectum_largest_part_percent": "Rectum largest part (%)",
    "some_thing_mm": "some thing (mm)", "some_thing":
    "some thing", "case_id": "case",
}  # fmt: skip


def test_every_kind_of_metric_has_its_words_and_its_short_ones() -> None:
    assert {name: (spell_metric(name), short_metric(name)) for name in METRICS} == METRICS


def test_every_kind_of_feature_has_its_words() -> None:
    assert {name: spell_feature(name) for name in FEATURES} == FEATURES


def test_words_take_the_place_of_names_and_of_nothing_else() -> None:
    assert in_words("val_loss >= 3 and Bladder_volume_cc <= 9, lr, n_cases, a/val_loss, val_loss.json") == (
        "validation loss ≥ 3 and Bladder volume (cc) ≤ 9, lr, cases, a/val_loss, val_loss.json"
    )


def test_cells_and_figures() -> None:
    assert cell("a | b\n  c \\ d") == "a \\| b c \\\\ d"
    values = (None, float("nan"), 1.0, 123456.789, 7, "x", float("inf"))
    assert [figure(value) for value in values] == ["–", "–", "1", "1.2346e+05", "7", "x", "inf"]


def test_a_page_is_escaped_and_shows_code_where_it_is_html(tmp_path: Path) -> None:
    text = "{% if yes %}\n  {{ text }}|{{ n }}|{{ safe | safe }}|{{ x | figure }}\n{% endif %}\nend\n"
    (tmp_path / "a.j2").write_text(text)
    context = {"yes": True, "text": "a < `b`", "n": 3, "safe": "<b>`c`</b>", "x": 0.5}
    assert render(tmp_path, "a.j2", context, is_html=True) == "  a &lt; <code>b</code>|3|<b>`c`</b>|0.5\nend"
    assert render_markdown(tmp_path, "a.j2", context) == "  a < `b`|3|<b>`c`</b>|0.5\nend\n"
    with pytest.raises(BadInput, match=r"a\.j2 can't be filled \(UndefinedError: 'text' is undefined\)"):
        render(tmp_path, "a.j2", {"yes": True}, is_html=True)
    with pytest.raises(BadInput, match=r"b\.j2 can't be filled \(TemplateNotFound"):
        render_markdown(tmp_path, "b.j2", {})
