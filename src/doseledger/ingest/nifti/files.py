"""Raw NIfTI cohorts: image and label paired by name, loose or packed.

Loose files lie in `images` and `labels` (or `imagesTr` and `labelsTr`), a pair under one name; packed ones in a zip or
folder a case, as `image.nii.gz` and `label.nii.gz`. A `dataset.json` beside them says what the labels are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doseledger.core.damage import DAMAGED, describe
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import read_json, sha256_of_bytes, sha256_of_json
from doseledger.core.project.protocol import Protocol, folded
from doseledger.dicom.source import read_members
from doseledger.ingest.nifti.volume import unpack
from doseledger.ingest.raw import find_sources, name_each

DATASET_FILE = "dataset.json"
IMAGE, LABEL = "image", "label"
FOLDERS = {"images": (IMAGE, "labels"), "imagesTr": (IMAGE, "labelsTr"), "labels": (LABEL, "images"),
           "labelsTr": (LABEL, "imagesTr")}  # fmt: skip
ENDS = (".nii.gz", ".nii")
# nnU-Net numbers the channels of an image; the only one is the first.
ONE_CHANNEL = "_0000"


def find_volumes(raw: Path) -> dict[str, Path]:
    """Return the image of each case below a raw folder, or its zip or folder, by name, sorted.

    Of a case without an image it is the label; whoever reads the case refuses it.

    Raises
    ------
    BadInput
        If there is none, or a case is there twice.
    """
    if not any((raw / name).is_dir() for name in FOLDERS):
        return find_sources(raw)
    found: dict[str, Path] = {}
    for folder in FOLDERS:
        for name, path in name_each((raw / folder).glob("*"), _name).items():
            if name in found and FOLDERS[found[name].parent.name][0] == FOLDERS[folder][0]:
                raise BadInput(f"{name} is in {found[name].parent} and in {path.parent}; keep one")
            found.setdefault(name, path)
    if not found:
        raise BadInput(f"{raw}: no .nii and no .nii.gz in {', '.join(FOLDERS)}; copy the data set again")
    return dict(sorted(found.items()))


def find_images(source: Path) -> dict[str, Path]:
    """Return the images of a file, a folder of them, or a folder with `images`, by name, sorted.

    Raises
    ------
    BadInput
        If there is none, or two have one name.
    """
    inner = next((source / name for name in FOLDERS if FOLDERS[name][0] == IMAGE and (source / name).is_dir()), source)
    found = name_each([source] if source.is_file() else inner.glob("*"), _name)
    if not found:
        raise BadInput(f"{source}: no .nii and no .nii.gz; name a volume, or a folder of them")
    return found


def holds_nifti(source: Path) -> bool:
    """Return whether a path is a NIfTI file, or a folder with one in it or in its `images`.

    Raises
    ------
    BadInput
        If it is not there.
    """
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; name an image, or a folder of images")
    folders = [source, *(source / name for name in FOLDERS)]
    paths = [source] if source.is_file() else [path for folder in folders for path in folder.glob("*")]
    return any(_end(path.name) and not path.name.startswith(".") for path in paths)


def _name(path: Path) -> str | None:
    """The case's name by that of its file; None where it is no NIfTI."""
    end = _end(path.name)
    if not end:
        return None
    name = path.name[: -len(end)]
    return name.removesuffix(ONE_CHANNEL) if "label" not in path.parent.name else name


def read_case_files(source: Path) -> dict[str, tuple[str, bytes]]:
    """Return the files of a case by what they are, `image` and `label`: each one's name and bytes.

    Parameters
    ----------
    source
        As `find_volumes` gives it.

    Raises
    ------
    BadCase
        If a file can't be read, or one is there twice.
    """
    found: dict[str, tuple[str, bytes]] = {}
    if source.suffix.lower() == ".zip" or source.is_dir():
        members = [(_role(name), name, content) for name, content in read_members(source)]
    else:
        members = [(_role(str(path)), f"{path.parent.name}/{path.name}", read_file(path)) for path in pair_of(source)]
    for role, name, content in members:
        if role in found:
            raise BadCase(source.stem, f"{found[role][0]} and {name} are both its {role}; keep one")
        if role:
            found[role] = (name, content)
    return found


def pair_of(path: Path) -> list[Path]:
    """Return the loose files of one case: the image, the label, or both."""
    role, other = FOLDERS[path.parent.name]
    name = _name(path)
    beside = [p for p in sorted((path.parent.parent / other).glob(f"{name}*")) if _name(p) == name]
    return [path, *beside] if role == IMAGE else [*beside, path]


