from __future__ import annotations

import dataclasses

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from proteus_omics.design import Design
from proteus_omics.errors import ToolError
from proteus_omics.knowledge import GeneSet, Knowledge
from proteus_omics.stats import bh
from proteus_omics.tools.hitlists import hit_lists
from proteus_omics.tools.registry import ToolContext, get_tool

GENES = [f"G{k}" for k in range(200)]


def gene_set(term: str, *members: int, more: tuple[str, ...] = ()) -> GeneSet:
    return GeneSet(term, term.lower(), frozenset([*(GENES[k] for k in members), *more]))


SETS = {
    "up": gene_set("GO:1", *range(12)),
    "down": gene_set("GO:2", *range(188, 200)),
    "mixed": gene_set("GO:3", *range(0, 200, 17)),
    "absent": GeneSet("GO:4", "absent", frozenset(["X1", "X2", "X3"])),
}
KNOWN = Knowledge(
    {"go": {item.term: item for item in SETS.values()}},
    frozenset({(a, b) for a in GENES[:10] for b in GENES[:10] if a < b})
    | frozenset((min(GENES[k], GENES[k + 1]), max(GENES[k], GENES[k + 1])) for k in range(20, 199)),
)


@pytest.fixture(scope="module")
def de() -> pd.DataFrame:
    """Proteins ranked from G0, up, to G199, down; the outer ten of each end are hits."""
    t = np.linspace(8, -8, 200)
    q = np.where(np.abs(t) > np.abs(t[9]) - 1e-9, 0.01, 0.9)
    return pd.DataFrame(
        {"protein": [f"P{k}" for k in range(200)], "gene": GENES, "contrast": "b_vs_a", "t": t,
         "log2fc": t / 2, "p_value": q / 2, "q_value": q}
    )  # fmt: skip


def use(name: str, inputs: dict, knowledge: Knowledge | None = KNOWN, **params):
    found = get_tool(name)
    outputs = found(inputs, found.parse(params), ToolContext(Design(), knowledge=knowledge))
    assert set(outputs) == set(found.outputs)
    assert 0 < len(found.summary(outputs).splitlines()) <= 40
    for output, declared in found.outputs.items():
        assert not outputs[output].duplicated(list(declared.key_columns)).any()
        assert {*declared.columns, *declared.key_columns} <= set(outputs[output].columns)
    return outputs


def test_sets_at_the_ends_of_the_ranking_are_found_with_its_sign(de):
    found = use("gsea_prerank", {"de": de})["gsea"].set_index("term")
    assert set(found.index) == {"GO:1", "GO:2", "GO:3"}
    assert found.loc["GO:1", "nes"] > 1.5
    assert found.loc["GO:2", "nes"] < -1.5
    assert found.loc[["GO:1", "GO:2"], "q_value"].max() < 0.05 < found.loc["GO:3", "q_value"]
    flipped = use("gsea_prerank", {"de": de.assign(t=-de["t"])})["gsea"].set_index("term")
    assert np.sign(flipped.loc["GO:1", "nes"]) == -np.sign(found.loc["GO:1", "nes"])
    assert found.loc["GO:1", "n"] == 12
    again = use("gsea_prerank", {"de": de.sample(frac=1, random_state=1)})["gsea"].set_index("term")
    pd.testing.assert_frame_equal(found, again)


def test_over_representation_is_the_hypergeometric_tail_with_the_quantified_as_background(de):
    found = use("ora", {"hits": de}, direction="up")["ora"].set_index("term")
    row = found.loc["GO:1"]
    assert row[["n_overlap", "n_set", "n_hits", "n_background"]].tolist() == [10, 12, 10, 200]
    assert row["p_value"] == hypergeom.sf(9, 200, 12, 10)
    assert row["fold"] == pytest.approx((10 / 10) / (12 / 200))
    np.testing.assert_array_equal(found["q_value"], bh(found["p_value"]))
    assert set(use("ora", {"hits": de})["ora"]["n_hits"]) == {20}


def test_genes_of_the_genome_that_were_not_quantified_change_nothing(de):
    larger = {k: GeneSet(s.term, s.name, s.genes | {f"U{j}" for j in range(300)}) for k, s in SETS.items()}
    genome = dataclasses.replace(KNOWN, sets={"go": {item.term: item for item in larger.values()}})
    before = use("ora", {"hits": de})["ora"].query("term != 'GO:4'")
    after = use("ora", {"hits": de}, genome)["ora"].query("term != 'GO:4'")
    pd.testing.assert_frame_equal(before.reset_index(drop=True), after.reset_index(drop=True))


