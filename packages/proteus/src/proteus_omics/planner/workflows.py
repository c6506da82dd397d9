"""The steps of each kind of objective (section 2.3); what several objectives share are the same steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from proteus_omics.engine.execution import INPUT
from proteus_omics.engine.steps import output, step_of
from proteus_omics.models import DatasetProfile, Step

Workflows: TypeAlias = Callable[[DatasetProfile, Mapping[str, Any]], list[Step]]


def _prepared(profile: DatasetProfile) -> list[Step]:
    """Values on a scale where differences are effects, without proteins that are hardly there."""
    scaled = step_of("transform", {"data": INPUT})
    if profile.modality != "bulk":
        return [scaled]
    kept = step_of("filter_missing", {"data": output(scaled, "matrix")}, min_frac=profile.min_frac)
    even = step_of("normalize", {"data": output(kept, "matrix")}, method=profile.normalization)
    return [scaled, kept, even]


def _matrix(steps: list[Step]) -> dict[str, str]:
    """The last matrix, as the input of the next step."""
    last = next(step for step in reversed(steps) if "matrix" in step.outputs)
    return {"data": output(last, "matrix")}


def quality(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Counts, missing values, outliers; what separates the samples."""
    steps = [step_of("qc_report", {"data": INPUT}), *_prepared(profile)]
    if profile.modality != "bulk":
        return [*steps, step_of("plot_qc", {"data": INPUT})]
    steps.append(step_of("pca", _matrix(steps)))
    data = _matrix(steps)
    color = profile.design.get("condition")
    return [
        *steps,
        step_of("batch_association", data),
        step_of("plot_qc", {"data": INPUT}),
        step_of("plot_pca", data, **({"color": color} if color else {})),
    ]


def _compared(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    steps = _prepared(profile)
    return [*steps, step_of("de_limma", _matrix(steps), **_model(params))]


def _model(params: Mapping[str, Any]) -> dict[str, Any]:
    """What of an objective's parameters is a setting of the model."""
    return {name: params[name] for name in ("batch", "test") if name in params}


def differential(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Moderated t on the values that are there; detection where they are not; the volcano."""
    steps = _compared(profile, params)
    if not params.get("test", True):  # fold changes of single samples: nothing to test, and nothing to plot
        return steps
    found = output(steps[-1], "de")
    return [
        *steps,
        step_of("differential_detection", {"data": INPUT, "de": found}),
        step_of("plot_volcano", {"de": found}),
    ]


def effect_consistency(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Every hit again without each sample, and on resampled ones."""
    steps = _compared(profile, params)
    inputs = _matrix(steps) | {"de": output(steps[-1], "de")}
    return [
        *steps,
        step_of("leave_one_out", inputs, **_model(params)),
        step_of("bootstrap_sign", inputs, **_model(params)),
    ]


def pathways(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Gene sets along the ranking by t, and among the hits against what was quantified."""
    steps = _compared(profile, params)
    found = output(steps[-1], "de")
    ranked = step_of("gsea_prerank", {"de": found})
    return [
        *steps,
        ranked,
        step_of("plot_enrichment", {"enriched": output(ranked, "gsea")}),
        step_of("ora", {"hits": found}),
    ]


def network(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Interactions among the hits, against genes of like degree."""
    steps = _compared(profile, params)
    hits = {"hits": output(steps[-1], "de")}
    return [*steps, step_of("ppi_subnetwork", hits), step_of("plot_network", hits)]


def modules(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Co-expression on completed values; modules with traits; their gene sets."""
    steps = _prepared(profile)
    steps.append(step_of("impute", _matrix(steps)))
    steps.append(step_of("coexpression", _matrix(steps)))
    found = steps[-1]
    traits = step_of("module_trait", _matrix(steps))
    return [
        *steps,
        traits,
        step_of("plot_module_trait", {"associations": output(traits, "module_trait")}),
        *([step_of("ora", {"hits": output(found, "modules")})] if _has_sets(profile) else []),
    ]


def traits(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Rank correlations, adjusted for the condition."""
    steps = _prepared(profile)
    return [*steps, step_of("trait_correlation", _matrix(steps))]


def survival(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """All proteins by Cox; curves split at the median, never at a searched value."""
    steps = _prepared(profile)
    data = _matrix(steps)
    steps.append(step_of("cox_screen", data))
    found = output(steps[-1], "cox")
    steps.append(step_of("km_plot", data | {"cox": found}))
    return [*steps, *([step_of("ora", {"hits": found})] if _has_sets(profile) else [])]


def subgroups(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Consensus clusters of samples, and the columns that go with them."""
    steps = _prepared(profile)
    steps.append(step_of("cluster_samples", _matrix(steps)))
    return [*steps, step_of("cluster_association", _matrix(steps))]


def _cells(profile: DatasetProfile) -> list[Step]:
    steps = _prepared(profile)
    for tool in ("neighbors", "leiden"):
        steps.append(step_of(tool, _matrix(steps)))
    steps.append(step_of("annotate", _matrix(steps)))
    return steps


def populations(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Neighbours, communities, names by marker rules, a map."""
    steps = _cells(profile)
    named = _matrix(steps)
    markers = step_of("population_markers", named)
    shown = step_of("umap", named)
    return [
        *steps,
        markers,
        step_of("plot_populations", {"markers": output(markers, "population_markers")}),
        shown,
        step_of("plot_umap", {"data": output(shown, "matrix")}, color="population"),
    ]


def composition(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Proportions per sample."""
    steps = _cells(profile)
    return [*steps, step_of("composition_test", _matrix(steps))]


def state_de(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Medians per population and sample, then the moderated t, blocked by subject."""
    steps = _cells(profile)
    steps.append(step_of("pseudobulk", _matrix(steps)))
    found = step_of("state_de", _matrix(steps))
    return [*steps, found, step_of("plot_volcano", {"de": output(found, "state_de")})]


def marker_correlation(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Correlations per sample, pooled by Fisher's z."""
    steps = _cells(profile)
    return [*steps, step_of("marker_correlation", _matrix(steps))]


def trajectory(profile: DatasetProfile, params: Mapping[str, Any]) -> list[Step]:
    """Diffusion pseudotime from the root that the design names."""
    steps = _cells(profile)
    return [*steps, step_of("dpt", _matrix(steps))]


def _has_sets(profile: DatasetProfile) -> bool:
    return profile.has_genes and any(name != "interactions" for name in profile.knowledge)


WORKFLOWS: Mapping[str, Workflows] = {
    one.__name__: one
    for one in (
        quality, populations, differential, state_de, survival, effect_consistency, pathways, composition,
        modules, traits, marker_correlation, network, subgroups, trajectory,
    )
}  # fmt: skip
