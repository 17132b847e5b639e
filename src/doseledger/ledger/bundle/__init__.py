"""Sealed bundles: packed, verified, rehydrated."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    record="Order",
    sources="Wanted",
    verify="verify_bundle",
)
