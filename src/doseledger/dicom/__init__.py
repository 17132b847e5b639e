"""DICOM-RT to arrays on a Grid and back."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    read="gather_objects",
    read_plan="read_prescription summarise_plan",
    write="Roi make_ct make_dose make_structure_set",
    write_plan="make_plan",
)
