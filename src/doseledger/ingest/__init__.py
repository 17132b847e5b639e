"""Raw DICOM, OpenKBP and splits: the road to checked cases."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    patient__case="convert_case",
    cohort="ingest",
    splits="make_splits",
)
