"""Stored pixels of an image or a dose, after a check of header and bytes."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import pixel_array
from pydicom.uid import UID, RLELossless

from doseledger.core.damage import describe
from doseledger.core.errors import BadInput
from doseledger.core.grid import MOST_VOXELS
from doseledger.dicom.values import MALFORMED, value_of, whole, whole_of

BITS = (8, 16, 32)
# A run of 128 equal bytes takes two (PS3.5 annex G).
MOST_RLE_GROWTH = 64


def n_frames(dataset: pydicom.Dataset) -> int:
    """Return Number of Frames (0028,0008); 1 where it is absent or empty.

    Raises
    ------
    BadInput
        If it is no whole number of at least 1.
    """
    found = whole_of(dataset, "NumberOfFrames")
    if found is not None and found < 1:
        raise BadInput(f"NumberOfFrames is {found}, wanted at least 1; export it again")
    return 1 if found is None else found


def read_pixels(dataset: pydicom.Dataset) -> NDArray[np.integer[Any]]:
    """Return the stored values of a grey image or a dose, (frame, row, column), signed or not as the file says.

    Raises
    ------
    BadInput
        If an attribute that describes the pixels is missing or can't be, PixelData has another length than they say,
        bits are set that BitsStored does not cover, or the transfer syntax can't be decoded.

    Notes
    -----
    DICOM PS3.3 C.7.6.3 and PS3.5 8.1.1, 8.2. Nothing is masked or shifted: pydicom would cut values to BitsStored, and
    take the first of too many bytes, without an error. A value that is the declared padding may lie outside BitsStored.
    """
    shape, allocated, stored = check_header(dataset)
    values = _decode(dataset, shape, allocated)
    _check_bits(dataset, values, stored)
    return values


def check_header(dataset: pydicom.Dataset) -> tuple[tuple[int, int, int], int, int]:
    """Return what a file says of its pixels: (frame, row, column), bits allocated and bits stored.

    Raises
    ------
    BadInput
        If an attribute is missing, or can't be.
    """
    shape = (n_frames(dataset), _size(dataset, "Rows"), _size(dataset, "Columns"))
    samples = whole_of(dataset, "SamplesPerPixel")
    if samples not in (None, 1):
        raise BadInput(f"SamplesPerPixel is {samples}, wanted 1: grey values")
    allocated, stored = whole(dataset, "BitsAllocated"), whole(dataset, "BitsStored")
    if allocated not in BITS or not 1 <= stored <= allocated:
        raise BadInput(f"BitsAllocated is {allocated} and BitsStored {stored}, wanted 8, 16 or 32 and no more; export")
    high = whole_of(dataset, "HighBit")
    if high is not None and high != stored - 1:
        raise BadInput(f"HighBit is {high}, wanted {stored - 1}, one less than BitsStored; export again")
    is_signed(dataset)
    if math.prod(shape) > MOST_VOXELS:
        raise BadInput(f"its header says {shape} pixels (frame, row, column), more than any patient's; export again")
    return shape, allocated, stored


def is_signed(dataset: pydicom.Dataset) -> bool:
    """Return whether pixels are signed, by Pixel Representation (0028,0103).

    Raises
    ------
    BadInput
        If it is neither 0 nor 1.
    """
    found = whole(dataset, "PixelRepresentation")
    if found not in (0, 1):
        raise BadInput(f"PixelRepresentation is {found}, wanted 0 or 1; export again")
    return found == 1


def pixel_value_of(dataset: pydicom.Dataset, keyword: str) -> int | None:
    """Return an attribute that stands for a stored pixel value, as the pixels are represented; None where it is absent.

    Raises
    ------
    BadInput
        If it is no pixel value.

    Notes
    -----
    The type of these attributes is "US or SS", after Pixel Representation; some systems write the same bits as the
    other one: 63536 as US is -2000 in signed pixels of 16 bits, -2000 as SS is 63536 in unsigned ones.
    """
    value = value_of(dataset, keyword)
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian if hasattr(dataset, "file_meta") else True
    if isinstance(value, bytes) and len(value) in (2, 4):
        found = int.from_bytes(value, "little" if little else "big")
    else:
        whole_found = whole_of(dataset, keyword)
        if whole_found is None:
            return None
        found = whole_found
    bits = whole(dataset, "BitsAllocated")
    low, span = (-(1 << (bits - 1)) if is_signed(dataset) else 0), 1 << bits
    if not -span // 2 <= found < span:
        raise BadInput(f"{keyword} is {found}, which {bits} bits can't hold; export again")
    return (found - low) % span + low


def padding_of(dataset: pydicom.Dataset) -> tuple[int, int] | None:
    """Return the least and the greatest stored value that is padding; None where the file declares none.

    Notes
    -----
    Pixel Padding Value (0028,0120) and Pixel Padding Range Limit (0028,0121): DICOM PS3.3 C.7.5.1.1.2.
    """
    value = pixel_value_of(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = pixel_value_of(dataset, "PixelPaddingRangeLimit")
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _size(dataset: pydicom.Dataset, keyword: str) -> int:
    found = whole(dataset, keyword)
    if not 1 <= found <= 65535:
        raise BadInput(f"{keyword} is {found}, wanted 1 to 65535; export again")
    return found


def _decode(dataset: pydicom.Dataset, shape: tuple[int, int, int], allocated: int) -> NDArray[np.integer[Any]]:
    syntax = dataset.file_meta.TransferSyntaxUID
    content = value_of(dataset, "PixelData")
    if not isinstance(content, (bytes, bytearray)):
        raise BadInput(f"pixels ({syntax.name}) can't be decoded: no PixelData; export it again")
    expected = math.prod(shape) * allocated // 8
    try:
        encapsulated = syntax.is_encapsulated
    except ValueError as error:
        raise BadInput(
            f"pixels can't be decoded: transfer syntax {syntax} is not known; export uncompressed"
        ) from error
    if not encapsulated and len(content) not in (expected, expected + expected % 2):
        says = " × ".join(map(str, shape))
        raise BadInput(
            f"pixels ({syntax.name}) can't be decoded: PixelData has {len(content)} bytes, wanted {expected} for "
            f"{says} pixels of {allocated} bits; copy or export it again"
        )
    if encapsulated and syntax == RLELossless and expected > MOST_RLE_GROWTH * len(content):
        raise BadInput(f"PixelData has {len(content)} bytes, too few for {expected} bytes of pixels; export it again")
    return _decoded(dataset, syntax, shape)


def _decoded(dataset: pydicom.Dataset, syntax: UID, shape: tuple[int, int, int]) -> NDArray[np.integer[Any]]:
    with warnings.catch_warnings():
        # What pydicom would only warn of here are pixels that are not where the header says.
        warnings.simplefilter("error")
        try:
            options = {} if syntax.is_encapsulated else {"correct_unused_bits": False}
            values: NDArray[np.integer[Any]] = pixel_array(dataset, raw=True, **options).reshape(shape)
        except (*MALFORMED, Warning) as error:
            reason = describe(error)
            raise BadInput(f"pixels ({syntax.name}) can't be decoded: {reason}; export uncompressed") from error
    return values


def _check_bits(dataset: pydicom.Dataset, values: NDArray[np.integer[Any]], stored: int) -> None:
    """Refuse values that BitsStored does not cover: which of the two is wrong can't be seen."""
    low, high = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if is_signed(dataset) else (0, (1 << stored) - 1)
    if values.min() >= low and values.max() <= high:
        return
    padding = padding_of(dataset)
    beyond = (values < low) | (values > high)
    if padding is not None:
        beyond &= (values < padding[0]) | (values > padding[1])
    if beyond.any():
        raise BadInput(
            f"BitsStored is {stored}, but {int(beyond.sum())} pixels lie outside {low} to {high}; one of them was "
            "changed, export it again"
        )
