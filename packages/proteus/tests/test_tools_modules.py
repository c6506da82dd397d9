from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from proteus_omics.design import Design
from proteus_omics.errors import ToolError
from proteus_omics.stats import cox_fit
from proteus_omics.tools.modules import correlations
from proteus_omics.tools.registry import ToolContext, get_tool

DESIGN = Design(condition="group", reference="ctrl")


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    """30 samples; proteins 0-14 follow the group, 15-29 follow age, the rest nothing."""
    rng = np.random.default_rng(0)
    group = np.repeat(["ctrl", "case"], 15)
    age = rng.normal(50, 10, 30)
    x = rng.normal(20, 1, (30, 60))
    x[:, :15] += 3.0 * (group == "case")[:, None]
    x[:, 15:30] += 0.4 * (age - 50)[:, None]
    risk = (x[:, 0] - 20) * 0.7
    time = rng.exponential(np.exp(-risk)) + 0.01
    event = (rng.random(30) < 0.8).astype(int)
    obs = pd.DataFrame({"group": group, "age": age, "sex": list("mf") * 15, "time": time, "event": event})
    obs.index = [f"s{k}" for k in range(30)]
    var = pd.DataFrame({"gene": [f"G{k}" for k in range(60)]}, index=[f"P{k}" for k in range(60)])
    return ad.AnnData(x, obs, var, uns={"proteus": {"scale": "log2", "modality": "bulk"}})


def use(name: str, inputs: dict, design: Design = DESIGN, **params):
    found = get_tool(name)
    outputs = found(inputs, found.parse(params), ToolContext(design))
    assert set(outputs) == set(found.outputs)
    assert 0 < len(found.summary(outputs).splitlines()) <= 40
    for output, declared in found.outputs.items():
        if declared.kind == "table":
            assert not outputs[output].duplicated(list(declared.key_columns)).any()
            assert {*declared.columns, *declared.key_columns} <= set(outputs[output].columns)
    return outputs


def test_planted_modules_are_found_with_their_hubs_and_go_with_what_made_them(data):
    out = use("coexpression", {"data": data})
    modules = out["modules"].set_index("protein")
    planted = modules["module"].to_numpy()
    assert len(set(planted[:15])) == len(set(planted[15:30])) == 1
    assert planted[0] != planted[15]
    assert (planted[30:] == "none").mean() > 0.7
    sizes = out["module_sizes"].set_index("module")
    hub = modules[modules["module"] == planted[0]]["kme"].idxmax()
    assert sizes.loc[planted[0], "hub"] == modules.loc[hub, "gene"]
    found = use("module_trait", {"data": out["matrix"]})["module_trait"].set_index(["module", "trait"])
    assert set(found.index.get_level_values("trait")) >= {"group=case", "age", "sex=m"}
    assert found.loc[(planted[0], "group=case"), "r"] > 0.8
    assert found.loc[(planted[15], "age"), "q_value"] < 1e-6
    assert found.loc[(planted[15], "sex=m"), "q_value"] > 0.05


def test_a_protein_with_a_missing_value_or_without_variance_is_in_no_module(data):
    some = data.copy()
    some.X[3, 0], some.X[:, 1] = np.nan, 7.0
    assert not {"P0", "P1"} & set(use("coexpression", {"data": some})["modules"]["protein"])
    with pytest.raises(ToolError, match="of 10 samples is noise"):
        use("coexpression", {"data": data[:10].copy()})


def test_correlations_are_those_of_scipy_over_the_samples_that_have_both():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 6))
    x[rng.random(x.shape) < 0.2] = np.nan
    trait = rng.normal(size=20)
    trait[3] = np.nan
    for method, peer in (("spearman", spearmanr), ("pearson", pearsonr)):
        r, p, n = correlations(pd.DataFrame(x), trait, None, method)
        for k in range(6):
            both = ~np.isnan(x[:, k]) & ~np.isnan(trait)
            expected = peer(x[both, k], trait[both])
            np.testing.assert_allclose([r[k], p[k], n[k]], [*expected, both.sum()], rtol=1e-9)


def test_a_correlation_that_is_only_the_groups_difference_vanishes_when_the_group_is_held_fixed(data):
    confounded = data.copy()
    confounded.obs["score"] = np.where(data.obs["group"] == "case", 5.0, 0.0) + np.linspace(0, 1, 15).repeat(
        2
    )
    free = use("trait_correlation", {"data": confounded}, columns=["score"], adjust=False)["traits"]
    held = use("trait_correlation", {"data": confounded}, columns=["score"])["traits"]
    first = [f"P{k}" for k in range(15)]
    assert free.set_index("protein").loc[first, "rho"].median() > 0.7
    assert abs(held.set_index("protein").loc[first, "rho"].median()) < 0.3


def test_partial_pearson_is_the_textbook_formula():
    rng = np.random.default_rng(2)
    x, y, z = rng.normal(size=(3, 25)) + rng.normal(size=25)
    r, p, _ = correlations(pd.DataFrame({"x": x}), y, pd.DataFrame({"one": np.ones(25), "z": z}), "pearson")
    xy, xz, yz = pearsonr(x, y)[0], pearsonr(x, z)[0], pearsonr(y, z)[0]
    assert r[0] == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    assert 0 < p[0] < 1


