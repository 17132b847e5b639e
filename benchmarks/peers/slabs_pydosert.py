"""Dose in slabs of lung by PyDoseRT, for benchmarks/slabs.py --peer.

    python benchmarks/peers/slabs_pydosert.py pydosert.csv

Run it in an environment of its own (pydosert==1.5.0). Its `PencilDepthEngine`, with the beam quality of 6 MV;
densities are given to it as they are.
"""

from __future__ import annotations

import numpy as np
from layers import SLABS, fill, write_ratios

TPR_20_10 = 0.667
SPACING_MM, SHAPE, MIDDLE, N_PAIRS = (2.5, 2.0, 2.5), (129, 150, 129), 64, 80
DEPTH_MM = 2.0 * np.arange(SHAPE[1]) + 1.0
# Voxels of a kernel's side: 125 mm either way.
KERNEL = 101


def doses_on_axis(side_mm: int) -> dict[str, np.ndarray]:
    """Return the dose on the axis of a square field in each slab, isocentre at 100 mm."""
    import torch
    from pydosert import Beam, MachineConfig, PencilDepthEngine

    config = MachineConfig(tpr_20_10=TPR_20_10, number_of_leaf_pairs=N_PAIRS, leaf_widths=[5.0] * N_PAIRS)
    isocentre = (MIDDLE * SPACING_MM[0], 100.0 - DEPTH_MM[0], MIDDLE * SPACING_MM[2])
    beam = Beam.create(0.0, N_PAIRS, iso_center=isocentre, device="cpu", requires_grad=False)
    for ends in (beam.leaf_positions, beam.jaw_positions):
        ends[..., 0], ends[..., 1] = -side_mm / 2, side_mm / 2
    engine = PencilDepthEngine(config, KERNEL, SPACING_MM, SHAPE, beam, device="cpu")
    found = {}
    for slab in SLABS:
        density = np.zeros(SHAPE, dtype=np.float32)
        fill(density, DEPTH_MM, slab)
        with torch.no_grad():
            dose = engine.compute_dose(beam, torch.from_numpy(density))
        found[slab] = dose[0, MIDDLE, :, MIDDLE].double().numpy()
    return found


if __name__ == "__main__":
    write_ratios(doses_on_axis, DEPTH_MM, __doc__.split("\n")[0])
