"""What a bundle does not take: each refusal with its words, and nothing left behind."""

from __future__ import annotations

import hashlib
import io
import json
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.ledger.bundle import pack as bundle
from doseledger.ledger.bundle.bitrot import Recorded
from doseledger.ledger.bundle.manifest import Entry, Source
from doseledger.ledger.bundle.pack import pack
from doseledger.ledger.bundle.record import Order, check_scenario
from doseledger.ledger.bundle.rehydrate import rehydrate
from doseledger.ledger.bundle.sources import Wanted, evidence_summary, gather, pair_files

MakeOrder = Callable[..., Order]


def silent(line: str) -> None:
    """Tell nobody."""


def refused(order: Order, tmp_path: Path, message: str, error: type[Exception] = BadInput) -> None:
    out = tmp_path / "release" / "toy.tar"
    with pytest.raises(error, match=message):
        pack(out, order, None, silent)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_a_broken_contract_stops_the_pack_and_names_every_file(
    order: MakeOrder, project: Path, rewrite: Callable[..., None], tmp_path: Path
) -> None:
    rewrite(project / "data/cases/toy/case_0002.npz", dose_gy=np.full((24, 40, 48), np.nan, np.float32))
    refused(
        order(),
        tmp_path,
        r"breaks the contract case in 2 place\(s\):\n  - case_0002\.npz: dose_gy: 46080 values are NaN",
    )


def test_data_without_a_contract_are_refused(order: MakeOrder, tmp_path: Path) -> None:
    refused(order(contract=None), tmp_path, "data are packed under a contract: give --contract")


