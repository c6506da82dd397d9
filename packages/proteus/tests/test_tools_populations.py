from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from proteus_omics.design import Design
from proteus_omics.errors import ToolError
from proteus_omics.tools import populations
from proteus_omics.tools.populations import RULES, thresholds
from proteus_omics.tools.registry import ToolContext, get_tool

pytest.importorskip("scanpy", reason="needs proteus-omics[single-cell]")

MARKERS = ["CD3", "CD20", "CD14", "pS6"]


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    """90 T cells, 60 B cells, 50 monocytes, as counts; pS6 is high in half of all cells."""
    rng = np.random.default_rng(0)
    truth = np.repeat(["T", "B", "M"], [90, 60, 50])
    x = rng.normal(0.3, 0.2, (200, 4))
    for at, name in enumerate("TBM"):
        x[truth == name, at] += 4
    x[::2, 3] += 3
    var = pd.DataFrame({"marker_class": ["type"] * 3 + ["state"]}, index=MARKERS)
    obs = pd.DataFrame({"truth": truth}, index=[f"c{k}" for k in range(200)])
    return ad.AnnData(5 * np.sinh(x), obs, var, uns={"proteus": {"scale": "linear", "modality": "cytometry"}})


def use(name: str, data: ad.AnnData, design: Design | None = None, **params):
    found = get_tool(name)
    outputs = found({"data": data}, found.parse(params), ToolContext(design or Design()))
    assert set(outputs) == set(found.outputs)
    assert 0 < len(found.summary(outputs).splitlines()) <= 40
    for output, declared in found.outputs.items():
        if declared.kind == "table":
            assert not outputs[output].duplicated(list(declared.key_columns)).any()
            assert {*declared.columns, *declared.key_columns} <= set(outputs[output].columns)
    return outputs


@pytest.fixture(scope="module")
def clustered(cells) -> ad.AnnData:
    joined = use("neighbors", cells, n_neighbors=20)["matrix"]
    return use("leiden", joined, resolution=0.3)["matrix"]


def test_clusters_follow_the_type_markers_and_not_the_states(clustered):
    crossed = pd.crosstab(clustered.obs["truth"], clustered.obs["leiden"])
    assert crossed.shape == (3, 3)
    assert (crossed.to_numpy() > 0).sum() == 3
    assert clustered.uns["proteus"]["scale"] == "arcsinh"


@pytest.mark.slow  # the search is compiled
def test_neighbours_of_very_many_cells_are_those_of_few(cells, clustered, monkeypatch):
    monkeypatch.setattr(populations, "EXACT_BELOW", 0)
    found = use("neighbors", cells, n_neighbors=20)["matrix"].obsp["distances"]
    exact = clustered.obsp["distances"]
    assert found.shape == exact.shape
    assert found.astype(bool).multiply(exact.astype(bool)).sum() > 0.95 * exact.nnz


def test_rules_name_the_clusters_and_say_which_rule(clustered):
    found = use("annotate", clustered)
    named = found["annotation"].set_index("population")
    assert named["n_cells"].to_dict() == {"T cell": 90, "B cell": 60, "Monocyte": 50}
    assert named["rule"].to_dict() == {name: RULES[name] for name in named.index}
    truth = found["matrix"].obs.groupby("truth")["population"].unique()
    assert [list(names) for names in truth] == [["B cell"], ["Monocyte"], ["T cell"]]


def test_what_no_rule_fits_is_unassigned_and_equal_names_are_numbered(clustered):
    found = use("annotate", clustered, rules={"lymphocyte": "CD3+ or CD20+", "other": "CD99+"})["annotation"]
    assert found["population"].tolist() == ["lymphocyte 1", "lymphocyte 2", "unassigned"]
    assert found["rule"].tolist() == ["CD3+ or CD20+"] * 2 + [""]
    with pytest.raises(ToolError, match=r"has no form such as 'CD19\+"):
        use("annotate", clustered, rules={"x": "CD3"})


