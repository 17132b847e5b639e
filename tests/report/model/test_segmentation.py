"""Which cases a segmentation's report draws, under which titles, and its pictures of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.report.blocks import Picture
from doseledger.report.model import segmentation as module


@pytest.mark.parametrize(("dice", "drawn"), [
    ({"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5, "f": 0.45, "g": 0.4},
     [("Best case", "a", "0.900"), ("Median case", "d", "0.600"), ("Worst case", "g", "0.400"),
      ("Second worst case", "f", "0.450"), ("Third worst case", "e", "0.500")]),
    ({"a": 0.9, "b": 0.8, "c": 0.7},
     [("Best case", "a", "0.900"), ("Median case", "b", "0.800"), ("Worst case", "c", "0.700")]),
    ({"b": 0.5, "a": 0.5, "d": 0.5, "c": 0.5},
     [("Best case", "a", "0.500"), ("Median case", "c", "0.500"), ("Worst case", "d", "0.500"),
      ("Second worst case", "b", "0.500")]),
])  # fmt: skip
def test_best_median_worst_and_the_next_worst_cases_are_drawn_once_each(
    dice: dict[str, float], drawn: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(module, "draw_labels", lambda at, case_id, *_: Picture(case_id, "", ""))
    at: Any = type("At", (), {"figures": Path("figures")})
    facts: Any = type("Facts", (), {"case_metrics": pd.DataFrame({"case_id": list(dice), "dice": list(dice.values())})})
    pages = module._case_pages(at, facts, {}, 40, told.append)
    text = "Mean Dice of its structures {}, by which cases are ranked."
    assert [(page.title, page.case_id, page.text) for page in pages] == [
        (title, case_id, text.format(value)) for title, case_id, value in drawn
    ]
    assert [page.figure.uri for page in pages] == [case_id for _, case_id, _ in drawn]
    assert told == [f"drew {case_id} ({title.lower()})" for title, case_id, _ in drawn]


def test_pictures_of_all_cases_show_errors_and_both_volumes_of_each_structure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: dict[str, Any] = {}

    def saved(draw: Any, folder: Path, stem: str, dpi: int) -> str:
        drawn[stem] = draw
        return f"{folder.name}/{stem} at {dpi}"

    monkeypatch.setattr(module, "saved_svg", saved)
    rows = pd.DataFrame({
        "case_id": ["a", "b"], "dice": [0.5, 0.5], "dice_Rectum": [0.9, np.nan], "dice_Bladder": [0.8, 0.75],
        "volume_cc_reference_Rectum": [60.0, 61],
        "volume_cc_prediction_Rectum": [62.0, 63], "volume_cc_reference_Bladder": [160.0, 161],
        "volume_cc_prediction_Bladder": [162.0, 163],
    })  # fmt: skip
    facts: Any = type("Facts", (), {"case_metrics": rows})
    pictures = module._pictures(facts, tmp_path / "figures", 40)
    assert {name: picture.uri for name, picture in pictures.items()} == {
        "dice": "figures/dice at 40", "volumes": "figures/volumes at 40",
    }  # fmt: skip
    names, errors, label = drawn["dice"].args
    assert (names, label) == (["Rectum", "Bladder"], "1 − Dice")
    np.testing.assert_allclose(errors, [[0.1, np.nan], [0.2, 0.25]])
    (volumes,) = drawn["volumes"].args
    assert {name: [list(values) for values in pair] for name, pair in volumes.items()} == {
        "Rectum": [[60, 61], [62, 63]], "Bladder": [[160, 161], [162, 163]],
    }  # fmt: skip
