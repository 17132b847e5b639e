"""Ingest: what is converted, reused, skipped, failed; a partial checkout refused; packing that gives equal bytes."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil

import pandas as pd
import pytest

from doseledger.core.case import Case, read_meta
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import sha256_of_file
from doseledger.core.pool.cluster import local
from doseledger.core.project.protocol import Protocol
from doseledger.core.tables import CASES, RAW, SKIPPED, read_table
from doseledger.dicom.source import source_digest
from doseledger.ingest.cohort import IngestCount, IngestRun, ingest
from doseledger.ingest.pack import pack
from doseledger.ingest.raw import find_sources


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture
def protocol(factory) -> Protocol:
    # A coarse grid: these tests are about which case is converted, not about how.
    return Protocol.model_validate({**factory.PROTOCOL, "spacing_mm": [6.0, 5.0, 5.0]})


@pytest.fixture
def raw(factory, tmp_path):
    folder = tmp_path / "raw"
    for number in (1, 2):
        factory.make_patient().save(folder / f"anon_{number}")
    return folder


def test_sound_skipped_and_failed_cases_are_each_listed_and_the_rest_goes_on(factory, raw, protocol, tmp_path):
    skipped, failed = factory.make_patient(), factory.make_patient()
    skipped.drop_roi("PTV56")
    skipped.rtplan = factory.make_rtplan(28, [(70.0, 2)])
    failed.ct.pop(7)
    skipped.save(raw / "anon_3")
    failed.save(raw / "anon_4")
    lines = []
    count = ingest(raw, tmp_path / "out", protocol, IngestRun(), lines.append)
    assert count == IngestCount(converted=2, reused=0, skipped=1, failed=1)
    cases = read_table(tmp_path / "out" / "cases.csv", CASES)
    assert cases["case_id"].tolist() == ["anon_1", "anon_2"]
    assert cases["sha256"].tolist() == [sha256_of_file(tmp_path / "out" / f"anon_{i}.npz") for i in (1, 2)]
    listed = read_table(tmp_path / "out" / "skipped.csv", SKIPPED).set_index("case_id")
    assert listed["status"].to_dict() == {"anon_3": "skipped", "anon_4": "failed"}
    assert "not a simultaneous integrated boost" in listed["reason"]["anon_3"]
    assert "1 slices of the usual 3 mm are missing" in listed["reason"]["anon_4"]
    assert not (tmp_path / "out" / "anon_4.npz").exists()
    assert len(lines) == 4
    assert Case.load(tmp_path / "out" / "anon_1.npz").case_id == "anon_1"


def test_adding_a_case_converts_that_case_alone(factory, raw, protocol, tmp_path):
    run = IngestRun(index=tmp_path / "state" / "index.json")
    ingest(raw, tmp_path / "out", protocol, run, quiet)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.npz")}
    factory.make_patient("HFP").save(raw / "anon_3")
    lines = []
    count = ingest(raw, tmp_path / "out", protocol, run, lines.append)
    assert count == IngestCount(converted=1, reused=2, skipped=0, failed=0)
    assert lines == ["[1/1] anon_3"]
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.npz")}
    assert {name: after[name] for name in before} == before
    assert len(read_table(tmp_path / "out" / "cases.csv", CASES)) == 3


def test_cases_that_dvc_took_away_come_back_from_its_store_by_hash(raw, protocol, tmp_path, monkeypatch):
    out, store = tmp_path / "out", tmp_path / "store"
    run = IngestRun(index=tmp_path / "index.json", cache_dir=store)
    ingest(raw, out, protocol, run, quiet)
    hashes = {}
    for path in out.glob("*.npz"):
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        (store / md5[:2]).mkdir(parents=True, exist_ok=True)
        shutil.move(path, store / md5[:2] / md5[2:])
        hashes[path.name] = store / md5[:2] / md5[2:]
    shutil.rmtree(out)
    assert ingest(raw, out, protocol, run, quiet) == IngestCount(converted=0, reused=2, skipped=0, failed=0)
    assert sorted(path.name for path in out.glob("*.npz")) == ["anon_1.npz", "anon_2.npz"]
    # In a shared cache Linux refuses a hard link to a file that somebody else wrote.
    shutil.rmtree(out)
    with monkeypatch.context() as patch:
        patch.setattr("os.link", lambda *paths: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
        assert ingest(raw, out, protocol, run, quiet) == IngestCount(converted=0, reused=2, skipped=0, failed=0)
    assert {path.stat().st_nlink for path in out.glob("*.npz")} == {1}
    # Bit rot in the store must not come back as a case.
    shutil.rmtree(out)
    hashes["anon_1.npz"].write_bytes(b"rotten")
    assert ingest(raw, out, protocol, run, quiet) == IngestCount(converted=1, reused=1, skipped=0, failed=0)


def test_a_changed_file_protocol_or_group_converts_again_and_a_title_does_not(factory, raw, protocol, tmp_path):
    run = IngestRun(index=tmp_path / "index.json")
    out = tmp_path / "out"
    ingest(raw, out, protocol, run, quiet)
    retitled = protocol.model_copy(update={"title": "another title"})
    assert ingest(raw, out, retitled, run, quiet).converted == 0
    factory.make_patient("FFS").save(raw / "anon_2")
    assert ingest(raw, out, protocol, run, quiet).converted == 1
    (raw / "groups.csv").write_text("case_id,group,site\nanon_1,north,a\n")
    assert ingest(raw, out, protocol, run, quiet).converted == 1
    assert read_meta(out / "anon_1.npz")["group"] == "north"
    assert read_meta(out / "anon_2.npz")["site"] == "unknown"
    finer = protocol.model_copy(update={"spacing_mm": (6.0, 5.0, 4.0)})
    assert ingest(raw, out, finer, run, quiet).converted == 2


def drawn_again(patient, name, *, hollow=False):
    """Draw the rectum once more, under another name."""
    structures, number = patient.rtstruct, 90 + len(name)
    old = patient.roi("Rect").ROINumber
    parts = (structures.StructureSetROISequence, "ROINumber"), (structures.ROIContourSequence, "ReferencedROINumber")
    for items, keyword in (*parts, (structures.RTROIObservationsSequence, "ReferencedROINumber")):
        item = copy.deepcopy(next(item for item in items if item[keyword].value == old))
        item[keyword].value = number
        items.append(item)
    structures.StructureSetROISequence[-1].ROIName = name
    if hollow:
        del structures.ROIContourSequence[-1].ContourSequence


@pytest.fixture(scope="module")
def named(factory, tmp_path_factory):
    """Cases that call things differently: as usual, an unknown name, further ROIs, a target named by the plan alone."""
    folder = tmp_path_factory.mktemp("named") / "raw"
    usual, lost, more, planned = (factory.make_patient() for _ in range(4))
    lost.roi("Rect").ROIName = "Enddarm"
    drawn_again(more, "Loops")
    drawn_again(more, "Darm", hollow=True)
    planned.rtplan.DoseReferenceSequence[0].DoseReferenceDescription = "Boost"
    del planned.rtplan.DoseReferenceSequence[0].ReferencedROINumber
    for number, patient in enumerate((usual, lost, more, planned), start=1):
        patient.save(folder / f"anon_{number}")
    return folder


def renamed(protocol, aliases):
    """Return the protocol with other aliases of some structures; the plan may name its targets."""
    block = protocol.model_dump(mode="json")
    block["phi"]["allow"].append({"keyword": "DoseReferenceDescription", "reason": "names targets"})
    for structure in block["structures"]:
        structure["aliases"] = aliases.get(structure["name"], structure["aliases"])
    return Protocol.model_validate(block)


def files_in(folder):
    return {path.name: sha256_of_file(path) for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("aliases", "converted"),
    [
        ({"Bowel": ["Nowhere"]}, 0),
        ({"Rectum": ["Rect", "Rectum_P", "Enddar"]}, 0),
        ({"Rectum": ["Rectum_P", "RECT", "Rectum"], "PTV56": ["PTV 5600"]}, 0),
        ({"Bowel": ["Loops"]}, 1),
        ({"Bowel": ["darm"]}, 1),
        ({"Rectum": ["Rect", "Loops"]}, 1),
        ({"Rectum": ["Loops", "Rect"]}, 1),
        ({"Rectum": ["Rect", "Enddarm"]}, 1),
        ({"PTV70": ["PTV 70", "Boost"]}, 1),
        ({"Bowel": ["body"]}, 3),
    ],
)
def test_an_alias_converts_the_cases_that_have_its_name_and_all_is_as_if_converted_anew(
    named, protocol, tmp_path, aliases, converted
):
    out, run = tmp_path / "out", IngestRun(index=tmp_path / "index.json")
    usual, changed = renamed(protocol, {}), renamed(protocol, aliases)
    assert ingest(named, out, usual, run, quiet) == IngestCount(converted=3, reused=0, skipped=0, failed=1)
    before = files_in(out)
    found = ingest(named, out, changed, run, quiet)
    assert (found.converted, found.converted + found.reused + found.failed) == (converted, 4)
    ingest(named, tmp_path / "fresh", changed, IngestRun(), quiet)
    assert files_in(out) == files_in(tmp_path / "fresh")
    # And back again.
    ingest(named, out, usual, run, quiet)
    assert files_in(out) == before


def test_an_alias_that_is_taken_away_is_missed(named, protocol, tmp_path):
    out, run = tmp_path / "out", IngestRun(index=tmp_path / "index.json")
    ingest(named, out, renamed(protocol, {}), run, quiet)
    found = ingest(named, out, renamed(protocol, {"Rectum": ["Rectum_P"]}), run, quiet)
    assert found == IngestCount(converted=0, reused=0, skipped=0, failed=4)
    assert list(out.glob("*.npz")) == []


def test_a_tampered_case_is_not_reused(raw, protocol, tmp_path):
    run = IngestRun(index=tmp_path / "index.json")
    out = tmp_path / "out"
    ingest(raw, out, protocol, run, quiet)
    (out / "anon_1.npz").write_bytes(b"rotten")
    assert ingest(raw, out, protocol, run, quiet) == IngestCount(converted=1, reused=1, skipped=0, failed=0)


def test_a_case_that_fails_now_leaves_nothing_of_its_earlier_self(factory, raw, protocol, tmp_path):
    out = tmp_path / "out"
    ingest(raw, out, protocol, IngestRun(), quiet)
    (raw / "anon_2" / "CT_005.dcm").unlink()
    shutil.rmtree(raw / "anon_1")
    count = ingest(raw, out, protocol, IngestRun(), quiet)
    assert count == IngestCount(converted=0, reused=0, skipped=0, failed=1)
    assert list(out.glob("*.npz")) == []


def test_a_lost_or_broken_index_costs_time_only(raw, protocol, tmp_path):
    run = IngestRun(index=tmp_path / "index.json")
    ingest(raw, tmp_path / "out", protocol, run, quiet)
    run.index.write_text("{")
    assert ingest(raw, tmp_path / "out", protocol, run, quiet).converted == 2


def test_a_partial_checkout_is_refused(raw, protocol, tmp_path):
    raw_list = tmp_path / "raw.csv"
    pack(raw, tmp_path / "packed", raw_list, quiet)
    run = IngestRun(raw_list=raw_list)
    # The list holds for folders and zips alike.
    assert ingest(raw, tmp_path / "out", protocol, run, quiet).converted == 2
    (tmp_path / "packed" / "anon_2.zip").unlink()
    with pytest.raises(NotReady, match=r"1 listed but absent \(anon_2\) of 2 cases. Fetch the whole cohort"):
        ingest(tmp_path / "packed", tmp_path / "out", protocol, run, quiet)
    (raw / "anon_1" / "RTPLAN_022.dcm").unlink()
    with pytest.raises(NotReady, match=r"1 changed \(anon_1\)"):
        ingest(raw, tmp_path / "out", protocol, run, quiet)


def test_a_packed_case_that_cant_be_read_is_not_called_changed(raw, protocol, tmp_path):
    raw_list = tmp_path / "raw.csv"
    pack(raw, tmp_path / "packed", raw_list, quiet)
    os.truncate(tmp_path / "packed" / "anon_2.zip", 1000)
    with pytest.raises(NotReady, match=r"lists: 1 that can't be read \(anon_2: .* zip.*\) of 2 cases"):
        ingest(tmp_path / "packed", tmp_path / "out", protocol, IngestRun(raw_list=raw_list), quiet)


def test_packing_a_case_more_does_not_drop_those_that_were_not_fetched(factory, raw, tmp_path):
    more, packed, raw_list = tmp_path / "more", tmp_path / "packed", tmp_path / "packed.csv"
    pack(raw, packed, raw_list, quiet)
    factory.make_patient().save(more / "anon_3")
    (packed / "anon_2.zip").unlink()
    before = raw_list.read_bytes()
    with pytest.raises(NotReady, match=r"lists 1 cases that are not in \S+ \(anon_2\): .*dvc pull \S+packed\.dvc"):
        pack(more, packed, raw_list, quiet)
    assert raw_list.read_bytes() == before
    assert [path.name for path in packed.iterdir()] == ["anon_1.zip"]
    # Both ways out: what is missing is there again, or the folder as it is, is meant.
    pack(packed, packed, raw_list, quiet)
    assert pack(more, packed, raw_list, quiet) == 1
    assert read_table(raw_list, RAW)["case_id"].tolist() == ["anon_1", "anon_3"]
    assert pack(raw, packed, raw_list, quiet) == 2


def test_packing_twice_gives_the_same_bytes_and_the_folders_digests(raw, tmp_path):
    for name in ("first", "second"):
        pack(raw, tmp_path / name, tmp_path / f"{name}.csv", quiet)
    first, second = tmp_path / "first" / "anon_1.zip", tmp_path / "second" / "anon_1.zip"
    assert first.read_bytes() == second.read_bytes()
    table = read_table(tmp_path / "first.csv", RAW)
    assert table["sha256"].tolist() == [source_digest(raw / case_id) for case_id in table["case_id"]]


def test_hidden_files_and_a_common_folder_do_not_change_the_digest(raw, tmp_path):
    digest = source_digest(raw / "anon_1")
    (raw / "anon_1" / ".DS_Store").write_bytes(b"junk")
    shutil.move(raw / "anon_1", raw / "inner")
    (raw / "anon_1").mkdir()
    shutil.move(raw / "inner", raw / "anon_1" / "2024_export")
    assert source_digest(raw / "anon_1") == digest


def test_shards_together_make_the_whole(raw, protocol, tmp_path):
    index, out = tmp_path / "index.json", tmp_path / "out"
    for shard in ("1/2", "2/2"):
        assert ingest(raw, out, protocol, IngestRun(index=index, shard=shard), quiet).converted == 1
    assert not (out / "cases.csv").exists()
    count = ingest(raw, out, protocol, IngestRun(index=index), quiet)
    assert count == IngestCount(converted=0, reused=2, skipped=0, failed=0)
    assert len(read_table(out / "cases.csv", CASES)) == 2


def test_a_pool_gives_what_one_process_gives(raw, protocol, tmp_path):
    ingest(raw, tmp_path / "one", protocol, IngestRun(), quiet)
    ingest(raw, tmp_path / "pool", protocol, IngestRun(local(2)), quiet)
    for name in ("cases.csv", "anon_1.npz", "anon_2.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "pool" / name).read_bytes()


def test_a_case_as_folder_and_as_zip_is_refused(raw, tmp_path):
    pack(raw, tmp_path / "packed", tmp_path / "list.csv", quiet)
    shutil.copy(tmp_path / "packed" / "anon_1.zip", raw)
    with pytest.raises(BadInput, match=r"anon_1 is there as anon_1 and as anon_1.zip; keep one"):
        find_sources(raw)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no folder and no zip in it"):
        find_sources(tmp_path)


def test_groups_of_unknown_cases_are_refused(raw, protocol, tmp_path):
    (raw / "groups.csv").write_text("case_id,group,site\nanon_9,north,a\n")
    with pytest.raises(BadInput, match="names anon_9, which are not among the raw cases"):
        ingest(raw, tmp_path / "out", protocol, IngestRun(), quiet)


def test_a_cut_short_zip_fails_alone(raw, protocol, tmp_path):
    pack(raw, tmp_path / "packed", tmp_path / "list.csv", quiet)
    whole = (tmp_path / "packed" / "anon_1.zip").read_bytes()
    (tmp_path / "packed" / "anon_1.zip").write_bytes(whole[: len(whole) // 2])
    count = ingest(tmp_path / "packed", tmp_path / "out", protocol, IngestRun(), quiet)
    assert count == IngestCount(converted=1, reused=0, skipped=0, failed=1)
    reasons = pd.read_csv(tmp_path / "out" / "skipped.csv").set_index("case_id")["reason"]
    assert "can't be read as a zip" in reasons["anon_1"]
