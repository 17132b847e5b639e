"""Faults that a drill puts into cases: unit, sizes, and when it happens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from doseledger.core.errors import BadInput
from doseledger.gates.drill import structures, volumes, wholes
from doseledger.gates.drill.draw import Put
from doseledger.gates.drill.structures import of_all, of_map, of_organ, of_target
from doseledger.gates.drill.volumes import of_dose, of_image

# In the raw data, so that ingest noted the DVH of the faulty dose or contour; or between ingest and the gate.
When = Literal["before ingest", "after ingest"]
BEFORE: When = "before ingest"
AFTER: When = "after ingest"
GROUPS = ("Dose", "Image", "Structures", "Signed distances", "Case")
# A fault without a size is there or not.
WHOLE = (1.0,)


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Parameters
    ----------
    name
        How it is asked for.
    group
        One of `GROUPS`.
    title
        The same for a reader.
    when
        Before ingest, which then notes the DVH of the faulty data, or after it. Of two ways the harder one is taken;
        both where the parity gate sees one alone.
    put
        Puts it into a case.
    sizes
        Which are tried, rising.
    unit
        Theirs; empty for a fault that is there or not.
    needs_other
        Whether another patient's case is needed.
    """

    name: str
    group: str
    title: str
    when: When
    put: Put
    sizes: tuple[float, ...] = WHOLE
    unit: str = ""
    needs_other: bool = False


VOXELS = (0.25, 0.5, 1.0, 2.0)
SHARES = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
SLICES = (1.0, 2.0, 3.0, 5.0)
MARGINS_MM = (1.0, 2.0, 3.0, 5.0, 10.0)
WAYS_MM = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)

