"""Data sets of arrays: contracts, statistics, comparison."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    contract="load_contract",
    check="check_data_set",
    compare="compare_sets",
    similarity="compare_images",
)
