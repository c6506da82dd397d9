"""The experiment: the table of PtBr3 three ways, models, all 80 layer groups, measured structures, and GPAW.

Parts whose data or engine are not to be had are not run, and their claims are not tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict

from altermag.dft.gpaw import best_length
from altermag.errors import AltermagError
from altermag.prototypes import trihalide
from altermag.reproduce import computed
from altermag.reproduce.atlas import AtlasConfig, census_trial, groups_trial
from altermag.reproduce.claims import CLAIMS, EXACT_CLAIMS, MAGNDATA
from altermag.reproduce.figures import figures
from altermag.reproduce.magndata import magndata_trial
from altermag.reproduce.models import ModelConfig, hall_trial, kerr_trial, model_trial
from altermag.reproduce.tables import TableConfig, map_trial, table_trial
from tenfold import Estimate, Experiment, Run, Trial


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    atlas: AtlasConfig
    table: TableConfig
    model: ModelConfig
    nickel: computed.NickelConfig
    platinum: computed.PlatinumConfig | None = None


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Do all parts and return the metrics that the claims name."""
    trials = exact_trials(config, run.has_data(MAGNDATA))
    dft = find_spec("gpaw") is not None
    nickel = nickel_trials(config) if dft else []
    if not dft:
        run.log.tell("GPAW is not installed: the computed claims are not tested (see the README of altermag)")
    # The long calculations first, so that the short trials fill the other cores.
    found = run.map(PARTS, [*nickel, *trials])
    metrics = combined([found[trial]["metrics"] for trial in trials])
    if dft:
        metrics |= computed.nickel_metrics({trial.arm: found[trial] for trial in nickel})
        tell_problems(run, {trial.arm: found[trial] for trial in nickel})
        if config.platinum is not None:
            metrics |= platinum(config.platinum, run)
    return {name: Estimate.of(value) for name, value in metrics.items()}


PARTS = {
    "table": table_trial,
    "map": map_trial,
    "models": model_trial,
    "kerr": kerr_trial,
    "hall": hall_trial,
    "groups": groups_trial,
    "census": census_trial,
    "magndata": magndata_trial,
    "nickel": computed.nickel_trial,
    "relax": computed.relax_trial,
    "platinum": computed.platinum_trial,
}


def exact_trials(config: ExperimentConfig, has_magndata: bool) -> list[Trial]:
    """Everything that needs no DFT engine."""
    table, model = config.table.model_dump(mode="json"), config.model.model_dump(mode="json")
    seeds = {"groups": config.atlas.seeds, "census": config.atlas.seeds}
    census = {"operators": list(config.atlas.operators)}
    settings = {"census": census, "map": table, "models": model, "kerr": model, "hall": model}
    stages = ["census", "kerr", "hall", "map", "models", "table", "groups"]
    stages += ["magndata"] if has_magndata else []
    return [
        Trial(stage, seed, settings.get(stage, {}), stage)
        for stage in stages
        for seed in seeds.get(stage, (0,))
    ]


def combined(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the metrics of trials; where several seeds give one, its samples are kept."""
    merged: dict[str, Any] = {}
    for one in metrics:
        for name, value in one.items():
            merged.setdefault(name, []).append(value)
    return merged


def nickel_trials(config: ExperimentConfig) -> list[Trial]:
    """The calculations of NiCl2."""
    settings = {"settings": config.nickel.settings}
    return [Trial(name, 0, settings, "nickel") for name in config.nickel.stackings]


def platinum(config: computed.PlatinumConfig, run: Run) -> dict[str, Any]:
    """Relax the PtBr3 monolayer, compute its stackings, and return their metrics; none if that fails."""
    relaxed = relaxations(config, run, config.lattice_constants)
    if not relaxed:
        return {}
    best = chosen_length({a: entry["energy"] for a, entry in relaxed.items()}, run)
    at_best = relaxations(config, run, (best,))
    if not at_best:
        return {}
    entry = at_best[best]
    layer = {name: entry[name] for name in ("a", "x", "height")}
    settings = {"settings": config.settings, "layer": layer, "distance": config.distance}
    arms = [f"{name} afm" for name in config.antiparallel] + [f"{name} fm" for name in config.parallel]
    trials = [Trial(arm, 0, settings, "platinum") for arm in arms]
    found = run.map(PARTS, trials)
    by_arm = {trial.arm: found[trial] for trial in trials}
    tell_problems(run, by_arm)
    metrics = computed.platinum_metrics(by_arm, trihalide("Pt", "Br", **layer), config.distance)
    return metrics | {"monolayer_a": best, "monolayer_x": layer["x"], "monolayer_height": layer["height"]}


def chosen_length(energies: dict[float, float], run: Run) -> float:
    """Return the best lattice constant; where no minimum is between them, tell, and return the lowest."""
    if len(energies) == 1:
        return next(iter(energies))
    try:
        return best_length(energies)
    except AltermagError as error:
        lowest = min(energies, key=energies.__getitem__)
        run.log.tell(f"PtBr3: {error}; {lowest:g} Å, the lowest, is taken")
        return lowest


def relaxations(
    config: computed.PlatinumConfig, run: Run, lengths: tuple[float, ...]
) -> dict[float, dict[str, Any]]:
    """Relax the monolayer at these lattice constants; what was relaxed before is not relaxed again.

    Those that fail are told and left out.
    """
    settings = {"settings": config.settings}
    trials = {a: Trial(f"a = {a:.4f}", 0, settings | {"length": a}, "relax") for a in lengths}
    found = run.map(PARTS, trials.values())
    tell_problems(run, {f"PtBr3, {trial.arm}": found[trial] for trial in trials.values()})
    return {a: found[trial] for a, trial in trials.items() if "problem" not in found[trial]}


def tell_problems(run: Run, found: dict[str, dict[str, Any]]) -> None:
    """Tell the person which calculations failed; their claims are not tested."""
    for name, problem in computed.problems(found).items():
        run.log.tell(f"{name}: {problem}")


EXPERIMENT = Experiment(
    name="altermag",
    title="Two-dimensional altermagnets from stacked bilayers",
    paper="Sun, Ye, Liang, Ding, Dong, Wang: Stacking-dependent ferroicity of reversed bilayer: "
    "altermagnetism or ferroelectricity. 2024, arXiv 2411.13182",
    url="https://arxiv.org/abs/2411.13182",
    summary="A magnetic monolayer on its reversed copy: which shifts make an altermagnet, what sets the sign "
    "of the splitting, and can light read it? By symmetry, by models and, with GPAW, by first principles.",
    config_model=ExperimentConfig,
    configs="altermag.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
    exact=EXACT_CLAIMS,
)
