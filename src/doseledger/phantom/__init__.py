"""Synthetic patients, planned and written as DICOM-RT."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    patient="Dirt draw_patient",
    cohort="make_case make_cohort",
)
