"""Contours to planes, masks and layers: holes, keyholes, several parts, gaps, copies."""

from doseledger.dicom.contours.fill import fill
from doseledger.dicom.contours.layers import Layer, layers_of
from doseledger.dicom.contours.raster import Polygon, rasterise
from doseledger.dicom.contours.stack import Contour, Stack, beyond_image, stack_contours, stack_on_own_planes

__all__ = [
    "Contour",
    "Layer",
    "Polygon",
    "Stack",
    "beyond_image",
    "fill",
    "layers_of",
    "rasterise",
    "stack_contours",
    "stack_on_own_planes",
]
