"""A case for the page's viewer: image, doses, gamma and masks in PNGs.

Eight bits a voxel serve the eye: the page says how fine that is, and every number in a table comes from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.grid import box_around
from doseledger.core.types import Mask
from doseledger.report.figures.overview import SILENT_PART, WASH_PART
from doseledger.report.figures.slices import DIFFERENCE_PART, WINDOW_HU, coloured, difference_colormap, gamma_colormap
from doseledger.report.figures.style import png_uri
from doseledger.report.figures.views import Comparison, isocentre_index, isodose_levels

LEVELS = 255
# The image's steps: 4 HU in soft tissue, coarser in lung and bone. Finer ones would hold the scanner's noise, which no
# PNG makes smaller.
IMAGE_HU = np.concatenate([np.arange(-1000, -200, 20), np.arange(-200, 300, 4), np.arange(300, 1501, 25)])
GAMMA_TOP = 2.0
MASKS_A_SHEET = 8


@dataclass(frozen=True)
class Viewer:
    """What the viewer's script reads.

    Parameters
    ----------
    settings
        JSON values: shape and position of the volume, where it begins, scales of HU, Gy and gamma, colour tables,
        structures and isodoses with their colours.
    sheets
        Data URIs of PNGs: slices side by side, row by row. The first has the image in red, the plan in green and the
        prediction in blue; the second gamma, 0 where there is none, else 1 and more; each of the others eight
        structures, a bit each.
    """

    settings: dict[str, Any]
    sheets: tuple[str, ...]


def make_viewer(comparison: Comparison, colours: Mapping[str, str]) -> Viewer:
    """Return a case for the page's viewer, cut to the body's box.

    Parameters
    ----------
    colours
        Of each structure's contour, by name; one without a colour is left out.
    """
    case = comparison.case
    box = box_around(case.body if case.body.any() else np.ones_like(case.body))
    plan, predicted = comparison.plan_gy[box], comparison.predicted_gy[box]
    top_gy = float(np.ceil(max(plan.max(), predicted.max(), 1.0)))
    names = [name for name in case.present_names if name in colours]
    columns = int(np.ceil(np.sqrt(plan.shape[0])))
    image = np.searchsorted((IMAGE_HU[1:] + IMAGE_HU[:-1]) / 2, case.ct_hu[box])
    doses = [np.rint(LEVELS * np.clip(dose / top_gy, 0.0, 1.0)) for dose in (plan, predicted)]
    volumes = [np.stack([image, *doses], axis=-1).astype(np.uint8), _gamma_marks(comparison.gamma[box])]
    volumes += [
        _bits([case.mask(name)[box] for name in names[first : first + MASKS_A_SHEET]])
        for first in range(0, len(names), MASKS_A_SHEET)
    ]
    limit_gy = DIFFERENCE_PART * max(case.prescription_gy.values())
    settings = {
        "case": case.case_id,
        "shape": list(plan.shape),
        "spacing": list(case.grid.spacing_mm),
        "origin": list(case.grid.cropped((box[0].start, box[1].start, box[2].start), plan.shape).origin_mm),
        "start": [index - part.start for index, part in zip(isocentre_index(case), box, strict=True)],
        "columns": columns,
        "imageHu": IMAGE_HU.tolist(),
        "windowHu": list(WINDOW_HU),
        "topGy": top_gy,
        "leastGy": WASH_PART * max(case.prescription_gy.values()),
        "limitGy": limit_gy,
        "silentGy": SILENT_PART * limit_gy,
        "topGamma": GAMMA_TOP,
        "colours": {
            "dose": _colour_table("viridis"),
            "difference": _colour_table(difference_colormap()),
            "gamma": _colour_table(gamma_colormap()),
        },
        "structures": [{"name": name, "colour": colours[name]} for name in names],
        "isodoses": [
            {"name": label, "colour": colour, "gy": float(dose_gy)}
            for dose_gy, label, colour in coloured(isodose_levels(case))
        ],
    }
    return Viewer(settings, tuple(_atlas(volume, columns) for volume in volumes))


def _gamma_marks(gamma: NDArray[Any]) -> NDArray[np.uint8]:
    marks = 1 + np.rint((LEVELS - 1) * np.clip(gamma / GAMMA_TOP, 0.0, 1.0))
    return np.where(np.isnan(gamma), 0, marks).astype(np.uint8)


def _bits(masks: list[Mask]) -> NDArray[np.uint8]:
    """Up to eight masks in one volume: the first in the lowest bit."""
    return np.packbits(np.stack(masks), axis=0, bitorder="little")[0]


def _atlas(volume: NDArray[np.uint8], columns: int) -> str:
    """Slices, (z, y, x) in grey or (z, y, x, colour), side by side in one PNG, as a data URI."""
    # Pillow comes with matplotlib, whose own imsave would add an opaque fourth channel to each pixel.
    from PIL import Image

    n, height, width = volume.shape[:3]
    rows = -(-n // columns)
    sheet = np.zeros((rows * height, columns * width, *volume.shape[3:]), np.uint8)
    for index, picture in enumerate(volume):
        row, column = divmod(index, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return png_uri(Image.fromarray(sheet))


def _colour_table(colormap: Any) -> str:
    """256 colours as one string of hex digits, red, green and blue of each."""
    import matplotlib

    table = matplotlib.colormaps[colormap] if isinstance(colormap, str) else colormap
    return bytes(np.rint(255 * table(np.linspace(0, 1, 256))[:, :3]).astype(np.uint8).ravel()).hex()
