"""Mid-slices of a case: where they cut, and on which side a structure is seen."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.report.figures.mid_slices import middle_index, plot_mid_slices
from doseledger.report.figures.style import house_style, small_uri
from doseledger.report.figures.views import isocentre_index

MakeCase = Callable[..., Case]


@pytest.fixture
def case(make_case: MakeCase) -> Case:
    return make_case()


def with_boxes(case: Case, boxes: dict[str, tuple[slice, slice, slice]]) -> Case:
    """The case with structures that are boxes, and none else."""
    masks = np.zeros((len(boxes), *case.grid.shape_zyx), dtype=np.bool_)
    for mask, box in zip(masks, boxes.values(), strict=True):
        mask[box] = True
    return replace(
        case, structure_names=tuple(boxes), masks=masks, present=masks.any(axis=(1, 2, 3)),
        sdf_mm=np.zeros(masks.shape, dtype=np.float16),
    )  # fmt: skip


def pixels_of(case: Case, colours: dict[str, str]) -> np.ndarray:
    from PIL import Image

    with house_style():
        uri = small_uri(plot_mid_slices(case, colours))
    assert uri.startswith("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).astype(int)


@pytest.mark.parametrize(("columns", "height_in"), [(48, 2.3125), (24, 2.4)])
def test_two_slices_of_one_scale_fit_a_line_of_5_6_in_and_2_4_in(case: Case, columns: int, height_in: float) -> None:
    # Of 48 voxels of 6 mm each takes half of the line but a gap of 0.05 in; of 24 they would be too tall.
    body = np.zeros_like(case.body)
    body[..., :columns] = True
    figure = plot_mid_slices(replace(case, body=body), {})
    assert tuple(figure.get_size_inches()) == pytest.approx((5.6, height_in))
    axial, coronal = (axis.get_position() for axis in figure.axes)
    assert axial.width == pytest.approx(coronal.width)
    assert axial.height / coronal.height == pytest.approx(40 / 24)


def test_the_slices_go_through_the_target_of_the_highest_prescription(case: Case) -> None:
    assert middle_index(case) == isocentre_index(case)


def test_without_a_target_they_go_through_the_structures_and_without_those_through_the_body(case: Case) -> None:
    z, y, x = case.grid.shape_zyx
    boxes = {"a": (slice(4, 7), slice(9, 12), slice(10, 13)), "b": (slice(4, 7), slice(9, 12), slice(20, 23))}
    plain = replace(with_boxes(case, boxes), prescription_gy={}, n_fractions=None)
    assert middle_index(plain) == (5, 10, 16)
    empty = with_boxes(plain, {"a": (slice(0, 0), slice(0, 0), slice(0, 0))})
    assert middle_index(empty) == tuple(np.rint(np.argwhere(case.body).mean(axis=0)).astype(int))
    bare = replace(empty, body=np.zeros_like(case.body))
    assert middle_index(bare) == tuple(int(np.rint((n - 1) / 2)) for n in (z, y, x))


def test_a_swapped_pair_is_seen_on_the_wrong_sides(case: Case) -> None:
    middle, (_, _, x) = isocentre_index(case), case.grid.shape_zyx
    around = (slice(middle[0] - 2, middle[0] + 3), slice(middle[1] - 2, middle[1] + 3))
    low, high = (*around, slice(x // 4, x // 4 + 4)), (*around, slice(3 * x // 4 - 4, 3 * x // 4))
    places = []
    for right, left in ((low, high), (high, low)):
        pair = with_boxes(replace(case, prescription_gy={}, n_fractions=None), {"Femur_R": right, "Femur_L": left})
        picture = pixels_of(pair, {"Femur_R": "#FF0000", "Femur_L": "#0000FF"})
        axial = picture[:, : picture.shape[1] // 2]
        red = np.argwhere((axial[..., 0] > 180) & (axial[..., 1:].max(axis=-1) < 90))[:, 1]
        blue = np.argwhere((axial[..., 2] > 180) & (axial[..., :2].max(axis=-1) < 90))[:, 1]
        places.append(red.mean() - blue.mean())
    # Rising x is the patient's left, which is on the right of the picture.
    assert places[0] < -30
    assert places[1] > 30


def test_equal_cases_give_equal_pictures_and_another_colour_another_one(case: Case) -> None:
    first = pixels_of(case, {"PTV70": "#E02000"})
    np.testing.assert_array_equal(first, pixels_of(case, {"PTV70": "#E02000"}))
    assert (first != pixels_of(case, {"PTV70": "#006080"})).any()
