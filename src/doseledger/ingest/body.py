"""The patient's outline: the structure set's, else a threshold of the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import Protocol, folded
from doseledger.dicom.read_structures import Roi

# Between air (-1000 HU) and fat (about -100 HU): half-way in a partial volume of skin and air.
BODY_THRESHOLD_HU = -500
# Clothes, sheets and the couch's shell are thinner than this; opening by it parts them from the patient.
OPENING_VOXELS = 2


def find_body_roi(rois: list[Roi], protocol: Protocol) -> Roi | None:
    """Return the ROI that is the outline, by the protocol's names, else by type EXTERNAL; None if there is none.

    Notes
    -----
    A name comes first: systems also mark couch and bolus shells as EXTERNAL, while only one ROI can have the name.
    """
    drawn = {folded(roi.name): roi for roi in rois if roi.items}
    for name in protocol.body_names:
        if folded(name) in drawn:
            return drawn[folded(name)]
    external = [roi for roi in rois if roi.items and roi.interpreted_type == "EXTERNAL"]
    return external[0] if external else None


def fill_body(ct_hu: NDArray[np.int16], case_id: str) -> NDArray[np.bool_]:
    """Return the patient's outline from the image alone: the largest part denser than air, holes filled on each slice.

    Raises
    ------
    BadCase
        If nothing is denser than air.
    """
    dense = ct_hu > BODY_THRESHOLD_HU
    disc = ndimage.generate_binary_structure(2, 1)[None]
    core = ndimage.binary_opening(dense, disc, iterations=OPENING_VOXELS)
    labels, count = ndimage.label(core)
    if not count:
        raise BadCase(case_id, f"no outline: no ROI is EXTERNAL, and nothing is above {BODY_THRESHOLD_HU} HU")
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body: NDArray[np.bool_] = labels == int(np.argmax(sizes))
    for layer in body:
        layer[...] = ndimage.binary_fill_holes(layer)
    return body