def test_an_array_of_objects_is_refused_wherever_it_lies(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    np.savez(project / "models/toy/extra.npz", bad=np.asarray([None], dtype=object))
    refused(order(), tmp_path, r"extra\.npz: bad is an array of objects, which is a pickle")


def test_links_are_refused_files_and_folders(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    (project / "models/toy/here").symlink_to(project / "data")
    refused(order(), tmp_path, r"here: a symbolic link, which would point nowhere")
    (project / "models/toy/here").unlink()
    (project / "models/toy/last.ckpt").symlink_to(project / "models/toy/checkpoints/best.ckpt")
    refused(order(), tmp_path, r"last\.ckpt: a symbolic link")
    (project / "models/toy/last.ckpt").unlink()
    (project / "alias").symlink_to(project / "data/cases/toy")
    refused(order(Wanted(data=(project / "alias",))), tmp_path, r"alias: a symbolic link; give the file or folder")


def test_two_names_that_are_one_where_case_does_not_count_are_refused(
    order: MakeOrder, project: Path, tmp_path: Path
) -> None:
    (project / "models/toy/Notes.txt").write_text("a")
    (project / "models/toy/notes.txt").write_text("b")
    refused(
        order(), tmp_path, r"'models/toy/notes\.txt' and 'models/toy/Notes\.txt' are one file where case does not count"
    )


def test_a_name_that_other_machines_do_not_take_is_refused(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    (project / "models/toy/a:b.txt").write_text("a")
    refused(order(), tmp_path, r"'models/toy/a:b\.txt' holds a character that not every file system takes")


def test_a_file_called_as_one_of_the_bundles_own_is_refused(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    (project / "README.md").write_text("mine")
    refused(order(Wanted(reports=(project / "README.md",))), tmp_path, r"'README\.md' is there twice")


def test_absent_and_strange_things_are_refused(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    refused(order(Wanted(runs=(project / "nowhere",))), tmp_path, "nowhere: no such file or folder")
    refused(order(Wanted()), tmp_path, "nothing to pack")
    (project / "list.json").write_text("[1]")
    files = pair_files([project / "weights.dill"], [project / "list.json"], [])
    refused(order(Wanted(files=files)), tmp_path, "wanted a JSON object of parameters, found list")


def test_a_bundle_is_never_overwritten(order: MakeOrder, tmp_path: Path) -> None:
    pack(tmp_path / "toy.tar", order(part_bytes=10**9), None, silent)
    with pytest.raises(
        BadInput, match=r"toy\.tar\.index\.json, toy\.tar\.001 is there already; a bundle is never over"
    ):
        pack(tmp_path / "toy.tar", order(), None, silent)
    with pytest.raises(BadInput, match=r"wanted a name that ends in \.tar"):
        pack(tmp_path / "toy.zip", order(), None, silent)


@pytest.mark.parametrize(
    "change", [b"<p>MAE 9.9 Gy</p>", b"", b"<p>MAE 1.2 Gy</p> and more"], ids=["other", "less", "more"]
)
def test_a_file_that_changes_while_it_is_packed_is_noticed(
    change: bytes, order: MakeOrder, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = bundle.measure

    def measure_then_change(source: Source, *more: Any) -> Entry:
        entry = real(source, *more)
        if source.name.endswith("report.html"):
            source.path.write_bytes(change)
        return entry

    monkeypatch.setattr(bundle, "measure", measure_then_change)
    refused(order(), tmp_path, r"report\.html: changed while it was packed; let what writes it end")


def test_a_file_that_changes_after_its_contract_was_checked_is_noticed(
    order: MakeOrder, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = bundle.check_data_set

    def check_then_change(folder: Path, contract: Any) -> Any:
        check = real(folder, contract)
        np.savez(folder / "case_0002.npz", other=np.zeros(3))
        return check

    monkeypatch.setattr(bundle, "check_data_set", check_then_change)
    refused(order(), tmp_path, r"case_0002\.npz: changed while it was read; let what writes it end, and pack again")


def test_what_dvc_recorded_is_compared_and_its_stage_named(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    digest = hashlib.md5((project / "report.html").read_bytes(), usedforsecurity=False).hexdigest()
    stages = {
        "report": {"cmd": "make report", "outs": [{"path": "report.html", "md5": digest}]},
        "train": {"cmd": "make train", "outs": [{"path": "models/toy", "md5": f"{'1' * 32}.dir"}]},
        "other": {"cmd": "make other", "outs": [{"path": "elsewhere", "md5": "2" * 32}]},
    }
    stages["report"]["deps"] = [{"path": "models/toy/checkpoints", "md5": "3" * 32}]
    (project / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    (tmp_path / "cache").mkdir()
    pack(tmp_path / "release" / "toy.tar", order(), tmp_path / "cache", silent)
    rehydrate(tmp_path / "release" / "toy.tar", tmp_path / "back", "", silent)
    manifest = json.loads((tmp_path / "back" / "manifest.json").read_text())
    found = {item["path"]: (item.get("stage", ""), item.get("md5", "")) for item in manifest["files"]}
    assert found["report.html"] == ("report", digest)
    # The cache has no list of the folder: the stage is known, the hash of a single file is not.
    assert found["models/toy/checkpoints/best.ckpt"] == ("train", "")
    assert found["data/cases/toy/case_0001.npz"] == ("", "")
    assert [stage["stage"] for stage in manifest["stages"]] == ["report", "train"]
    readme = (tmp_path / "back" / "README.md").read_text()
    assert "1 of the\n6 files were compared with such a record" in readme


@pytest.mark.parametrize("through", ["a link to the project", "a link in the project", "a link to another disk"])
def test_a_path_through_a_link_keeps_its_place_and_its_record(through: str, project: Path, tmp_path: Path) -> None:
    data = project / "data" / "cases" / "toy"
    if through == "a link to the project":
        (tmp_path / "link").symlink_to(project)
        data = tmp_path / "link" / "data" / "cases" / "toy"
    elif through == "a link in the project":
        (project / "alias").symlink_to(project / "data")
        data = project / "alias" / "cases" / "toy"
    else:
        (project / "data").rename(tmp_path / "disk")
        (project / "data").symlink_to(tmp_path / "disk")
    place = "data/cases/toy/case_0001.npz"
    recorded = {place: Recorded(place, "1" * 32, "ingest")}
    found = {source.name: source for source in gather(Wanted(data=(data,)), project, recorded)}
    assert (found[place].stage, found[place].md5) == ("ingest", "1" * 32)


def test_a_path_outside_the_project_goes_below_its_role(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.npz").write_bytes(b"x")
    assert "data/elsewhere/a.npz" in {
        source.name for source in gather(Wanted(data=(tmp_path / "elsewhere",)), project, {})
    }


def test_commands_of_a_stage_are_joined_and_the_name_of_an_algorithm_is_no_hash(
    order: MakeOrder, project: Path, tmp_path: Path
) -> None:
    stage = {
        "cmd": ["make  one", "make two"],
        "deps": [{"path": "s3://bucket/raw", "hash": "etag", "etag": "abc"}],
        "outs": [{"path": "report.html", "md5": hashlib.md5((project / "report.html").read_bytes()).hexdigest()}],
    }
    (project / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"report": stage}}))
    (tmp_path / "cache").mkdir()
    pack(tmp_path / "release" / "toy.tar", order(), tmp_path / "cache", silent)
    rehydrate(tmp_path / "release" / "toy.tar", tmp_path / "back", "", silent)
    (told,) = json.loads((tmp_path / "back" / "manifest.json").read_text())["stages"]
    assert told["command"] == "make one && make two"
    assert told["reads"] == {"s3://bucket/raw": ""}


def test_a_file_that_is_not_what_dvc_recorded_is_refused(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    lock = {"schema": "2.0", "stages": {"report": {"cmd": "x", "outs": [{"path": "report.html", "md5": "0" * 32}]}}}
    (project / "dvc.lock").write_text(json.dumps(lock))
    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(BadInput, match=r"report\.html: not what the stage report wrote by dvc\.lock \(md5 0{32}\)"):
        pack(tmp_path / "release" / "toy.tar", order(), cache, silent)


def test_too_many_parts_are_refused(order: MakeOrder, tmp_path: Path) -> None:
    refused(order(part_bytes=500), tmp_path, "more than 999 parts; give a larger --part-size-mb")


def test_sidecars_that_could_belong_to_any_file_are_refused(project: Path) -> None:
    with pytest.raises(BadInput, match=r"2 --file and 1 --params: give one for each file"):
        pair_files([project / "weights.dill", project / "report.html"], [project / "weights.json"], [])
    pairs = pair_files([project / "weights.dill", project / "report.html"], [Path("-"), project / "weights.json"], [])
    assert [pair.parameters for pair in pairs] == [None, project / "weights.json"]


def test_a_scenario_is_an_identifier() -> None:
    assert check_scenario("S-7.b") == "S-7.b"
    with pytest.raises(BadInput, match=r"scenario '\.\./x': wanted letters"):
        check_scenario("../x")


@pytest.mark.parametrize(
    ("log", "line", "failed"),
    [
        ("=== 10 passed in 3.21s ===\n", "10 passed", 0),
        ("=== 2 failed, 10 passed, 1 error in 75.00s (0:01:15) ===\n", "2 failed, 10 passed, 1 error", 3),
        ("=== 1 failed in 1s ===\n=== 3 passed, 2 warnings in 9s ===\n", "3 passed, 2 warnings", 0),
    ],
)
def test_the_last_word_of_a_test_log_is_read(log: str, line: str, failed: int, tmp_path: Path) -> None:
    (tmp_path / "pytest.log").write_text(log)
    assert evidence_summary(tmp_path / "pytest.log") == {"line": line, "failed": failed}


def test_a_log_without_a_summary_is_no_evidence(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    (project / "pytest.log").write_text("....F")
    refused(order(Wanted(evidence=(project / "pytest.log",))), tmp_path, "no summary of pytest in it")


@pytest.fixture
def patient(factory: ModuleType, tmp_path: Path) -> Path:
    """A folder with a patient's DICOM."""
    return factory.make_patient().save(tmp_path / "raw" / "case_0001")


def protocol_with_phi(repository: Path, pseudonym: str) -> Protocol:
    protocol = load_protocol(repository / "validation/cohorts/phantom/protocol.yaml")
    assert protocol.phi is not None
    return protocol.model_copy(update={"phi": protocol.phi.model_copy(update={"pseudonym": pseudonym})})


def test_raw_dicom_goes_out_only_when_asked_for(order: MakeOrder, patient: Path, tmp_path: Path) -> None:
    refused(order(Wanted(runs=(patient,))), tmp_path, r"is raw DICOM, which a bundle does not take unasked")


def test_raw_dicom_inside_a_zip_is_found_too(order: MakeOrder, patient: Path, project: Path, tmp_path: Path) -> None:
    first = sorted(patient.rglob("*.dcm"))[0]
    with zipfile.ZipFile(project / "raw.zip", "w") as archive:
        archive.write(first, "inner/slice")
    files = pair_files([project / "raw.zip"], [], [])
    refused(order(Wanted(files=files)), tmp_path, r"files/raw\.zip:inner/slice is raw DICOM")


def test_a_zip_that_nobody_can_look_into_is_refused(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x", "y" * 100)
    (project / "cut.zip").write_bytes(out.getvalue()[:90])
    refused(
        order(Wanted(files=pair_files([project / "cut.zip"], [], []))),
        tmp_path,
        r"cut\.zip: a zip that can't be looked",
    )


def test_raw_dicom_that_was_asked_for_must_pass_the_phi_scan(
    order: MakeOrder, patient: Path, repository: Path, tmp_path: Path
) -> None:
    strict = protocol_with_phi(repository, "nobody_is_called_so")
    wanted = Wanted(runs=(patient,))
    refused(order(wanted, dicom_protocol=strict), tmp_path, "may identify the patient: PatientName", BadCase)
    anybody = protocol_with_phi(repository, ".*")
    index = pack(tmp_path / "release" / "toy.tar", order(wanted, dicom_protocol=anybody), None, silent)
    assert index["size"] > 0


def test_a_value_that_cant_be_read_is_refused_and_stands_nowhere_in_the_refusal(
    order: MakeOrder, patient: Path, repository: Path, tmp_path: Path
) -> None:
    first = sorted(patient.rglob("*.dcm"))[0]
    dataset = pydicom.dcmread(first)
    dataset[0x00101020] = RawDataElement(Tag(0x00101020), "FD", 4, b"Anna", 0, False, True)
    dataset.save_as(first)
    wanted, anybody = Wanted(runs=(patient,)), protocol_with_phi(repository, ".*")
    with pytest.raises(
        BadCase, match=r"holds a value that can't be read \(BytesLengthException\) in .*\.dcm"
    ) as refused:
        pack(tmp_path / "release" / "toy.tar", order(wanted, dicom_protocol=anybody), None, silent)
    assert "Anna" not in "".join(traceback.format_exception(refused.value))


def test_a_zip_whose_content_is_damaged_is_refused(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(project / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(range(256)) * 40)
        start = archive.getinfo("x").header_offset + 30 + len("x")
    content = bytearray((project / "bad.zip").read_bytes())
    # A block of the type that deflate does not have.
    content[start] = 0xFF
    (project / "bad.zip").write_bytes(content)
    wanted = Wanted(files=pair_files([project / "bad.zip"], [], []))
    refused(order(wanted), tmp_path, r"bad\.zip: a zip that can't be looked into")


def test_what_only_calls_itself_dicom_is_refused_as_nobody_knows_whom_it_names(
    order: MakeOrder, project: Path, repository: Path, tmp_path: Path
) -> None:
    (project / "models/toy/a.dcm").write_bytes(b"not dicom")
    protocol = protocol_with_phi(repository, ".*")
    refused(order(dicom_protocol=protocol), tmp_path, "looks like DICOM and can't be read as such", BadCase)


def test_a_file_name_that_is_no_unicode_is_refused(order: MakeOrder, project: Path, tmp_path: Path) -> None:
    (project / "models/toy" / b"caf\xe9.txt".decode("utf-8", "surrogateescape")).write_text("x")
    refused(order(), tmp_path, "holds a character that is no text")
