"""A case for the page's viewer: four volumes in two PNGs.

Eight bits a voxel serve the eye: the page says how fine that is, and every number in a table comes from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.grid import box_around
from doseledger.report.figures.slices import DIFFERENCE_PART, WINDOW_HU, difference_colormap, gamma_colormap
from doseledger.report.figures.style import png_uri
from doseledger.report.figures.views import Comparison, isocentre_index

LEVELS = 255
# Of the image: steps of 3 HU. More would hold the scanner's noise, which no PNG makes smaller.
IMAGE_LEVELS = 127
GAMMA_TOP = 2.0


@dataclass(frozen=True)
class Viewer:
    """What the viewer's script reads.

    Parameters
    ----------
    settings
        JSON values: shape and position of the volume, where it begins, scales of HU, Gy and gamma, colour tables.
    volumes, gamma
        Data URIs of PNGs: slices side by side, row by row. `volumes` has the image in red, the plan in green and the
        prediction in blue; `gamma` is 0 where there is none, else 1 and more.
    """

    settings: dict[str, Any]
    volumes: str
    gamma: str


def make_viewer(comparison: Comparison) -> Viewer:
    """Return a case for the page's viewer, cut to the body's box."""
    case = comparison.case
    box = box_around(case.body if case.body.any() else np.ones_like(case.body))
    plan, predicted, gamma = comparison.plan_gy[box], comparison.predicted_gy[box], comparison.gamma[box]
    top_gy = float(np.ceil(max(plan.max(), predicted.max(), 1.0)))
    low, high = WINDOW_HU
    shown = np.clip((case.ct_hu[box].astype(np.float32) - low) / (high - low), 0.0, 1.0)
    image = _levels(np.rint(IMAGE_LEVELS * shown) / IMAGE_LEVELS)
    grid = case.grid.cropped((box[0].start, box[1].start, box[2].start), plan.shape)
    start = [index - part.start for index, part in zip(isocentre_index(case), box, strict=True)]
    columns = int(np.ceil(np.sqrt(plan.shape[0])))
    settings = {
        "shape": list(plan.shape),
        "spacing": list(grid.spacing_mm),
        "origin": list(grid.origin_mm),
        "start": start,
        "columns": columns,
        "windowHu": list(WINDOW_HU),
        "topGy": top_gy,
        "topGamma": GAMMA_TOP,
        "limitGy": DIFFERENCE_PART * max(case.prescription_gy.values()),
        "colours": {
            "dose": _colour_table("inferno"),
            "difference": _colour_table(difference_colormap()),
            "gamma": _colour_table(gamma_colormap()),
        },
    }
    marks = np.where(np.isnan(gamma), 0, 1 + np.rint((LEVELS - 1) * np.clip(gamma / GAMMA_TOP, 0, 1)))
    doses = [_levels(dose / top_gy) for dose in (plan, predicted)]
    volumes = np.stack([image, *doses], axis=-1)
    return Viewer(settings, _atlas(volumes, columns), _atlas(marks.astype(np.uint8), columns))


def _levels(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.rint(LEVELS * np.clip(values, 0.0, 1.0)).astype(np.uint8)


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
