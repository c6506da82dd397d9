from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tenfold", reason="needs altermag[reproduce]")
pytest.importorskip("pyxtal", reason="needs altermag[reproduce]")

from altermag.judging import judge
from altermag.operations import Operations
from altermag.reproduce import atlas, computed, magndata
from altermag.reproduce.claims import CLAIMS, EXACT_CLAIMS
from altermag.reproduce.experiment import EXPERIMENT
from tenfold import Verdict, run_experiment
from tenfold.configs import load_config

SMALL = (
    "atlas.seeds=[0]",
    'atlas.operators=["mirror"]',
    "table.map_points=12",
    "table.witness_points=6",
    "table.k_points=6",
    "model.zone_points=12",
    "model.mesh=2",
    "model.photon_energies=5",
)


@pytest.fixture
def light_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial's process imports the main module again; that of pytest is slow and no trial needs it."""
    import sys

    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)


@pytest.mark.slow
@pytest.mark.usefixtures("light_processes")
def test_a_small_run_holds_every_exact_claim_and_draws_its_figures(tmp_path: Path) -> None:
    outcome = run_experiment(
        EXPERIMENT, "quick", assignments=SMALL, results=tmp_path, tell=lambda message: None, jobs=2
    )
    verdicts = {claim.id: claim.verdict for claim in outcome.claims.claims}
    exact = {name: verdicts[name] for name in EXACT_CLAIMS if name != "M1"}
    assert set(exact.values()) == {Verdict.HELD}, exact
    assert {figure.name for figure in outcome.folder.figures.glob("*.svg")} >= {
        "shifts.svg",
        "bands.svg",
        "zone.svg",
        "kerr.svg",
    }
    if find_spec("gpaw") is None:
        notes = {claim.id: claim.reason for claim in outcome.claims.claims}
        assert notes["C1-dft"] == "not tested: gpaw is not installed"


@pytest.mark.parametrize("scale", ["quick", "laptop", "paper"])
def test_every_scale_has_a_config_and_its_stackings_have_names(scale: str) -> None:
    config = load_config(EXPERIMENT, scale, ())
    for name in config.nickel.stackings:
        assert computed.nickel_bilayer(name).species[0] == "Ni"
    if config.platinum is not None:
        from altermag.prototypes import ptbr3

        for name in config.platinum.antiparallel:
            assert len(computed.platinum_bilayer(name, ptbr3(), 6.35, "afm").species) == 16


def test_claims_that_can_be_tested_name_what_they_need() -> None:
    for claim in CLAIMS:
        assert ("-dft" in claim.id) == (claim.modules == ("gpaw",)), claim.id
        assert claim.paper_value is None, "we know no number of the paper"


def test_random_monolayers_have_the_layer_group_they_were_made_for() -> None:
    rng = np.random.default_rng(7)
    for group in (1, 5, 13, 18, 36, 50, 57, 66, 71, 79, 80):
        assert atlas.random_monolayer(group, rng).layer_group.number == group


def test_seventeen_layer_groups_by_their_operations_alone() -> None:
    found = []
    for group in atlas.GROUPS:
        rotations, translations = atlas.layer_operations(group)
        operations = Operations(rotations, translations, rotations[:, 2, 2])
        if judge(operations, np.array([1.0, -1.0]), 0.02, 2)[0] == "altermagnet":
            found.append(group)
    assert tuple(found) == atlas.ALTERMAGNETIC


def test_the_expected_classes_are_of_42_structures() -> None:
    rows = magndata.expected_classes()
    assert len(rows) == 42
    assert sum(row["kind_3d"] == "altermagnet" for row in rows) == 13
    assert sum(row["kind_3d"] == "noncollinear" for row in rows) == 3


def test_measured_structures_get_the_expected_class() -> None:
    from tenfold import data

    folder = data.path("magndata-42")
    if folder is None:
        pytest.skip("the data set magndata-42 is not on this machine (set TENFOLD_DATA)")
    pytest.importorskip("pymatgen")
    from altermag.io import read

    expected = {row["file"]: (row["kind_3d"], row["wave_3d"]) for row in magndata.expected_classes()}
    for file in ("0.607_RuO2.mcif", "0.800_MnTe.mcif", "0.20_MnTe2.mcif", "1.247_NiCl2.mcif"):
        kind, wave, _ = magndata.classified(read(folder / file))
        assert (kind, wave or "") == expected[file], file
