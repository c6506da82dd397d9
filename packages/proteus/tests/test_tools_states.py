from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

import proteus_omics.tools.states  # noqa: F401  # registers its tools
from proteus_omics.design import Design
from proteus_omics.errors import DesignError, ToolError
from proteus_omics.tools.registry import ToolContext, get_tool

DESIGN = Design(condition="drug", reference="no", subject="patient", sample="sample")
MARKERS = ["CD3", "CD20", "pA", "pB", "pC", "pD", "pE", "pF"]


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    """4 patients x 2 samples x 120 cells: with the drug pA is up by 1 in B cells and T cells are fewer."""
    rng = np.random.default_rng(0)
    rows = [(p, drug, k) for p in range(4) for drug in ("no", "yes") for k in range(120)]
    obs = pd.DataFrame(rows, columns=["patient", "drug", "k"]).astype({"patient": str})
    obs["sample"] = obs["patient"] + obs["drug"]
    share = np.where(obs.pop("k") < np.where(obs["drug"] == "yes", 60, 90), "T", "B")
    obs["population"] = share
    x = (
        rng.normal(2, 1, (len(obs), len(MARKERS)))
        + rng.normal(0, 1, (4, len(MARKERS)))[obs["patient"].astype(int)]
    )
    x[:, 2] += (obs["population"] == "B") & (obs["drug"] == "yes")
    x[:, 4] += 2 * x[:, 3]
    obs.index = obs.index.astype(str)
    var = pd.DataFrame({"marker_class": ["type"] * 2 + ["state"] * 6}, index=MARKERS)
    return ad.AnnData(x, obs, var, uns={"proteus": {"scale": "arcsinh", "modality": "cytometry"}})


def use(name: str, data: ad.AnnData, design: Design = DESIGN, **params):
    found = get_tool(name)
    outputs = found({"data": data}, found.parse(params), ToolContext(design))
    assert set(outputs) == set(found.outputs)
    assert 0 < len(found.summary(outputs).splitlines()) <= 40
    for output, declared in found.outputs.items():
        if declared.kind == "table":
            assert not outputs[output].duplicated(list(declared.key_columns)).any()
            assert {*declared.columns, *declared.key_columns} <= set(outputs[output].columns)
    return outputs


def test_pseudobulk_is_the_median_of_the_cells_of_a_sample_and_population(cells):
    found = use("pseudobulk", cells)["matrix"]
    assert found.shape == (16, 8)
    chosen = (cells.obs["population"] == "B") & (cells.obs["sample"] == "2yes")
    np.testing.assert_allclose(found["B|2yes"].X[0], np.median(cells.X[chosen.to_numpy()], axis=0))
    assert found.obs.loc["B|2yes", ["patient", "drug", "n_cells"]].tolist() == ["2", "yes", 60]
    assert found.uns["proteus"]["modality"] == "bulk"
    few = use("pseudobulk", cells, min_cells=35)["matrix"]
    assert "B|2no" not in few.obs_names
    with pytest.raises(ToolError, match="loosen min_cells"):
        use("pseudobulk", cells, min_cells=1000)


def test_the_state_that_responds_is_found_in_its_population_by_the_paired_model(cells):
    bulk = use("pseudobulk", cells)["matrix"]
    found = use("state_de", bulk, trend=False, robust=False)["state_de"]
    assert set(found["protein"]) == set(MARKERS[2:])
    first = found.iloc[0]
    assert (first["population"], first["protein"], first["contrast"]) == ("B", "pA", "yes_vs_no")
    rows = bulk[bulk.obs["population"] == "B"]
    yes, no = (rows[rows.obs["drug"] == level].X[:, 2] for level in ("yes", "no"))
    assert first["log2fc"] == pytest.approx((yes - no).mean())
    assert (first["n_ref"], first["n_alt"]) == (4, 4)
    assert found["q_value"].iloc[1:].min() > 0.05
    # Without shrinkage the model with patients is the paired t-test.
    assert first["log2fc"] / (first["sigma"] * np.sqrt(2 / 4)) == pytest.approx(ttest_rel(yes, no).statistic)


