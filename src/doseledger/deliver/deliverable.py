"""Distance of a predicted dose from the nearest one that beams can give."""

from __future__ import annotations

import numpy as np

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.limit import keeps
from doseledger.core.project.protocol import Beams
from doseledger.core.types import GyArray
from doseledger.ingest.physics import fields_of
from doseledger.planning.fields.maps import nearest_dose

# Voxels count from this share of the highest dose on.
LEAST_SHARE = 0.1
# In percent of the highest prescription. `benchmarks/mimic_openkbp.py`: plans of 12 patients lie 0.8 to 5.0 % away,
# doses that fall to a half each 5 mm in every direction 7.9 % and more; synthetic prostates: plans and predictions at
# most 1.6 %, such doses 17 % and more.
MOST_PERCENT = 6.5


def undeliverable_gy(case: Case, dose_gy: GyArray, beams: Beams) -> float:
    """Return the mean distance in Gy from a dose to the nearest that beams of free fluence give.

    No leaves are sequenced, so a machine comes no nearer than this: a bound in seconds.

    Parameters
    ----------
    dose_gy
        Predicted dose, (z, y, x) on the case's grid.

    Returns
    -------
    float
        Mean over the voxels that get a tenth of the highest dose.

    Raises
    ------
    BadCase
        If the case has no target, or one that no field reaches.
    """
    high = dose_gy >= LEAST_SHARE * dose_gy.max()
    nearest = nearest_dose(fields_of(case, beams), dose_gy)
    return float(np.abs(nearest - dose_gy)[high].mean(dtype=np.float64))


def refuse_undeliverable(case: Case, apart_gy: float, beams: Beams) -> None:
    """Refuse a dose that nothing could deliver.

    Raises
    ------
    BadCase
        If it lies further from what beams give than any plan does.
    """
    prescribed = max(case.prescription_gy.values())
    percent = 100.0 * apart_gy / prescribed
    if not keeps(percent, most=MOST_PERCENT):
        raise BadCase(
            case.case_id,
            f"the predicted dose lies {apart_gy:.1f} Gy ({percent:.1f} % of {prescribed:g} Gy) from the nearest that "
            f"{len(beams.gantry_deg)} beams can give, at most {MOST_PERCENT:g} % is wanted: no machine could deliver "
            "it. Compare the patient's contours and prescription with those of the training cases",
        )
