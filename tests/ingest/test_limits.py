"""Each tolerance of ingest: just inside passes, just outside is refused; no number ends anybody else's ingest."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.protocol import Protocol
from doseledger.dicom.plan.read import TargetDose
from doseledger.ingest.cohort import IngestCount, IngestRun, ingest
from doseledger.ingest.patient.case import Origin, _judge_reach, convert_case
from doseledger.ingest.patient.prescription import _check_target
from doseledger.ingest.patient.roi_names import NameMatch


@pytest.fixture
def protocol(factory: ModuleType) -> Protocol:
    return Protocol.model_validate({**factory.PROTOCOL, "spacing_mm": [6.0, 5.0, 5.0]})


@pytest.mark.parametrize(
    ("dose_gy", "is_taken"),
    [(70.0, True), (70.099, True), (69.901, True), (70.101, False), (69.899, False), (73.9, False), (0.0, False),
     (math.nan, False), (math.inf, False), (-math.inf, False)],
)  # fmt: skip
def test_a_prescription_may_be_off_by_a_tenth_of_a_gray(dose_gy: float, is_taken: bool, protocol: Protocol) -> None:
    match = NameMatch(chosen={"PTV70": "PTV_70"}, used={}, unmatched=[], absent={})
    target = TargetDose(dose_gy, None, "PTV70")
    if is_taken:
        _check_target(target, [], match, protocol, "case_0001")
        return
    with pytest.raises(BadCase, match="wrong prescription: the RTPLAN gives PTV70"):
        _check_target(target, [], match, protocol, "case_0001")


@pytest.mark.parametrize(
    ("percent", "is_taken"), [(0.0, True), (0.099, True), (0.101, False), (math.nan, False), (math.inf, False)]
)
def test_the_dose_grid_may_miss_a_thousandth_of_a_target(percent: float, is_taken: bool, protocol: Protocol) -> None:
    shares = {"PTV70": {"outside_percent": percent}, "Rectum": {"outside_percent": 50.0}}
    meta: dict[str, Any] = {"case_id": "case_0001", "parity": shares, "warnings": []}
    if is_taken:
        _judge_reach(protocol, meta)
        assert meta["warnings"][-1] == "50.0 % of Rectum lies beyond the RTDOSE grid"
        return
    with pytest.raises(BadCase, match="of PTV70 lies beyond the RTDOSE grid"):
        _judge_reach(protocol, meta)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_meterset_that_is_no_number_is_a_fault_of_its_plan_and_ends_no_ingest(
    value: str, factory: ModuleType, protocol: Protocol, tmp_path: Path
) -> None:
    sound, spoilt = factory.make_patient(), factory.make_patient()
    spoilt.rtplan.FractionGroupSequence[0].ReferencedBeamSequence[0].BeamMeterset = value
    spoilt.rtplan.BeamSequence[0].ControlPointSequence[0].NominalBeamEnergy = value
    sound.save(tmp_path / "raw" / "anon_1")
    spoilt.save(tmp_path / "raw" / "anon_2")
    count = ingest(tmp_path / "raw", tmp_path / "out", protocol, IngestRun(), print)
    assert count == IngestCount(2, 0, 0, 0)
    plan = Case.load(tmp_path / "out" / "anon_2.npz").meta["plan"]
    assert plan.keys() == {"faults"}
    assert any(f"BeamMeterset holds {value}, wanted a number" in fault for fault in plan["faults"])
    assert any(f"NominalBeamEnergy holds {value}, wanted a number" in fault for fault in plan["faults"])


def test_a_case_whose_meta_holds_no_number_is_a_bad_case_and_no_crash(
    factory: ModuleType, protocol: Protocol, tmp_path: Path
) -> None:
    case = convert_case(factory.make_patient().save(tmp_path / "raw"), Origin("anon_1"), protocol)
    case.meta["parity"]["PTV70"]["mean"] = math.nan
    with pytest.raises(BadCase, match="anon_1: its meta holds NaN or infinity"):
        case.save(tmp_path / "anon_1.npz")
