from __future__ import annotations

from io import BytesIO

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from proteus_omics.design import Design
from proteus_omics.errors import ToolError
from proteus_omics.knowledge import Knowledge
from proteus_omics.tools.registry import ToolContext, get_tool

KNOWN = Knowledge({}, frozenset({("G1", "G2"), ("G2", "G3"), ("G3", "G4")}))


def draw(name: str, inputs: dict, **params):
    found = get_tool(name)
    outputs = found(inputs, found.parse(params), ToolContext(Design(sample="sample"), knowledge=KNOWN))
    outputs["figure"].savefig(BytesIO(), format="svg")
    assert found.summary(outputs).startswith("a figure of ")
    return outputs["figure"]


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"group": list("aabb") * 3, "age": range(12), "sample": list("xyz") * 4})
    obs.index = [f"s{k}" for k in range(12)]
    x = rng.normal(20, 1, (12, 30))
    x[0, :10] = np.nan
    uns = {"proteus": {"scale": "log2", "modality": "bulk"}, "pca": {"variance_ratio": np.array([0.6, 0.2])}}
    return ad.AnnData(x, obs, obsm={"X_pca": x[:, 10:13], "X_umap": x[:, 10:12]}, uns=uns)


def de(**more) -> pd.DataFrame:
    table = pd.DataFrame({"protein": ["P1", "P2", "P3"], "contrast": "b_vs_a", **more})
    return table.assign(log2fc=[1.0, -2.0, 0.1], p_value=[1e-4, 0.0, 0.6], q_value=[1e-3, 0.0, 0.6])


def test_the_volcano_names_its_hits_and_counts_them():
    axis = draw("plot_volcano", {"de": de(gene=["G1", "", "G3"])}).axes[0]
    assert axis.get_title() == "b_vs_a: 2 of 3"
    assert {text.get_text() for text in axis.texts} == {"G1", "P2"}
    states = draw("plot_volcano", {"de": de(population="B cell")}, names=1).axes[0]
    assert [text.get_text() for text in states.texts] == ["P2, B cell"]
    with pytest.raises(ToolError, match="nothing to draw"):
        draw("plot_volcano", {"de": de().assign(p_value=np.nan)})


def test_long_names_keep_to_their_panel_and_a_label_has_its_room(data):
    long = "type 2 diabetes mellitus and non-alcoholic fatty liver disease"
    title = draw("plot_volcano", {"de": de().assign(contrast=f"{long}_vs_healthy")}).axes[0].get_title()
    assert max(map(len, title.splitlines())) <= 30
    assert " ".join(title.split()) == f"{long}_vs_healthy: 2 of 3"
    pairs = pd.DataFrame({"module": ["M1", "M2"], "trait": [long, "age"], "r": 0.5, "q_value": 0.9})
    figure = draw("plot_module_trait", {"associations": pairs})
    assert figure.axes[0].get_window_extent().height > 0.2 * 2 * figure.dpi  # two rows of 0.28 inches


def test_points_are_coloured_by_a_column(data):
    by_group = draw("plot_pca", {"data": data}, color="group")
    assert by_group.axes[0].get_xlabel() == "PC1 (60 %)"
    assert [text.get_text() for text in by_group.legends[0].get_texts()] == ["a", "b"]
    assert len(draw("plot_umap", {"data": data}, color="age").axes) == 2  # with a colour bar
    assert len(draw("plot_pca", {"data": data}).axes) == 1
    with pytest.raises(ToolError, match="no column 'x'"):
        draw("plot_umap", {"data": data}, color="x")
    bare = ad.AnnData(data.X, data.obs)
    for name, first in (("plot_pca", "pca"), ("plot_umap", "umap")):
        with pytest.raises(ToolError, match=f"run {first} first"):
            draw(name, {"data": bare})


def test_quality_shows_each_sample_or_the_cells_of_each(data):
    bars = draw("plot_qc", {"data": data}).axes[1].patches
    assert [bar.get_height() for bar in bars] == [20] + [30] * 11
    cells = data.copy()
    cells.uns["proteus"] = {"scale": "arcsinh", "modality": "cytometry"}
    axis = draw("plot_qc", {"data": cells}).axes[1]
    assert [bar.get_height() for bar in axis.patches] == [4, 4, 4]


def test_enrichment_shows_the_strongest_sets_first():
    table = pd.DataFrame(
        {"term": [f"T{k}" for k in range(5)], "contrast": "b_vs_a", "nes": np.arange(5) - 2.0}
    )
    table = table.assign(p_value=np.arange(5) / 10, q_value=np.arange(5) / 10)
    axis = draw("plot_enrichment", {"enriched": table}, top=2).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["T1", "T0"]
    assert axis.get_xlabel() == "nes"


def test_heat_maps_have_a_cell_for_each_pair_and_a_star_where_it_is_significant():
    markers = pd.DataFrame({"population": list("aabb"), "protein": ["x", "y"] * 2, "median": [1.0, 2, 3, 4]})
    image = draw("plot_populations", {"markers": markers}).axes[0].images[0]
    np.testing.assert_array_equal(image.get_array(), [[1, 2], [3, 4]])
    many = pd.DataFrame({"population": range(150), "protein": "x", "median": 1.0, "n_cells": range(150)})
    axis = draw("plot_populations", {"markers": many}).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [str(name) for name in range(50, 150)]
    assert axis.get_title() == "median in the 100 largest of 150 populations"
    pairs = pd.DataFrame(
        {"module": ["M1", "M1"], "trait": ["t", "u"], "r": [0.9, 0.1], "q_value": [0.01, 0.9]}
    )
    axis = draw("plot_module_trait", {"associations": pairs}).axes[0]
    assert [(text.get_text(), text.get_position()) for text in axis.texts] == [("*", (0, 0))]


def test_the_network_is_of_the_hits_that_interact():
    genes = ["G1", "G2", "G3", "G4"]
    table = pd.DataFrame(
        {"protein": genes, "gene": genes, "contrast": "b_vs_a", "log2fc": 1.0, "p_value": 0.01}
    )
    axis = draw("plot_network", {"hits": table.assign(q_value=[0.01, 0.01, 0.9, 0.01])}).axes[0]
    assert axis.get_title() == "b_vs_a: 1 interactions"
    assert {text.get_text() for text in axis.texts} == {"G1", "G2"}
    lonely = table.assign(contrast="c_vs_a", gene=["G1", "X2", "X3", "X4"])
    both = pd.concat([table, lonely]).assign(q_value=0.01)
    assert len(draw("plot_network", {"hits": both}).axes) == 1  # of the other none interact
    with pytest.raises(ToolError, match="no network of hits"):
        draw("plot_network", {"hits": table.assign(q_value=0.5)})
