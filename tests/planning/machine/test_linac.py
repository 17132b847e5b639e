"""The machine as data: what it holds, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.planning.machine.linac import Machine, load_machine, machine_named

GENERIC = Path(__file__).parents[3] / "src/doseledger/planning/machine/machines/generic.yaml"


def test_the_generic_machine_has_sixty_pairs_of_5_and_10_mm_over_400_mm(machine: Machine) -> None:
    width = np.diff(machine.leaves.boundary_mm)
    assert machine.leaves.n_pairs == len(width) == 60
    assert machine.leaves.boundary_mm[[0, -1]].tolist() == [-200.0, 200.0]
    assert sorted(set(width.tolist())) == [5.0, 10.0]
    assert np.all(width[10:50] == 5.0)


def test_a_machine_given_by_path_is_the_packaged_one_when_the_file_is(machine: Machine) -> None:
    assert load_machine(GENERIC) == machine


def test_the_machine_for_patients_is_the_generic_one_with_density_and_electrons(machine: Machine) -> None:
    tissue = load_machine(Path("tissue"))
    assert tissue.name != machine.name
    assert tissue.beam.follows_density
    assert not machine.beam.follows_density
    assert tissue.beam.electrons is not None
    assert machine.beam.electrons is None
    without = tissue.beam.model_copy(update={"follows_density": False, "electrons": None})
    assert tissue.model_copy(update={"name": machine.name, "beam": without}) == machine


def test_a_plan_is_computed_with_the_packaged_machine_that_it_names(machine: Machine) -> None:
    assert machine_named("Generic120T") == load_machine("tissue")
    assert machine_named("Generic120") == machine_named("a clinic's") == machine


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("travel_mm: [-200.0, 200.0]", "travel_mm: [200.0, -200.0]", r"travel_mm: .*must rise, found 200 to -200"),
        ("max_speed_mm_s: 25.0", "max_speed_mm_s: -1.0", "max_speed_mm_s"),
        ("min_mu_min: 5.0", "min_mu_min: 700.0", r"dose_rate: .*must rise, found 700 to 600"),
        ("sigma_mm: [2.4, 5.4855,", "sigma_mm: [5.4855,", "4 Gaussians"),
        ("attenuation_per_mm: 0.00425655", "attenuation_per_mm: 0.00991119", "equal to the attenuation"),
        ("name: Generic120", "name: Generic120\nwedges: 4", "wedges"),
        ("name: Generic120", "name: Generic120\nlike: generic", "like"),
        ("  energy_mv: 6.0", "  energy_mv: 6.0\n  electrons: {attenuation_per_mm: 0.3, amplitude: [0.1]}", "amplitude"),
        (
            "  energy_mv: 6.0",
            "  energy_mv: 6.0\n  electrons: {attenuation_per_mm: 0.01, amplitude: [0.1, 0, 0, 0]}",
            "attenuation_per_mm",
        ),
        ("hu: [-1000.0, 0.0,", "hu: [0.0, -1000.0,", "hu must rise"),
    ],
)
def test_a_machine_that_makes_no_sense_is_refused_by_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = GENERIC.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "broken.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        load_machine(path)


def test_density_is_one_in_water_nothing_in_air_and_rises(machine: Machine) -> None:
    hu = np.arange(-1100, 3200)
    density = machine.density.of(hu)
    assert density[hu == 0] == 1.0
    assert density[hu <= -1000].max() == 0.0
    assert np.all(np.diff(density) >= 0)
    # Thomas 1999: bone of 1000 HU has 1 + 1000/1950.
    assert density[hu == 1000] == pytest.approx(1 + 1000 / 1950, abs=1e-3)


def test_a_segment_takes_the_longer_of_turning_and_irradiating(machine: Machine) -> None:
    time = machine.fastest_segment_s(np.array([6.0, -6.0, 0.6]), np.array([1.0, 20.0, 0.0]))
    assert time.tolist() == pytest.approx([1.0, 2.0, 0.1])
