"""Table of the faults of a drill: groups, sizes, units."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.gates.drill import structures, volumes, wholes
from doseledger.gates.drill.structures import grown, moved_by_mm, of_map, of_structures, shrunk
from doseledger.gates.drill.trial import Put, Trial
from doseledger.gates.drill.volumes import AIR_HU, PERCENT, of_dose, of_image, slices_filled

# In the raw data, so that ingest noted the DVH of the faulty dose or contour; or after ingest.
When = Literal["before ingest", "after ingest"]
BEFORE: When = "before ingest"
AFTER: When = "after ingest"
GROUPS = DOSE, IMAGE, STRUCTURES, MAPS, CASE = (
    "Dose", "Image", "Structures", "Signed distances", "Case",
)  # fmt: skip
# A fault without a size is there or not.
WHOLE = (1.0,)


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Parameters
    ----------
    name, title
        By which it is asked for, and the same for a reader.
    group
        One of `GROUPS`.
    change
        Puts it into a case.
    sizes, unit
        Sizes to try, rising; no unit for a fault that is there or not.
    when
        Of the two the harder one to see; both where the parity gate sees one alone.
    needs_other
        Whether another patient's case is needed.
    """

    name: str
    group: str
    title: str
    change: Put
    sizes: tuple[float, ...] = WHOLE
    unit: str = ""
    when: When = BEFORE
    needs_other: bool = False

    def put(self, at: Trial) -> Case | None:
        """Return a copy of a case with the fault; None if the case can't have it."""
        return None if self.needs_other and at.other is at.case else self.change(at)


VOXELS = (0.25, 0.5, 1.0, 2.0)
SHARES = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
SLICES = (1.0, 2.0, 3.0, 5.0)
MARGINS_MM = (1.0, 2.0, 3.0, 5.0, 10.0)
WAYS_MM = (2.0, 3.0, 5.0, 10.0, 20.0)

_dose_moved, _dose_high = of_dose(volumes.moved), of_dose(volumes.raised)
_all_moved = of_structures(lambda at: at.case.present_names, moved_by_mm)


def _organ(at: Trial) -> list[str]:
    return at.organs()[:1]


