"""Faults of a brachytherapy plan: applicators, channels, dwell times."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset

from doseledger.dicom.values import items_of, number_of, whole_of

# Weights carry nine digits or so.
SLACK_WEIGHT = 1e-6


def brachy_faults(dataset: Dataset) -> Iterator[str]:
    """Yield what is wrong with the application setups of an RTPLAN, a sentence each.

    Notes
    -----
    DICOM PS3.3 C.8.8.13 (RT Fraction Scheme) and C.8.8.15 (RT Brachy Application Setups).
    """
    setups = items_of(dataset, "ApplicationSetupSequence")
    numbers = [whole_of(setup, "ApplicationSetupNumber") for setup in setups]
    referred: set[int | None] = set()
    for group in items_of(dataset, "FractionGroupSequence"):
        name = f"Fraction group {whole_of(group, 'FractionGroupNumber')}"
        inside = [
            whole_of(item, "ReferencedBrachyApplicationSetupNumber")
            for item in items_of(group, "ReferencedBrachyApplicationSetupSequence")
        ]
        referred |= set(inside)
        said = whole_of(group, "NumberOfBrachyApplicationSetups")
        if (said or 0) != len(inside):
            yield f"{name}: NumberOfBrachyApplicationSetups is {said}, it refers to {len(inside)} setups."
        for number in inside:
            if number not in numbers:
                yield f"{name} refers to application setup {number}, which is not in the plan."
    for number, setup in zip(numbers, setups, strict=True):
        name = f"Application setup {number}"
        if number not in referred:
            yield f"{name} treats, but no fraction group refers to it."
        channels = items_of(setup, "ChannelSequence")
        if not channels:
            yield f"{name} has no channel (ChannelSequence)."
        for channel in channels:
            yield from _channel_faults(channel, f"{name}, channel {whole_of(channel, 'ChannelNumber')}")


def _channel_faults(channel: Dataset, name: str) -> Iterator[str]:
    points = items_of(channel, "BrachyControlPointSequence")
    said = whole_of(channel, "NumberOfControlPoints")
    if said != len(points):
        yield f"{name}: NumberOfControlPoints is {said}, it has {len(points)} control points."
    if len(points) < 2:
        yield f"{name} has {len(points)} control points, wanted at least 2."
    time = number_of(channel, "ChannelTotalTime")
    if time is None or not time >= 0:
        yield f"{name}: ChannelTotalTime is {time}, wanted the time in seconds."
    last = 0.0
    for k, point in enumerate(points):
        weight = number_of(point, "CumulativeTimeWeight")
        if weight is None or not weight >= last - SLACK_WEIGHT:
            yield f"{name}, control point {k}: the cumulative time weight is {weight}, wanted at least {last:g}."
            return
        last = weight
    final = number_of(channel, "FinalCumulativeTimeWeight")
    if points and final is not None and not abs(final - last) <= SLACK_WEIGHT * max(1.0, abs(final)):
        yield f"{name}: FinalCumulativeTimeWeight is {final:g}, the last control point has {last:g}."
