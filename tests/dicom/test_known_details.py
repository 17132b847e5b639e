"""Small things written out whole: described structures, pixels that are lacking, bits, and links of a folder."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.dicom.files.headers import _lacks_pixels
from doseledger.dicom.files.members import links_of
from doseledger.dicom.pixels import _check_bits
from doseledger.dicom.structure_names import describe

PIXELS = b"\xe0\x7f\x10\x00"
# Name, prescribed dose, and what is said of it.
DESCRIBED = [
    ("Body", None, "External EXTERNAL 130047 38266002 None (0, 200, 0) True"),
    ("PTV70", 70.0, "PTV_7000 PTV 130041 228793007 None (255, 0, 0) True"),
    ("PTV 70Gy", 70.0, "PTV_7000 PTV 130041 228793007 None (255, 0, 0) True"),
    ("PTV70", 56.0, "PTV70 PTV 130041 228793007 None (255, 0, 0) False"),
    ("ptv56.5", 56.5, "PTV_5650 PTV 130041 228793007 None (255, 0, 0) True"),
    ("CTV", None, "CTV CTV 130041 228792002 None (255, 90, 160) True"),
    ("ITV", None, "ITV CTV 130041 130056 None (255, 90, 160) True"),
    ("iGTVp", None, "iGTVp GTV 130041 228791009 None (170, 0, 60) False"),
    ("Boost", 14.0, "Boost PTV 130041 228793007 None (255, 0, 0) False"),
    ("Unheard of", None, "Unheard of ORGAN 91723000 123037004 None (240, 60, 92) False"),
    ("x", None, "x ORGAN 91723000 123037004 None (240, 233, 60) False"),
    ("Ring", None, "Ring ORGAN 91723000 123037004 None (240, 73, 60) False"),
    ("Shell 5mm", None, "Shell 5mm ORGAN 91723000 123037004 None (240, 60, 194) False"),
    ("b", None, "b ORGAN 91723000 123037004 None (60, 171, 240) False"),
    ("c", None, "c ORGAN 91723000 123037004 None (223, 240, 60) False"),
    ("d", None, "d ORGAN 91723000 123037004 None (204, 60, 240) False"),
    ("e", None, "e ORGAN 91723000 123037004 None (60, 240, 151) False"),
    ("g", None, "g ORGAN 91723000 123037004 None (60, 74, 240) False"),
    ("Node", None, "Node ORGAN 91723000 123037004 None (60, 240, 210) False"),
    ("Parotid", None, "Parotid ORGAN 91723000 45289007 None (80, 200, 200) False"),
    ("LeftParotid", None, "Parotid_L ORGAN 91723000 45289007 7771000 (80, 200, 200) True"),
    ("parotid rt", None, "Parotid_R ORGAN 91723000 45289007 24028007 (80, 200, 200) True"),
]


def said(name: str, dose_gy: float | None) -> str:
    found = describe(name, dose_gy)
    side = found.side.value if found.side else None
    words = (found.name, found.interpreted_type, found.category.value, found.kind.value, side, found.colour)
    return " ".join(map(str, (*words, found.is_standard)))


def test_all_that_is_said_of_a_structure_by_its_name() -> None:
    assert [(name, dose, said(name, dose)) for name, dose, _ in DESCRIBED] == DESCRIBED


@pytest.mark.parametrize(
    ("head", "n_bytes", "is_lacking"),
    [
        (PIXELS + b"OW\0\0" + (6).to_bytes(4, "little"), 6, False),
        (PIXELS + b"OW\0\0" + (6).to_bytes(4, "little"), 5, True),
        (PIXELS + b"OB\0\0" + (300).to_bytes(4, "little"), 299, True),
        (PIXELS + b"OB\0\0" + (300).to_bytes(4, "little"), 300, False),
        (PIXELS + (6).to_bytes(4, "little"), 6, False),
        (PIXELS + (6).to_bytes(4, "little"), 5, True),
        (PIXELS + b"OB\0\0\xff\xff\xff\xff", 3, False),
        (b"\xe0\x7f\x08\x00OW\0\0" + (6).to_bytes(4, "little"), 0, False),
        (b"", 0, False),
    ],
)
def test_an_image_lacks_pixels_where_fewer_bytes_follow_than_it_says(
    head: bytes, n_bytes: int, is_lacking: bool
) -> None:
    stream = io.BytesIO(b"before" + head + b"\1" * n_bytes)
    stream.seek(6)
    assert _lacks_pixels(stream) is is_lacking


@pytest.mark.parametrize(
    ("values", "padding", "is_signed", "n_beyond"),
    [
        ([0, 4095], None, 0, 0), ([0, 4096], None, 0, 1), ([0, 4095, 5000], 5000, 0, 0),
        ([0, 4095, 4096, 5000, 5001], 5000, 0, 2), ([-2048, 2047], None, 1, 0),
        ([-2049, -2048, 2047, 2048], None, 1, 2),
        ([-2048, 2047, -3000, -3001], -3000, 1, 1),
        ([0, 4095, 5000, 5500, 6000], (5000, 5500), 0, 1),
    ],
)  # fmt: skip
def test_values_beyond_the_stored_bits_are_padding_or_refused(
    values: list[int], padding: int | tuple[int, int] | None, is_signed: int, n_beyond: int, factory: ModuleType
) -> None:
    image = factory.make_ct(np.zeros((2, 2, 2)), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))[0]
    image.PixelRepresentation = is_signed
    low, high = padding if isinstance(padding, tuple) else (padding, None)
    for keyword, value in (("PixelPaddingValue", low), ("PixelPaddingRangeLimit", high)):
        if value is not None:
            image.add_new(keyword, "SS" if is_signed else "US", value)
    if not n_beyond:
        _check_bits(image, np.asarray(values), 12)
        return
    with pytest.raises(BadInput, match=rf"BitsStored is 12, but {n_beyond} pixels lie outside"):
        _check_bits(image, np.asarray(values), 12)


def test_links_are_told_by_what_they_lead_to(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "case", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a").touch()
    (folder / "plain").touch()
    assert links_of(folder) == links_of(folder / "plain") == []
    (folder / "one").symlink_to(elsewhere / "a")
    followed = "1 files are symbolic links: what they point to may change unseen"
    assert links_of(folder) == [followed]
    (folder / "two").symlink_to(elsewhere)
    (folder / "three").symlink_to(elsewhere / "nothing")
    assert links_of(folder) == [followed, "2 symbolic links to folders, or to nothing, were left out"]
    (folder / "one").unlink()
    assert links_of(folder) == ["2 symbolic links to folders, or to nothing, were left out"]