def test_traits_are_numbers_of_enough_samples_and_named_ones_must_be(data):
    found = use("trait_correlation", {"data": data})["traits"]
    assert set(found["trait"]) == {"age", "time", "event"}
    survival = DESIGN.model_copy(update={"time": "time", "event": "event"})
    assert set(use("trait_correlation", {"data": data}, survival)["traits"]["trait"]) == {"age"}
    best = found[found["q_value"] < 1e-4]
    assert set(best["protein"]) >= {f"P{k}" for k in range(15, 30)}
    with pytest.raises(ToolError, match="sex is no column of at least 10 numbers"):
        use("trait_correlation", {"data": data}, columns=["sex"])


def test_what_names_samples_or_people_is_no_trait_though_it_is_asked_for(data):
    named = data.copy()
    named.obs["sample_id"] = [f"patient_{k}" for k in range(30)]
    named.obs["patient"] = [f"p{k // 3}" for k in range(30)]
    for tool in ("module_trait", "batch_association"):
        matrix = named.copy()
        matrix.obsm["X_pca"] = matrix.X[:, :3]
        with pytest.raises(ToolError, match="sample_id names samples"):
            use(tool, {"data": matrix}, columns=["sample_id"])
    paired = DESIGN.model_copy(update={"subject": "patient"})
    with pytest.raises(ToolError, match="patient: who a sample is of is no trait"):
        use("module_trait", {"data": named}, paired, columns=["patient"])
    assert not use("module_trait", {"data": named}, paired)["module_trait"]["trait"].str.contains("p1").any()
    cells = ad.concat([named] * 3, index_unique="-", merge="same")
    cells.uns["proteus"] = {"scale": "log2", "modality": "single_cell"}
    found = use("module_trait", {"data": cells}, DESIGN.model_copy(update={"sample": "sample_id"}))
    assert "group=case" in set(found["module_trait"]["trait"])
    assert not found["module_trait"]["trait"].str.contains("patient_").any()


def test_two_clouds_are_two_clusters_and_one_cloud_has_no_small_p(data):
    out = use("cluster_samples", {"data": data[:, :15].copy()}, max_clusters=3, resamplings=20)
    chosen = out["subgroup_test"].dropna(subset=["p_value"]).iloc[0]
    assert chosen["n_clusters"] == 2
    assert chosen["p_value"] == 1 / 40
    assert out["subgroups"]["n_samples"].tolist() == [15, 15]
    assert pd.crosstab(out["matrix"].obs["cluster"], data.obs["group"]).to_numpy().max() == 15
    found = use("cluster_association", {"data": out["matrix"]})["cluster_association"].set_index("column")
    assert found.loc["group", "p_value"] == 1 / 1000
    assert found.loc["sex", "p_value"] > 0.1
    noise = use("cluster_samples", {"data": data[:, 30:].copy()}, max_clusters=3, resamplings=20)[
        "subgroup_test"
    ]
    assert noise["p_value"].dropna().iloc[0] > 0.05


def test_cox_gives_what_the_statistics_give_and_tests_the_hits_for_proportional_hazards(data):
    design = Design(time="time", event="event")
    cox = use("cox_screen", {"data": data}, design)["cox"].set_index("protein")
    expected = cox_fit(data.to_df(), data.obs["time"], data.obs["event"]).table().set_index("protein")
    np.testing.assert_array_equal(cox.loc[expected.index, "coef"], expected["coef"])
    hits = cox["q_value"] < 0.05
    assert hits["P0"]
    assert cox["schoenfeld_p"].notna().equals(hits)
    adjusted = use("cox_screen", {"data": data}, design, covariates=["age", "sex"])["cox"]
    assert adjusted.set_index("protein").loc["P0", "coef"] != cox.loc["P0", "coef"]


def test_curves_are_split_at_the_median_and_drawn_for_hits_only(data):
    design = Design(time="time", event="event")
    cox = use("cox_screen", {"data": data}, design)["cox"]
    out = use("km_plot", {"data": data, "cox": cox}, design, top=2)
    assert (out["logrank"]["n_high"] == 15).all()
    assert out["logrank"]["protein"].tolist() == cox["protein"].head(2).tolist()
    with pytest.raises(ToolError, match="no curve to draw"):
        use("km_plot", {"data": data, "cox": cox.assign(q_value=1.0)}, design)


def test_survival_without_times_or_events_or_with_too_few_is_told(data):
    with pytest.raises(ToolError, match="name them in the design"):
        use("cox_screen", {"data": data}, Design(time="time"))
    few = data.copy()
    few.obs["event"] = [1] * 5 + [0] * 25
    with pytest.raises(ToolError, match="5 events are too few"):
        use("cox_screen", {"data": few}, Design(time="time", event="event"))
    few.obs["event"] = few.obs["event"] + 1
    with pytest.raises(ToolError, match="other than 0"):
        use("cox_screen", {"data": few}, Design(time="time", event="event"))
    few.obs["event"] = "dead"
    with pytest.raises(ToolError, match="have to be numbers"):
        use("cox_screen", {"data": few}, Design(time="time", event="event"))
