from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from proteus_omics.design import Design
from proteus_omics.errors import ToolError
from proteus_omics.tools.registry import ToolContext, get_tool


def matrix(n: int = 8, proteins: int = 30, seed: int = 0, **record) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "group": np.repeat(["a", "b"], n // 2),
            "batch": np.resize(["x", "y"], n),
            "age": np.arange(n) + 20.0,
            "name": [f"name {k}" for k in range(n)],
        },
        index=[f"s{k}" for k in range(n)],
    )
    var = pd.DataFrame({"gene": [f"G{k}" for k in range(proteins)]}, index=[f"P{k}" for k in range(proteins)])
    x = rng.normal(25, 1, (n, proteins))
    return ad.AnnData(x, obs, var, uns={"proteus": {"scale": "log2", "modality": "bulk"} | record})


def use(name: str, data: ad.AnnData, design: Design | None = None, seed: int = 0, **params):
    found = get_tool(name)
    context = ToolContext(design or Design(condition="group", reference="a"), seed=seed)
    outputs = found({"data": data}, found.parse(params), context)
    assert set(outputs) == set(found.outputs)
    assert 0 < len(found.summary(outputs).splitlines()) <= 40
    for output, declared in found.outputs.items():
        if declared.kind == "table":
            assert not outputs[output].duplicated(list(declared.key_columns)).any()
            assert set(declared.columns) <= set(outputs[output].columns)
    return outputs


def test_linear_values_become_log2_with_zero_as_missing_and_cytometry_arcsinh():
    data = matrix(scale="linear")
    data.X = np.full(data.shape, 8.0)
    data.X[0, 0] = 0
    out = use("transform", data)["matrix"]
    assert np.isnan(out.X[0, 0])
    assert out.X[1, 0] == 3
    assert out.uns["proteus"]["scale"] == "log2"
    cells = matrix(scale="linear", modality="cytometry")
    out = use("transform", cells)["matrix"]
    np.testing.assert_allclose(out.X, np.arcsinh(cells.X / 5))
    with pytest.raises(ToolError, match="only linear"):
        use("transform", matrix(), method="log2")


def test_the_filter_keeps_proteins_of_one_full_group_and_lists_the_others_with_their_share():
    data = matrix()
    data.X[4:, 0] = np.nan  # full in a, absent in b
    data.X[[0, 1, 2, 4, 5, 6], 1] = np.nan  # a quarter in each
    out = use("filter_missing", data)
    assert out["filtered"].to_dict("records") == [
        {"protein": "P1", "gene": "G1", "n_valid": 2, "best_group_share": 0.25}
    ]
    assert "P0" in out["matrix"].var_names
    strict = use("filter_missing", data, mode="all")
    assert strict["filtered"]["protein"].tolist() == ["P0", "P1"]


def test_a_filter_that_leaves_too_little_stops_and_says_what_to_loosen():
    data = matrix()
    data.X[:, :25] = np.nan
    with pytest.raises(ToolError, match=r"leaves 5 proteins.*loosen min_frac = 0.5 \(--min-frac\)$"):
        use("filter_missing", data)


def test_normalised_samples_have_one_median_and_imputed_cells_are_marked():
    data = matrix()
    data.X += np.arange(8)[:, None]
    out = use("normalize", data)["matrix"]
    assert np.ptp(np.median(out.X, axis=1)) < 1e-12
    out.X[2, 3] = np.nan
    filled = use("impute", out)["matrix"]
    assert filled.layers["imputed"].sum() == 1
    assert filled.layers["imputed"][2, 3]
    assert filled.uns["proteus"]["imputed"] == "minprob"


def test_ratios_to_a_reference_level_are_zero_on_its_own_mean():
    out = use("normalize", matrix(), method="reference", reference_column="group", reference="a")["matrix"]
    np.testing.assert_allclose(out.X[:4].mean(axis=0), 0, atol=1e-12)
    with pytest.raises(ToolError, match="needs reference_column"):
        use("normalize", matrix(), method="reference")


def test_a_removed_batch_leaves_the_condition():
    data = matrix(seed=1)
    before = data.X[4:].mean(axis=0) - data.X[:4].mean(axis=0)
    data.X[1::2] += 5
    out = use("remove_batch_effect", data, batch="batch")["matrix"].X
    np.testing.assert_allclose(out[1::2].mean(axis=0), out[::2].mean(axis=0))
    np.testing.assert_allclose(out[4:].mean(axis=0) - out[:4].mean(axis=0), before)
    shrunken = use("remove_batch_effect", data, method="combat", batch="batch")["matrix"].X
    assert abs(shrunken[1::2].mean() - shrunken[::2].mean()) < 0.2
    with pytest.raises(ToolError, match="needs a batch column"):
        use("remove_batch_effect", data)


def test_a_sample_that_lost_half_of_its_proteins_is_flagged_and_no_sample_is_named_to_a_planner():
    data = matrix(n=12)
    data.X[3, :15] = np.nan
    out = use("qc_report", data)
    flagged = out["qc_samples"].set_index("sample")["flags"]
    assert "n_proteins" in flagged["s3"]
    assert out["qc_groups"].set_index("group")["n_samples"].to_dict() == {"a": 6, "b": 6}
    assert "s3" not in get_tool("qc_report").summary(out)


def test_the_cv_is_that_of_log_normal_intensities():
    rng = np.random.default_rng(0)
    data = matrix(n=200, proteins=200)
    data.X = rng.normal(20, 0.5, data.shape)
    cv = use("qc_report", data)["qc_groups"]["cv_median"]
    np.testing.assert_allclose(cv, np.sqrt(np.exp((0.5 * np.log(2)) ** 2) - 1), rtol=0.01)


def test_components_find_a_shift_and_the_column_that_explains_it():
    data = matrix(n=20)
    data.X[1::2] += 3
    data.X[5, 2] = np.nan
    components = use("pca", data)
    assert components["pca"]["variance_share"].is_monotonic_decreasing
    found = use("batch_association", components["matrix"])["batch_association"].set_index("column")
    assert "name" not in found.index
    assert found["r2"].idxmax() == "batch"
    assert found.loc["batch", "p_value"] == 1 / 1000
    assert found.loc["age", "p_value"] > 0.05


def test_a_factor_of_the_components_themselves_explains_all_of_them():
    data = matrix(n=8)
    data.obsm["X_pca"] = np.repeat([[1.0, 0], [-1, 0]], 4, axis=0)
    found = use("batch_association", data)["batch_association"].set_index("column")
    assert found.loc["group", "r2"] == pytest.approx(1)
    with pytest.raises(ToolError, match="run pca first"):
        use("batch_association", matrix())
