"""Tables of a segmentation's report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from doseledger.report.figures.style import structure_colours
from doseledger.report.tables.overlap_tables import TITLES, overlap_table, volumes_table


@pytest.fixture
def facts() -> Any:
    """Two test cases with two structures."""
    rows = {"case_id": ["a", "b"]}
    for end in ("", "_Rectum", "_Bladder"):
        rows |= {f"{measure}{end}": [0.8, 0.9] for measure in TITLES}
    for name in ("Rectum", "Bladder"):
        rows |= {f"volume_cc_{who}_{name}": [80.0, 90.0] for who in ("reference", "prediction")}
    return SimpleNamespace(case_metrics=pd.DataFrame(rows), summary={})


def test_a_structure_has_the_colour_that_it_has_on_every_page(facts: Any) -> None:
    # Of the protocol's order, whatever the model segments.
    colours = structure_colours(["PTV70", "PTV56", "Bladder", "Rectum"])
    overlap = {row[0].text: row[0].swatch for row in overlap_table(facts, 1.0, colours).rows}
    assert overlap == {"all structures": "", "Rectum": colours["Rectum"], "Bladder": colours["Bladder"]}
    volumes = {row[0].text: row[0].swatch for row in volumes_table(facts, colours).rows}
    assert volumes == {name: colours[name] for name in ("Rectum", "Bladder")}


def test_of_all_structures_and_of_each_there_is_a_row_a_measure(facts: Any) -> None:
    table = overlap_table(facts, 1.0, {})
    assert [row[0].text for row in table.rows] == ["all structures"] * 4 + ["Rectum"] * 4 + ["Bladder"] * 4
    worst = {row[1].text: row[-1].text for row in table.rows[:4]}
    assert worst == {"Dice": "a", "IoU": "a", "HD95 (mm)": "b", "Surface Dice": "a"}
