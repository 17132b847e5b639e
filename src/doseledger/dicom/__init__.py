"""DICOM-RT to arrays on a Grid and back."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    read="gather_objects",
    plan__read="read_prescription summarise_plan",
    write__volumes="make_ct make_dose",
    write__plan="make_plan",
    write__segmentation="make_segmentation",
    write__structures="Roi make_structure_set",
)
