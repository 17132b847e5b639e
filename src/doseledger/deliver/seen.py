"""Patients that a model has seen before, by names and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from doseledger.core.case import Case, map_member
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_bytes


@dataclass(frozen=True)
class SeenCases:
    """The cases that a model's weights have seen, or that chose its epoch.

    Parameters
    ----------
    roles
        What each was for, by case id: `trained on` or `selected on`.
    images
        Case id by the SHA256 of its image on the case's grid; empty where the cases themselves are not at hand.

    Notes
    -----
    A checkpoint holds the SHA256 of each case with its dose; a patient who has none yet can't have the same. So names
    are compared, which differ where the patient was renamed, and images where the cases are there to compare with.
    """

    roles: Mapping[str, str]
    images: Mapping[str, str]

    @property
    def compared(self) -> str:
        """What a patient is compared by, in words."""
        with_images = f"the image, with those of {len(self.images)} cases, and " if self.images else ""
        return f"{with_images}folder name and PatientID, with the names of {len(self.roles)} cases"

    def matches(self, case: Case, patient_id: str) -> list[str]:
        """Return in words what speaks for it that the model has seen this patient; empty if nothing does."""
        notes = []
        for name, what in ((case.case_id, "this name"), (patient_id, "this PatientID")):
            if name in self.roles:
                notes.append(
                    f"the model was {self.roles[name]} a case of {what}: its dose here is no test of the model"
                )
        same = self.images.get(_digest(case.ct_hu))
        if same is not None:
            notes.append(f"the model was {self.roles[same]} this very image ({same}): its dose here is no test of it")
        return notes


def _digest(ct_hu: np.ndarray) -> str:
    return sha256_of_bytes(repr(ct_hu.shape).encode() + np.ascontiguousarray(ct_hu).tobytes())


def seen_cases(trained_on: Mapping[str, str], selected_on: Mapping[str, str], cases: Path | None) -> SeenCases:
    """Return what a checkpoint's cases can be told by.

    Parameters
    ----------
    trained_on, selected_on
        SHA256 by case id, as the checkpoint has them.
    cases
        Folder of those cases; None where it is not at hand.

    Raises
    ------
    BadInput
        If the folder holds none of them.
    """
    roles = {**dict.fromkeys(selected_on, "selected on"), **dict.fromkeys(trained_on, "trained on")}
    paths = {case_id: cases / f"{case_id}.npz" for case_id in roles} if cases is not None else {}
    images = {_digest(map_member(path, "ct_hu")): case_id for case_id, path in paths.items() if path.is_file()}
    if cases is not None and not images:
        raise BadInput(f"{cases} holds none of the {len(roles)} cases that the model was trained on; name their folder")
    return SeenCases(roles, images)