_DOSE, _IMAGE, _STRUCTURES, _MAPS, _CASE = GROUPS
FAULTS = (
    Fault("dose_moved", _DOSE, "dose moved along an axis", BEFORE, of_dose(volumes.moved), (*VOXELS, 4.0), "voxels"),
    Fault("dose_moved_later", _DOSE, "dose moved along an axis", AFTER, of_dose(volumes.moved), VOXELS, "voxels"),
    Fault("dose_high", _DOSE, "dose too high", BEFORE, of_dose(volumes.scaled_up), SHARES, "%"),
    Fault("dose_low", _DOSE, "dose too low", BEFORE, of_dose(volumes.scaled_down), SHARES, "%"),
    Fault("dose_scaled_later", _DOSE, "dose too high", AFTER, of_dose(volumes.scaled_up), SHARES[:-1], "%"),
    Fault("dose_cgy", _DOSE, "dose in cGy", BEFORE, of_dose(volumes.in_cgy)),
    Fault("dose_fraction", _DOSE, "dose of one fraction", BEFORE, of_dose(volumes.of_one_fraction)),
    Fault("dose_slices_lost", _DOSE, "slices of the dose lost", BEFORE, of_dose(volumes.dose_slices_lost), SLICES,
          "slices"),
    Fault("dose_slices_repeated", _DOSE, "slices of the dose repeat one", BEFORE, of_dose(volumes.slices_repeated),
          SLICES, "slices"),
    Fault("dose_mirrored", _DOSE, "dose mirrored left to right", BEFORE, of_dose(volumes.mirrored)),
    Fault("dose_other", _DOSE, "dose of another patient", BEFORE, volumes.others_dose, needs_other=True),
    Fault("dose_low_lost", _DOSE, "lowest part of the dose is 0", BEFORE, of_dose(volumes.low_part_lost),
          (5.0, 10.0, 15.0, 25.0), "% of the voxels"),
    Fault("dose_noise", _DOSE, "noise in the dose", BEFORE, of_dose(volumes.noisy_dose), (0.5, 1.0, 2.0, 5.0), "Gy"),
    Fault("ct_moved", _IMAGE, "image moved along an axis", BEFORE, of_image(volumes.moved), (0.5, 1.0, 2.0, 3.0),
          "voxels"),
    Fault("ct_offset", _IMAGE, "HU of the patient too high", BEFORE, of_image(volumes.offset),
          (5.0, 10.0, 20.0, 50.0, 100.0), "HU"),
    Fault("ct_scaled", _IMAGE, "HU too high from air on", BEFORE, of_image(volumes.scaled_from_air),
          (1.0, 2.0, 5.0, 10.0, 20.0), "%"),
    Fault("ct_noise", _IMAGE, "noise in the image", BEFORE, of_image(volumes.noisy), (10.0, 20.0, 40.0, 80.0), "HU"),
    Fault("ct_slices_lost", _IMAGE, "slices of air", BEFORE, of_image(volumes.image_slices_lost), SLICES, "slices"),
    Fault("ct_slices_repeated", _IMAGE, "slices of the image repeat one", BEFORE, of_image(volumes.slices_repeated),
          SLICES, "slices"),
    Fault("ct_slices_left_out", _IMAGE, "slices left out, gap closed", BEFORE, of_image(volumes.slices_left_out),
          SLICES, "slices"),
    Fault("ct_mirrored", _IMAGE, "image mirrored left to right", BEFORE, of_image(volumes.mirrored)),
    Fault("ct_other", _IMAGE, "image of another patient", BEFORE, volumes.others_image, needs_other=True),
    Fault("sides_swapped", _STRUCTURES, "names of left and right swapped", BEFORE, structures.sides_swapped),
    Fault("structures_moved", _STRUCTURES, "all structures moved", BEFORE, of_all(structures.moved_by_mm), WAYS_MM[:-1],
          "mm"),
    Fault("structures_moved_later", _STRUCTURES, "all structures moved", AFTER, of_all(structures.moved_by_mm),
          WAYS_MM[:-1], "mm"),
    Fault("target_moved", _STRUCTURES, "main target moved", BEFORE, of_target(structures.moved_by_mm), WAYS_MM, "mm"),
    Fault("target_grown", _STRUCTURES, "main target too large", BEFORE, of_target(structures.grown), MARGINS_MM, "mm"),
    Fault("target_shrunk", _STRUCTURES, "main target too small", BEFORE, of_target(structures.shrunk), MARGINS_MM,
          "mm"),
    Fault("organ_moved", _STRUCTURES, "an organ moved", BEFORE, of_organ(structures.moved_by_mm), WAYS_MM, "mm"),
    Fault("organ_grown", _STRUCTURES, "an organ too large", BEFORE, of_organ(structures.grown), MARGINS_MM, "mm"),
    Fault("organ_shrunk", _STRUCTURES, "an organ too small", BEFORE, of_organ(structures.shrunk), MARGINS_MM, "mm"),
    Fault("organ_copied", _STRUCTURES, "an organ is a copy of another", BEFORE, structures.organ_copied),
    Fault("organs_exchanged", _STRUCTURES, "names of two organs exchanged", BEFORE, structures.organs_exchanged),
    Fault("sdf_sign", _MAPS, "sign of a map turned round", AFTER, of_map(structures.sign_turned)),
    Fault("sdf_voxels", _MAPS, "a map in voxels", AFTER, of_map(structures.in_voxels)),
    Fault("sdf_scaled", _MAPS, "distances of a map too large", AFTER, of_map(structures.map_scaled),
          (5.0, 10.0, 20.0, 50.0), "%"),
    Fault("sdf_moved", _MAPS, "a map moved off its mask", AFTER, of_map(volumes.moved), (0.5, 1.0, 2.0, 3.0), "voxels"),
    Fault("case_mirrored", _CASE, "all mirrored left to right", BEFORE, wholes.mirrored),
    Fault("valid_dose_holed", _CASE, "a hole in valid_dose", AFTER, wholes.valid_dose_holed,
          (0.02, 0.05, 0.1, 0.2, 1.0), "% of the body"),
    Fault("prescription_wrong", _CASE, "prescription too high", BEFORE, wholes.prescription_wrong,
          (0.02, 0.1, 0.5, 2.0), "Gy"),
    Fault("fractions_wrong", _CASE, "fractions too many", BEFORE, wholes.fractions_wrong, (1.0, 2.0, 5.0), "fractions"),
    Fault("origin_off", _CASE, "origin off along an axis", AFTER, wholes.origin_off, (0.005, 0.02, 1.0, 5.0, 50.0),
          "mm"),
    Fault("near_copy", _CASE, "noisy copy of a case in another part", AFTER, wholes.near_copy, needs_other=True),
    Fault("mirrored_copy", _CASE, "mirrored, noisy copy of such a case", AFTER, wholes.mirrored_copy,
          needs_other=True),
)  # fmt: skip


def choose_faults(names: Iterable[str]) -> list[Fault]:
    """Return the faults of some names in the order of the table; all for no name.

    Raises
    ------
    BadInput
        Naming what is no fault, and the nearest name that is.
    """
    known = {fault.name: fault for fault in FAULTS}
    wanted = list(names)
    for name in wanted:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise BadInput(f"no fault is called {name!r}; there are {', '.join(known)}.{hint}")
    return [fault for fault in FAULTS if not wanted or fault.name in wanted]