FAULTS = (
    Fault("dose_moved", DOSE, "dose moved along an axis", _dose_moved, (*VOXELS, 4.0), "voxels"),
    Fault("dose_moved_later", DOSE, "dose moved along an axis", _dose_moved, VOXELS,
          "voxels", AFTER),
    Fault("dose_high", DOSE, "dose too high", _dose_high, SHARES, "%"),
    Fault("dose_low", DOSE, "dose too low",
          of_dose(lambda dose, at: dose * (1.0 - at.size / PERCENT)), SHARES, "%"),
    Fault("dose_scaled_later", DOSE, "dose too high", _dose_high, SHARES[:-1], "%", AFTER),
    Fault("dose_cgy", DOSE, "dose in cGy", of_dose(lambda dose, at: dose * 100.0)),
    Fault("dose_fraction", DOSE, "dose of one fraction",
          of_dose(lambda dose, at: dose / (at.case.n_fractions or 1))),
    Fault("dose_slices_lost", DOSE, "slices of the dose lost",
          of_dose(slices_filled(volumes.NO_DOSE_GY)), SLICES, "slices"),
    Fault("dose_slices_repeated", DOSE, "slices of the dose repeat one",
          of_dose(volumes.slices_repeated), SLICES, "slices"),
    Fault("dose_mirrored", DOSE, "dose mirrored left to right", of_dose(volumes.mirrored)),
    Fault("dose_other", DOSE, "dose of another patient",
          of_dose(volumes.of_other("dose_gy", volumes.NO_DOSE_GY)), needs_other=True),
    Fault("dose_low_lost", DOSE, "lowest part of the dose is 0", of_dose(volumes.low_part_lost),
          (5.0, 10.0, 15.0, 25.0), "% of the voxels"),
    Fault("dose_noise", DOSE, "noise in the dose",
          of_dose(lambda dose, at: np.maximum(volumes.noisy(dose, at), 0.0)),
          (0.5, 1.0, 2.0, 5.0), "Gy"),
    Fault("ct_moved", IMAGE, "image moved along an axis", of_image(volumes.moved),
          (0.5, 1.0, 2.0, 3.0), "voxels"),
    # The patient alone: air beside him would give the whole image away.
    Fault("ct_offset", IMAGE, "HU of the patient too high",
          of_image(lambda hu, at: np.where(at.case.body, hu + at.size, hu)),
          (5.0, 10.0, 20.0, 50.0, 100.0), "HU"),
    Fault("ct_scaled", IMAGE, "HU too high from air on",
          of_image(lambda hu, at: volumes.raised(hu - AIR_HU, at) + AIR_HU),
          (1.0, 2.0, 5.0, 10.0, 20.0), "%"),
    Fault("ct_noise", IMAGE, "noise in the image", of_image(volumes.noisy),
          (10.0, 20.0, 40.0, 80.0), "HU"),
    Fault("ct_slices_lost", IMAGE, "slices of air",
          of_image(slices_filled(AIR_HU)), SLICES, "slices"),
    Fault("ct_slices_repeated", IMAGE, "slices of the image repeat one",
          of_image(volumes.slices_repeated), SLICES, "slices"),
    Fault("ct_slices_left_out", IMAGE, "slices left out, gap closed",
          of_image(volumes.slices_left_out), SLICES, "slices"),
    Fault("ct_mirrored", IMAGE, "image mirrored left to right", of_image(volumes.mirrored)),
    Fault("ct_other", IMAGE, "image of another patient",
          of_image(volumes.of_other("ct_hu", AIR_HU)), needs_other=True),
    Fault("sides_swapped", STRUCTURES, "names of left and right swapped", structures.sides_swapped),
    Fault("structures_moved", STRUCTURES, "all structures moved", _all_moved, WAYS_MM, "mm"),
    Fault("structures_moved_later", STRUCTURES, "all structures moved", _all_moved, WAYS_MM,
          "mm", AFTER),
    *(
        Fault(f"{who}_{how}", STRUCTURES, f"{title} {what}", of_structures(choose, change),
              sizes, "mm")
        for who, title, choose in (
            ("target", "main target", Trial.target), ("organ", "an organ", _organ),
        )
        for how, what, change, sizes in (
            ("moved", "moved", moved_by_mm, WAYS_MM),
            ("grown", "too large", grown, MARGINS_MM),
            ("shrunk", "too small", shrunk, MARGINS_MM),
        )
    ),
    Fault("organ_copied", STRUCTURES, "an organ is a copy of another", structures.organ_copied),
    Fault("organs_exchanged", STRUCTURES, "names of two organs exchanged",
          structures.organs_exchanged),
    Fault("sdf_sign", MAPS, "sign of a map turned round", of_map(lambda sdf, at: -sdf), when=AFTER),
    Fault("sdf_voxels", MAPS, "a map in voxels",
          of_map(lambda sdf, at: sdf / at.case.grid.spacing_mm[at.axis]), when=AFTER),
    Fault("sdf_scaled", MAPS, "distances of a map too large", of_map(structures.scaled_map),
          (5.0, 10.0, 20.0, 50.0), "%", AFTER),
    Fault("sdf_moved", MAPS, "a map moved off its mask", of_map(volumes.moved),
          (0.5, 1.0, 2.0, 3.0), "voxels", AFTER),
    Fault("case_mirrored", CASE, "all mirrored left to right", wholes.mirrored),
    Fault("valid_dose_holed", CASE, "a hole in valid_dose", wholes.valid_dose_holed,
          (0.02, 0.05, 0.1, 0.2, 1.0), "% of the body", AFTER),
    Fault("prescription_wrong", CASE, "prescription too high", wholes.prescription_wrong,
          (0.02, 0.1, 0.5, 2.0), "Gy"),
    Fault("fractions_wrong", CASE, "fractions too many", wholes.fractions_wrong,
          (1.0, 2.0, 5.0), "fractions"),
    Fault("origin_off", CASE, "origin off along an axis", wholes.origin_off,
          (0.005, 0.02, 1.0, 5.0, 50.0), "mm", AFTER),
    Fault("near_copy", CASE, "noisy copy of a case in another part", wholes.near_copy,
          when=AFTER, needs_other=True),
    Fault("mirrored_copy", CASE, "mirrored, noisy copy of such a case", wholes.mirrored_copy,
          when=AFTER, needs_other=True),
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
