"""Errors, DVHs, goals and gamma of predicted doses."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    case="CaseMetrics evaluate_case",
    cohort="evaluate_cohort",
    compare="compare_models",
)