def test_modules_and_a_cox_table_are_lists_of_hits_too(de):
    modules = pd.DataFrame({"protein": de["protein"], "gene": GENES, "module": ["M1"] * 12 + ["none"] * 188})
    found = use("ora", {"hits": modules})["ora"]
    assert found["contrast"].unique().tolist() == ["M1"]
    assert found.set_index("term").loc["GO:1", ["n_overlap", "n_background"]].tolist() == [12, 200]
    cox = de.drop(columns=["contrast", "t", "log2fc"]).assign(coef=de["log2fc"])
    assert [one.contrast for one in hit_lists(cox, 0.05)] == ["survival"]
    assert {len(one.hits) for one in hit_lists(cox, 0.05, "down")} == {10}


def test_a_protein_group_counts_as_its_first_gene_and_one_without_a_gene_not_at_all(de):
    named = de.assign(gene=["G0;G77", "", *GENES[2:]])
    (one,) = hit_lists(named, 0.05, "up")
    assert one.hits == {"G0", *GENES[2:10]}
    assert len(one.background) == 199


def test_interactions_of_the_hits_are_counted_and_held_against_genes_of_like_degree(de):
    out = use("ppi_subnetwork", {"hits": de}, direction="up", permutations=500)
    tested = out["network_test"].iloc[0]
    assert tested[["n_hits", "n_in_network", "n_edges"]].tolist() == [10, 10, 45]
    assert out["network"]["degree"].tolist() == [9] * 10
    assert out["network"]["community"].unique().tolist() == ["C1"]
    alone = use("ppi_subnetwork", {"hits": de}, direction="down", permutations=500)["network_test"].iloc[0]
    assert alone["n_edges"] == 9
    assert alone["p_value"] == pytest.approx(1 / 501)  # a chain of ten neighbours


def test_the_permutations_of_a_random_choice_give_no_small_p(de):
    rng = np.random.default_rng(1)
    p = []
    for _ in range(40):
        q = np.where(np.isin(np.arange(200), rng.choice(np.arange(20, 200), 20, replace=False)), 0.01, 0.9)
        out = use("ppi_subnetwork", {"hits": de.assign(q_value=q)}, permutations=200)
        p.append(out["network_test"]["p_value"][0])
    assert np.mean(np.array(p) < 0.05) <= 0.15
    assert np.mean(p) > 0.3


def test_centrality_is_that_of_networkx(de):
    q = np.where(np.arange(200) // 20 == 2, 0.01, 0.9)
    found = use("ppi_subnetwork", {"hits": de.assign(q_value=q)})["network"].set_index("gene")
    path = nx.betweenness_centrality(nx.path_graph(GENES[40:60]))
    np.testing.assert_allclose(found["betweenness"], [path[gene] for gene in found.index])


def test_what_is_known_of_the_strongest_hits_or_of_named_genes_is_looked_up(de):
    found = use("knowledge_lookup", {"hits": de}, top=1)["knowledge"]
    assert set(found["entity"]) == {"G0"}
    assert set(found["collection"]) == {"go", "interaction"}
    assert use("knowledge_lookup", {}, entities=["G199"])["knowledge"]["term"].tolist() == ["GO:2", "G198"]
    with pytest.raises(ToolError, match="nobody to look up"):
        use("knowledge_lookup", {})


def test_missing_or_foreign_knowledge_is_one_clear_line(de):
    for name, inputs in {
        "ora": {"hits": de},
        "gsea_prerank": {"de": de},
        "ppi_subnetwork": {"hits": de},
    }.items():
        with pytest.raises(ToolError, match="no knowledge"):
            use(name, inputs, None)
    mouse = Knowledge({"go": {"GO:1": GeneSet("GO:1", "x", frozenset(["g0", "g1"]))}})
    with pytest.raises(ToolError, match="names 0% of the quantified genes"):
        use("ora", {"hits": de}, mouse)
    with pytest.raises(ToolError, match="no collection kegg; there are: go"):
        use("ora", {"hits": de}, collections=["kegg"])
    with pytest.raises(ToolError, match="nothing to enrich"):
        use("ora", {"hits": de.assign(q_value=1.0)})
    sets_only = Knowledge({"go": {"GO:1": gene_set("GO:1", *range(100))}})
    with pytest.raises(ToolError, match="has no interactions"):
        use("ppi_subnetwork", {"hits": de}, sets_only)