def test_populations_are_described_by_medians_and_shares_of_positive_cells(clustered):
    named = use("annotate", clustered)["matrix"]
    found = use("population_markers", named)["population_markers"].set_index(["population", "protein"])
    assert len(found) == 12
    assert found.loc[("B cell", "CD20"), "fraction_positive"] == 1
    assert found.loc[("B cell", "CD3"), "fraction_positive"] == 0
    assert found.loc[("T cell", "pS6"), "fraction_positive"] == 0.5
    assert found.loc[("Monocyte", "CD14"), "median"] == pytest.approx(4.3, abs=0.1)
    assert found["n_cells"].xs("T cell").tolist() == [90] * 4


def test_a_threshold_parts_rare_positive_cells_from_the_spike_of_those_without_signal():
    rng = np.random.default_rng(0)
    rare = np.r_[rng.uniform(-0.2, 0.1, 700), rng.exponential(0.4, 200), rng.normal(4, 0.6, 100)]
    limits = thresholds(pd.DataFrame({"rare": rare, "none": np.ones(1000)}))
    assert 1 < limits["rare"] < 3
    assert limits["none"] == np.inf


def test_pseudotime_follows_a_line_from_its_root(clustered):
    along = np.linspace(0, 6, 150)
    x = np.column_stack([along, np.sin(along), np.cos(along)]) + np.random.default_rng(0).normal(
        0, 0.05, (150, 3)
    )
    obs = pd.DataFrame(
        {"population": np.repeat(["first", "middle", "last"], 50)}, index=[f"c{k}" for k in range(150)]
    )
    line = ad.AnnData(x, obs, uns={"proteus": {"scale": "arcsinh", "modality": "cytometry"}})
    line = use("neighbors", line, n_neighbors=10)["matrix"]
    found = use("dpt", line, Design(root="first"))["pseudotime"].set_index("population")
    assert found["median"].sort_values().index.tolist() == ["first", "middle", "last"]
    with pytest.raises(ToolError, match="root = 'X' is no population; there are first, last, middle"):
        use("dpt", line, Design(root="X"))
    apart = use("annotate", clustered)["matrix"]
    with pytest.raises(ToolError, match="no order to tell"):
        use("dpt", apart, Design(root="T cell"))


def test_what_is_not_there_is_named(cells, clustered):
    for name in ("leiden", "umap", "dpt"):
        with pytest.raises(ToolError, match="run neighbors first"):
            use(name, cells)
    holes = cells.copy()
    holes.X[0, 0] = np.nan
    with pytest.raises(ToolError, match="filter or impute first"):
        use("neighbors", holes)
    with pytest.raises(ToolError, match="no column 'population'"):
        use("population_markers", clustered)


@pytest.mark.slow
def test_many_markers_are_compared_by_their_components():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (120, populations.DIRECT_BELOW + 10))
    x[:60, :20] += 3
    data = ad.AnnData(5 * np.sinh(x), uns={"proteus": {"scale": "linear", "modality": "cytometry"}})
    joined = use("neighbors", data)["matrix"]
    assert joined.obsm[populations.COMPARED].shape == (120, 30)
    clusters = use("leiden", joined, resolution=0.2)["matrix"].obs["leiden"].astype(int).to_numpy()
    np.testing.assert_array_equal(clusters == clusters[0], np.arange(120) < 60)
    left, right = np.split(use("umap", joined)["matrix"].obsm["X_umap"], 2)
    assert np.linalg.norm(left.mean(0) - right.mean(0)) > 2 * max(left.std(), right.std())


@pytest.mark.slow
def test_the_map_keeps_populations_together(clustered):
    shown = use("umap", clustered)["matrix"]
    centres = pd.DataFrame(shown.obsm["X_umap"]).groupby(shown.obs["truth"].to_numpy()).median()
    spread = pd.DataFrame(shown.obsm["X_umap"]).groupby(shown.obs["truth"].to_numpy()).std().max(axis=None)
    apart = np.linalg.norm(centres.to_numpy()[:, None] - centres.to_numpy(), axis=2)
    assert apart[np.triu_indices(3, 1)].min() > 2 * spread
