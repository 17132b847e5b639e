"""Verdicts on data, machine and results, reached without the code under judgement."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    verdict="Finding Verdict",
    data__cohort="judge_case judge_cohort",
)
