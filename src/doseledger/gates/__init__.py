"""Verdicts on data, machine and results, reached without the code under judgement."""
