"""The audit log and its checks."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    log="append_entry read_entries read_head",
    check="verify",
)