def test_a_population_that_a_sample_lacks_is_tested_on_the_others(cells):
    bulk = use("pseudobulk", cells)["matrix"]
    found = use("state_de", bulk[bulk.obs_names != "B|0yes"])["state_de"]
    valid = found.groupby("population")["n_valid"].first()
    assert valid.to_dict() == {"B": 7, "T": 8}
    with pytest.raises(ToolError, match="takes the matrix of pseudobulk"):
        use("state_de", cells)


def test_all_markers_are_tested_where_asked(cells):
    bulk = use("pseudobulk", cells)["matrix"]
    assert set(use("state_de", bulk, markers="all")["state_de"]["protein"]) == set(MARKERS)


def test_shares_are_compared_sample_by_sample(cells):
    noisy = cells[np.random.default_rng(1).random(cells.n_obs) < 0.8]
    for method in ("arcsine", "logit"):
        found = use("composition_test", noisy, method=method)["composition"].set_index("population")
        assert found.loc["T", "share_ref"] == pytest.approx(0.75, abs=0.05)
        assert found.loc["T", "share_alt"] == pytest.approx(0.5, abs=0.05)
        assert found.loc["T", "difference"] == -found.loc["B", "difference"] < 0
        assert found.loc["T", "t"] < 0 < found.loc["B", "t"]
        assert found.loc["T", "q_value"] < 0.01
        assert found["n_cells"].sum() == noisy.n_obs


def test_correlations_are_of_subjects_and_not_of_cells(cells):
    found = use("marker_correlation", cells)["marker_correlation"]
    assert len(found) == 2 * 15
    pair = found[(found["marker_a"] == "pB") & (found["marker_b"] == "pC")]
    assert (pair["q_value"] < 0.05).all()
    assert (pair["r"] > 0.8).all()
    assert (pair["ci_low"] < pair["r"]).all()
    assert (found["n_samples"] == 4).all()
    others = found.drop(pair.index)
    assert (others["q_value"] < 0.05).sum() <= 1
    chosen = cells[cells.obs["population"] == "T"]
    samples = chosen.to_df()[["pB", "pC"]].groupby(chosen.obs["sample"])
    each = [np.arctanh(rows.corr("spearman").iloc[0, 1]) for _, rows in samples]
    own = pair.set_index("population").loc["T", "r"]
    assert own == pytest.approx(np.tanh(np.mean(each)))


def test_cells_without_samples_and_samples_that_disagree_are_refused(cells):
    with pytest.raises(ToolError, match="cells are no replicates"):
        use("composition_test", cells, Design(condition="drug"))
    with pytest.raises(ToolError, match="population differs between cells of one sample"):
        use("composition_test", cells, Design(condition="population", sample="sample"))
    with pytest.raises(ToolError, match="no column 'cluster'"):
        use("composition_test", cells, population="cluster")


@pytest.mark.parametrize("column", ["sample", "patient", "tube"])
@pytest.mark.parametrize(
    "name", ["composition_test", "pseudobulk", "marker_correlation", "population_markers"]
)
def test_samples_and_people_are_no_populations(cells, name, column):
    tubes = cells.copy()
    tubes.obs["tube"] = "tube of " + tubes.obs["sample"]
    with pytest.raises(ToolError, match=f"{column} names samples or subjects"):
        use(name, tubes, population=column)


def test_a_model_of_people_tells_no_name_of_theirs(cells):
    bulk = use("pseudobulk", cells)["matrix"]
    bulk.obs["plate"] = "plate" + bulk.obs["patient"].astype(str)
    bulk.obs["patient"] = "Ann " + bulk.obs["patient"].astype(str)
    with pytest.raises(DesignError, match="follow from those before them: patient 1, ") as error:
        use("state_de", bulk, batch="plate")
    assert "Ann" not in str(error.value)
