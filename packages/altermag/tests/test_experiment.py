from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tenfold", reason="needs altermag[reproduce]")
pytest.importorskip("pyxtal", reason="needs altermag[reproduce]")

from altermag.judging import judge
from altermag.operations import Operations
from altermag.reproduce import atlas, computed, experiment, magndata
from altermag.reproduce.claims import CLAIMS, EXACT_CLAIMS
from altermag.reproduce.experiment import EXPERIMENT
from tenfold import Trial, Verdict, run_experiment
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


def test_the_census_counts_the_layer_groups_that_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [atlas.random_monolayer(group, np.random.default_rng(0)) for group in (2, 5)]
    monkeypatch.setattr(atlas, "random_monolayer", lambda group, rng: made[group % 2])
    monkeypatch.setattr(atlas, "_stackings", lambda layer, operators: [])
    context = SimpleNamespace(progress=lambda done, total: None)
    found = atlas.census_trial(Trial("census", 0, {"operators": []}, "census"), context)
    assert found["metrics"]["census_monolayer_groups"] == 2


class Relaxations:
    """A run whose relaxations end as the entries say; nothing comes after them."""

    def __init__(self, entries: dict[str, dict[str, Any]]) -> None:
        self.entries, self.told, self.arms = entries, [], []
        self.log = SimpleNamespace(tell=self.told.append)

    def map(self, parts: object, trials: Iterable[Trial]) -> dict[Trial, dict[str, Any]]:
        trials = list(trials)
        self.arms += [trial.arm for trial in trials]
        nothing = {"problem": "SCF did not converge"}
        return {trial: self.entries.get(trial.arm, nothing) for trial in trials}


def test_a_relaxation_that_fails_is_told_and_the_others_are_used() -> None:
    config = load_config(EXPERIMENT, "laptop", ()).platinum
    entry = {"x": 0.36, "height": 1.4}
    run = Relaxations({f"a = {a:.4f}": {"a": a, "energy": -a, **entry} for a in (6.7, 7.0)})
    metrics = experiment.platinum(config, run)
    assert metrics["monolayer_a"] == 7.0
    assert "PtBr3, a = 6.8500: SCF did not converge" in run.told
    assert "AB' afm" in run.arms
    none = Relaxations({})
    assert experiment.platinum(config, none) == {}
    assert len(none.told) == 3
    assert len(none.arms) == 3


def test_the_trial_of_a_failed_relaxation_is_its_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def relax_at(*arguments: object, **settings: object) -> None:
        raise computed.gpaw.UnconvergedError("SCF did not converge")

    monkeypatch.setattr(computed.gpaw, "relax_at", relax_at)
    trial = Trial("a = 6.8000", 0, {"settings": {}, "length": 6.8}, "relax")
    found = computed.relax_trial(trial, SimpleNamespace(checkpoint_dir=tmp_path))
    assert found == {"problem": "SCF did not converge"}


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
