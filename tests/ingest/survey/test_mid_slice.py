"""Pictures of a survey: the body and all outlines, without the air and the table about them."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.ingest.survey.mid_slice import MARGIN_PX, body_cut

WHOLE = (slice(0, 100), slice(0, 120))


def picture() -> np.ndarray:
    grey = np.zeros((100, 120), np.uint8)
    grey[30:60, 40:90] = 150
    grey[40:50, 60:70] = 0
    return grey


def test_a_picture_is_cut_to_the_body_with_a_margin_and_not_to_the_table_below_it() -> None:
    grey = picture()
    grey[80:83, 0:120] = 200
    assert body_cut(grey, []) == (slice(30 - MARGIN_PX, 60 + MARGIN_PX), slice(40 - MARGIN_PX, 90 + MARGIN_PX))


def test_an_outline_beyond_the_body_is_still_in_the_picture() -> None:
    outline = np.asarray([(100.2, 70.0), (110.0, 75.5), (105.0, 72.0)])
    rows, columns = body_cut(picture(), [outline])
    assert (rows.stop, columns.stop) == (76 + 1 + MARGIN_PX, 110 + 1 + MARGIN_PX)
    assert (rows.start, columns.start) == (30 - MARGIN_PX, 40 - MARGIN_PX)


def test_an_outline_beyond_the_image_widens_nothing_past_its_edge() -> None:
    assert body_cut(picture(), [np.asarray([(-50.0, -50.0), (500.0, 500.0)])]) == WHOLE


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_without_a_body_or_full_of_it_stays_whole(value: int) -> None:
    assert body_cut(np.full((100, 120), value, np.uint8), []) == WHOLE
