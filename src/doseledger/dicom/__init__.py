"""DICOM-RT to arrays on a Grid and back."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    read="gather_objects",
    read_plan="read_prescription summarise_plan",
    write="make_ct make_dose",
    write_plan="make_plan",
    write_segmentation="make_segmentation",
    write_structures="Roi make_structure_set",
)
