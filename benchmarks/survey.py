"""CPU time of a survey: synthetic patients as a clinic's planning system writes them, headers as many as in a real one.

Usage: python benchmarks/survey.py [patients] [slices] [control points of a beam] [corners of a contour]
"""

from __future__ import annotations

import sys
import tempfile
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import load_protocol
from doseledger.ingest.survey.cohort import survey_dump
from doseledger.ingest.survey.record import write_survey
from doseledger.report.survey import write_survey_page

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Make a dump, survey it, and print the CPU seconds of each step."""
    defaults = ("200", "100", "90", "90")
    patients, slices, points, corners = (int(value) for value in (*sys.argv[1:], *defaults[len(sys.argv) - 1 :]))
    spec = spec_from_file_location("dump", HERE / "tests" / "fixtures" / "dump.py")
    if spec is None or spec.loader is None:
        sys.exit("run it from a checkout: tests/fixtures/dump.py makes the patients")
    module = module_from_spec(spec)
    sys.modules["dump"] = module
    spec.loader.exec_module(module)
    layout = Layout(HERE, "prostate")
    protocol = load_protocol(layout.protocol)
    with tempfile.TemporaryDirectory() as folder:
        dump = module.fill_dump(Path(folder) / "dump", patients, slices, points, corners)
        began = time.process_time()
        survey = survey_dump(dump, protocol, pictures=True, tell=lambda line: None)
        read = time.process_time()
        write_survey(survey, Path(folder) / "out")
        write_survey_page(survey, layout.templates, Path(folder) / "out" / "survey.html")
        written = time.process_time()
        page = (Path(folder) / "out" / "survey.html").stat().st_size
    print(
        f"{patients} patients, {survey.n_files} files: surveyed in {read - began:.1f} s of CPU, written in "
        f"{written - read:.1f} s; the page has {page / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
