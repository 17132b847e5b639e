"""Masks of a case or a prediction, put on the image that they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.damage import UNREADABLE, describe
from doseledger.core.errors import BadCase
from doseledger.core.grid import SAME_GRID_MM, Grid, box_within, resample_linear
from doseledger.core.npz import open_npz
from doseledger.core.types import Array, HuArray, Mask, Singles
from doseledger.dicom.distance import signed_distance

# Surfaces are interpolated within this many voxels of either grid.
REACH_VOXELS = 2.0
# What rounding makes of an image's values where it is interpolated again.
SAME_HU = 1.0
# A grid of its own may reach so much beyond the image's, in voxels of the image: it covers that whole.
BEYOND_VOXELS = 0.5


@dataclass(frozen=True)
class MaskSet:
    """Masks on one grid, and what is known of where they come from.

    Parameters
    ----------
    masks
        bool (z, y, x) by structure, of those that are there.
    absent
        Structures that are known and not there.
    prescription_gy
        Prescribed dose in Gy by target.
    model
        What predicted them; empty for those of a case.
    modality, pseudonym
        Of the image, and the PatientID that ingest found to be a pseudonym; empty where nobody says.
    ct_hu
        The image on the grid, to know it again; None for a prediction.
    knows_image
        Whether they were made from that very image, so that there is nothing to know again.
    cleaned
        In words, how a structure was cleaned when it was predicted, of those that were.
    """

    case_id: str
    grid: Grid
    masks: dict[str, Mask]
    absent: list[str] = field(default_factory=list)
    prescription_gy: dict[str, float] = field(default_factory=dict)
    model: str = ""
    modality: str = "CT"
    pseudonym: str = ""
    ct_hu: HuArray | None = None
    knows_image: bool = False
    cleaned: dict[str, str] = field(default_factory=dict)


def read_masks(path: Path) -> MaskSet:
    """Return the masks of a case's NPZ, or of a prediction's.

    A prediction holds `structure_names` and either `labels` (z, y, x), as a segmentation is written, or `masks`
    (structure, z, y, x).

    The outline of a case is there too, as `BODY`, where no structure has that name.

    Raises
    ------
    BadCase
        If there is no such file, or it holds no masks.
    """
    try:
        with open_npz(path) as npz:
            if "format_version" in npz:
                return _of_case(Case.load(path))
            drawn = "labels" if "labels" in npz else "masks"
            missing = [name for name in (drawn, "structure_names", "spacing_mm", "origin_mm") if name not in npz]
            if missing:
                found = ", ".join(sorted(npz)) or "nothing"
                raise BadCase(path.stem, f"{path.name} has no {' and no '.join(missing)}; it holds {found}")
            return _of_prediction(path.stem, npz)
    except FileNotFoundError as error:
        raise BadCase(path.stem, f"no such file: {path}") from error
    except UNREADABLE as error:
        raise BadCase(path.stem, f"{path} can't be read ({describe(error)}); make it again") from error


def _of_case(case: Case) -> MaskSet:
    present = case.present_names
    masks = {name: case.mask(name) for name in present}
    masks.setdefault("BODY", case.body)
    return MaskSet(
        case_id=case.case_id,
        grid=case.grid,
        masks=masks,
        absent=[name for name in case.structure_names if name not in present],
        prescription_gy=dict(case.prescription_gy),
        modality=str(case.meta.get("modality", "CT")),
        pseudonym=str(case.meta.get("pseudonym", "")),
        ct_hu=case.ct_hu,
    )


def _of_prediction(name: str, npz: Mapping[str, Any]) -> MaskSet:
    names = [str(structure) for structure in npz["structure_names"]]
    masks = _of_labels(name, npz["labels"], len(names)) if "labels" in npz else npz["masks"]
    meta = json.loads(str(npz["meta"])) if "meta" in npz else {}
    fits = masks.ndim == 4 and len(masks) == len(names)
    if not fits or masks.dtype not in (np.uint8, np.bool_) or masks.max(initial=0) > 1:
        found = f"{masks.dtype} {masks.shape} for {len(names)} names"
        raise BadCase(name, f"masks are {found}, wanted 0 and 1 as uint8 (structure, z, y, x); predict again")
    there = {structure: masks[k].astype(np.bool_) for k, structure in enumerate(names)}
    return MaskSet(
        case_id=str(meta.get("case_id", name)),
        grid=Grid(masks.shape[1:], tuple(npz["spacing_mm"]), tuple(npz["origin_mm"])),
        masks={structure: mask for structure, mask in there.items() if mask.any()},
        absent=[structure for structure, mask in there.items() if not mask.any()],
        model=str(meta.get("model", "unknown")),
        cleaned=dict(zip(names, map(str, npz["cleaned"]), strict=True)) if "cleaned" in npz else {},
    )


def _of_labels(name: str, labels: Array, n_names: int) -> Mask:
    """Masks (structure, z, y, x) of a label map (z, y, x): 0 outside, k + 1 in structure k."""
    whole = labels.ndim == 3 and labels.dtype == np.uint8
    highest = int(labels.max(initial=0)) if whole else 0
    if not whole or highest > n_names:
        found = f"label {highest}" if whole else f"{labels.dtype} {labels.shape}"
        wanted = f"0 to {n_names} as uint8 (z, y, x)"
        raise BadCase(name, f"labels hold {found} for {n_names} names, wanted {wanted}; predict again")
    return labels == np.arange(1, n_names + 1)[:, None, None, None]


def check_image(masks: MaskSet, ct_hu: HuArray, grid: Grid) -> None:
    """Refuse an image that the masks can't come from: it lies elsewhere, or shows something else.

    Raises
    ------
    BadCase
        Naming where masks and image lie, or how far their values are apart.
    """
    low, high = masks.grid.extent_mm
    first, last = grid.extent_mm
    spacings = zip(masks.grid.spacing_mm, grid.spacing_mm, strict=True)
    slack = [BEYOND_VOXELS * (own + images) + SAME_GRID_MM for own, images in spacings]
    inner = zip(low, high, first, last, slack, strict=True)
    if not all(a >= f - more and b <= z + more for a, b, f, z, more in inner):
        raise BadCase(
            masks.case_id,
            f"the masks lie from {_place(low)} to {_place(high)} mm (z, y, x), the image from {_place(first)} to "
            f"{_place(last)} mm; name the series that they were made from",
        )
    if masks.ct_hu is None:
        return
    # On its own voxels an image is the case's to the last unit; else as ingest interpolates it.
    seen = np.rint(resample_linear(ct_hu, grid, masks.grid, np.nan))
    off = np.abs(seen - masks.ct_hu)[np.isfinite(seen) & _body(masks)]
    if off.size == 0 or not float(off.max()) <= SAME_HU:
        worst = float(off.max()) if off.size else float("nan")
        raise BadCase(
            masks.case_id,
            f"the image is not the one of the case: values differ by up to {worst:.0f} inside the patient; name the "
            "series that the case was made from",
        )


def _body(masks: MaskSet) -> Mask:
    return np.any(list(masks.masks.values()), axis=0) if masks.masks else np.zeros(masks.grid.shape_zyx, np.bool_)


def _place(position_mm: tuple[float, float, float]) -> str:
    return "(" + ", ".join(f"{value:.1f}" for value in position_mm) + ")"


def mask_on_image(mask: Mask, grid: Grid, image_grid: Grid) -> Mask:
    """Return a mask on an image's voxels: the same voxels where the grids share them, else its surface interpolated.

    The volume is kept as nearly as the image's voxels allow.

    Parameters
    ----------
    mask
        bool (z, y, x) on `grid`.
    """
    result = np.zeros(image_grid.shape_zyx, dtype=np.bool_)
    start = image_grid.mm_to_index(np.asarray(grid.origin_mm))
    off_mm = np.abs(start - np.rint(start)) * image_grid.spacing_mm
    low = tuple(int(index) for index in np.rint(start))
    high = tuple(a + n for a, n in zip(low, grid.shape_zyx, strict=True))
    fits = min(low) >= 0 and all(b <= n for b, n in zip(high, image_grid.shape_zyx, strict=True))
    if off_mm.max() <= SAME_GRID_MM and fits:
        z, y, x = (slice(a, b) for a, b in zip(low, high, strict=True))
        if image_grid.inside((z, y, x)).same_as(grid):
            result[z, y, x] = mask
            return result
    reach_mm = REACH_VOXELS * max(*grid.spacing_mm, *image_grid.spacing_mm)
    box = box_within(image_grid, grid)
    if box is not None and mask.any():
        field_mm = resample_linear(signed_distance(mask, grid, reach_mm), grid, image_grid.inside(box), reach_mm)
        result[box] = _holding(field_mm, float(mask.sum()) * grid.voxel_volume_cc, image_grid)
    return result


def _holding(field_mm: Singles, volume_cc: float, grid: Grid) -> Mask:
    """The voxels below a level of a distance that hold a volume, or come nearest; at most half a voxel off the surface.

    Interpolation cuts edges and corners off; a surface moved out by as little as that takes keeps the volume.
    """
    wanted = round(volume_cc / grid.voxel_volume_cc)
    most_mm = min(grid.spacing_mm) / 2.0
    if not 1 <= wanted <= field_mm.size:
        return field_mm < 0
    level_mm = np.clip(np.partition(field_mm, wanted - 1, axis=None)[wanted - 1], -most_mm, most_mm)
    # Voxels at one distance come in together: with them or without, whichever is nearer.
    without, together = field_mm < level_mm, field_mm <= level_mm
    counts = np.count_nonzero(without), np.count_nonzero(together)
    return without if abs(counts[0] - wanted) < abs(counts[1] - wanted) else together
