"""Doses that trees tell of a training's cases, kept while it lasts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from doseledger.core.fanout import Tell
from doseledger.core.files import atomic_path
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.run import CasesByPart, Family


def told_cases(family: Family, cases: CasesByPart, folder: Path, tell: Tell) -> CasesByPart:
    """Return cases with what the family's trees tell of them; as they are where it stands on none.

    Parameters
    ----------
    folder
        Gets a file a case, mapped from then on; those of an interrupted training are taken.
    """
    told = family.told
    if told is None:
        return cases

    def kept(case: OpenCase) -> OpenCase:
        path = folder / f"{case.file.sha256}.npy"
        if not path.is_file():
            with atomic_path(path) as part, part.open("wb") as file:
                np.save(file, np.asarray(told(case).told))
        return replace(case, told=np.load(path, mmap_mode="r"))

    tell(f"the trees tell {sum(map(len, cases.values()))} cases")
    return {part: [kept(case) for case in opened] for part, opened in cases.items()}
