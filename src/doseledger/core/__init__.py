"""Cases, grids, plans, tables and settings: the nouns of every other room."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    case="Case write_npz",
    project__protocol="Protocol load_goals load_protocol",
    project__layout="Layout",
    settings="Settings load_settings",
    tables="read_table write_table",
)