def _role(name: str) -> str:
    """What a file is by its folder or its own name; empty where it is neither image nor label."""
    path = Path(name)
    if _name(path) is None or path.name.startswith("."):
        return ""
    if path.parent.name in FOLDERS:
        return FOLDERS[path.parent.name][0]
    return next((role for role in (IMAGE, LABEL) if path.name.startswith(role)), "")


def read_file(path: Path) -> bytes:
    """Return a loose file's bytes.

    Raises
    ------
    BadCase
        If it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        name = path.name.partition(".")[0]
        raise BadCase(name, f"{path} can't be read ({describe(error)}); copy it again") from error


def members_to_pack(source: Path) -> dict[str, bytes]:
    """Return the files of a case as they are packed: `image.nii.gz` and `label.nii.gz`."""
    return {f"{role}{_end(name)}": data for role, (name, data) in read_case_files(source).items()}


def _end(name: str) -> str:
    return next((end for end in ENDS if name.lower().endswith(end)), "")


def volume_digest(source: Path, case_id: str) -> dict[str, str]:
    """Return the SHA256 of each file of a case, by what it is, whatever way it is packed.

    Raises
    ------
    BadCase
        If one can't be read.
    """
    files = read_case_files(source).items()
    return {role: sha256_of_bytes(unpack(data, name, case_id)) for role, (name, data) in files}


def digest_volumes(sources: Mapping[str, Path]) -> tuple[dict[str, str], dict[str, BadCase]]:
    """Return one digest of each case's files, and why a case can't be used: unreadable, or a copy of another.

    Parameters
    ----------
    sources
        As `find_volumes` gives them.
    """
    digests: dict[str, str] = {}
    unfit: dict[str, BadCase] = {}
    of_role: dict[str, dict[str, list[str]]] = {IMAGE: {}, LABEL: {}}
    for case_id, source in sources.items():
        try:
            by_role = volume_digest(source, case_id)
        except BadCase as error:
            digests[case_id], unfit[case_id] = "", BadCase(case_id, error.reason)
            continue
        digests[case_id] = sha256_of_json(by_role)
        # Who has no image has no label that could be another's.
        for role, digest in by_role.items() if len(by_role) == len(of_role) else ():
            of_role[role].setdefault(digest, []).append(case_id)
    for first, *copies in of_role[IMAGE].values():
        for case_id in copies:
            reason = f"its image is that of {first}, byte for byte; take one of the two out"
            unfit[case_id] = BadCase(case_id, reason)
    for names in of_role[LABEL].values():
        drawn = [name for name in names if name not in unfit]
        for case_id in drawn if len(drawn) > 1 else []:
            others = ", ".join(name for name in drawn if name != case_id)
            reason = f"its labels are those of {others}, byte for byte, and the images are not; find out whose they are"
            unfit[case_id] = BadCase(case_id, reason)
    return digests, unfit


def label_names(source: Path) -> dict[int, str] | None:
    """Return the name of each label value by the cohort's dataset.json; None where there is none.

    Parameters
    ----------
    source
        Of any case.

    Raises
    ------
    BadInput
        If the file names no labels, or regions of several values.
    """
    folder = source.parent.parent if source.parent.name in FOLDERS else source.parent
    path = folder / DATASET_FILE
    return read_label_names(path) if path.is_file() else None


def read_label_names(path: Path) -> dict[int, str]:
    """Return the name of each label value, background aside, of a `dataset.json`.

    Raises
    ------
    BadInput
        As `label_names`.
    """
    content = read_json(path)
    labels: Any = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not labels:
        raise BadInput(f"{path}: no `labels`; wanted the name of each value")
    try:
        # {"1": "Anterior"} in the Decathlon, {"Anterior": 1} in nnU-Net.
        pairs = [(int(key), str(value)) if str(key).lstrip("-").isdigit() else (int(value), str(key))
                 for key, value in labels.items()]  # fmt: skip
    except DAMAGED as error:
        raise BadInput(f"{path}: a label is no single value ({describe(error)}); regions can't be read") from error
    return {value: name for value, name in pairs if value != 0}


def structure_values(protocol: Protocol, known: Mapping[int, str] | None) -> dict[str, int]:
    """Return the label value of each of a protocol's structures.

    Parameters
    ----------
    known
        What dataset.json says; None where there is none.

    Raises
    ------
    BadInput
        If protocol and dataset.json do not agree on a value.
    """
    values = {structure.name: int(structure.label or 0) for structure in protocol.structures}
    for structure in protocol.structures if known is not None else []:
        said = (known or {}).get(values[structure.name])
        if said is None or folded(said) not in structure.folded_names:
            raise BadInput(
                f"protocol {protocol.name} calls label {values[structure.name]} {structure.name}, {DATASET_FILE} "
                f"{said or 'has no such label'}; mend `label`, or add the alias to the protocol"
            )
    return values
