"""The parity of two data sets: every limit of a contract, in every file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_json
from doseledger.gates.verdict import Finding, Verdict, make_verdict, without_explanations
from doseledger.parity.contract import Contract, ParityLimit

GATE = "parity"


def judge_parity(pairs: Sequence[Mapping[str, Any]], unpaired: Sequence[str], contract: Contract) -> Verdict:
    """Return the verdict on two data sets.

    Parameters
    ----------
    pairs
        A row for each file, array and part: `file`, `array`, `part` and the measures.
    unpaired
        What stands alone or does not fit, each a finding.
    contract
        Its `parity` block holds the limits.

    Raises
    ------
    BadInput
        If the contract has no limits: a gate without limits judges nothing.
    """
    if not contract.parity:
        raise BadInput(
            f"the contract {contract.name} has no limits under `parity`; write down how far two sets may differ"
        )
    findings = [Finding(GATE, line.partition(":")[0], "error", line) for line in unpaired]
    findings += [
        Finding(
            GATE, str(row["file"]), "error",
            f"{row['file']}: {row['array']}: {row['n_one_sided']} values are finite in one of the two only",
        )
        for row in pairs
        if row.get("n_one_sided")
    ]  # fmt: skip
    for limit in contract.parity:
        findings += _judge_limit(limit, pairs)
    limits = [without_explanations(limit.model_dump()) for limit in contract.parity]
    # Infinity is no JSON: a PSNR of equal images is told apart by a word.
    rows = [{key: str(value) if isinstance(value, float) else value for key, value in row.items()} for row in pairs]
    digest = sha256_of_json({"limits": limits, "pairs": rows, "unpaired": list(unpaired)})
    return make_verdict(GATE, digest, findings, {"n_pairs": len(pairs), "limits": limits})


def _judge_limit(limit: ParityLimit, pairs: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    wanted = f"{limit.array}: {limit.measure} {limit.operator} {limit.limit:g}"
    rows = [row for row in pairs if row["array"] == limit.array and row["part"] in ("value", limit.part)]
    if not rows:
        yield Finding(GATE, "", "error", f"{wanted}: no file of both sets has this array to be judged")
    for row in rows:
        value = row.get(limit.measure)
        name = str(row["file"])
        if value is None or math.isnan(float(value)):
            yield Finding(
                GATE, name, "error",
                f"{name}: {wanted} can't be judged, there is no such number (is the array an image large enough?)",
            )  # fmt: skip
            continue
        if not limit.is_met(value):
            yield Finding(
                GATE, name, "error", f"{name}: {wanted} is not kept, found {value:.6g}", {limit.measure: float(value)}
            )
