"""The tool that puts hits into a network of known interactions (section 2.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from proteus_omics.errors import ToolError
from proteus_omics.knowledge import Knowledge
from proteus_omics.tools import briefs
from proteus_omics.tools.columns import table
from proteus_omics.tools.hitlists import Direction, HitList, hit_lists, required
from proteus_omics.tools.registry import ToolContext, ToolParams, tool

DEGREE_BINS = 10


class NetworkParams(ToolParams):
    """Parameters of `ppi_subnetwork`."""

    direction: Direction = "any"
    permutations: int = Field(default=1000, ge=100, le=100_000)


def _network_summary(outputs: Mapping[str, Any]) -> str:
    tested = briefs.rows(outputs["network_test"], "contrast n_in_network n_edges expected_edges fold p_value")
    hubs = outputs["network"].sort_values("degree", ascending=False, kind="stable")
    return f"{tested}\n{briefs.rows(hubs, 'gene contrast degree betweenness community')}"


@tool(
    params=NetworkParams,
    inputs={"hits": "table"},
    outputs={
        "network": table(("gene", "contrast"), "degree betweenness community component"),
        "network_test": table(("contrast",), "n_hits n_in_network n_edges expected_edges fold p_value"),
    },
    summary=_network_summary,
    citation="Blondel et al., J. Stat. Mech. 2008, P10008 (Louvain); Hagberg et al., SciPy 2008 (networkx)",
    library="networkx",
)
def ppi_subnetwork(
    inputs: Mapping[str, Any], params: NetworkParams, context: ToolContext
) -> Mapping[str, Any]:
    """Find known interactions among the hits; are they more than among quantified genes of like degree?"""
    lists = [one for one in hit_lists(inputs["hits"], context.alpha, params.direction) if one.hits]
    if not lists:
        raise ToolError(f"no gene has q < {context.alpha:g}, so there is no network of hits")
    knowledge = required(context.knowledge, frozenset().union(*(one.background for one in lists)))
    if not knowledge.edges:
        raise ToolError("the knowledge has no interactions; add STRING, BioGRID, SIF or a table of pairs")
    rng = np.random.default_rng(context.seed)
    nodes, tests = [], []
    for one in lists:
        graph = known_interactions(one.background, knowledge)
        nodes.append(_nodes(graph.subgraph(sorted(one.hits & set(graph))), one.contrast))
        tests.append(_edge_test(graph, one, params.permutations, rng))
    found = pd.concat([one for one in nodes if len(one)] or nodes[:1], ignore_index=True)
    return {"network": found, "network_test": pd.DataFrame(tests)}


def known_interactions(genes: frozenset[str], knowledge: Knowledge) -> nx.Graph:
    """The network among these genes, in alphabetical order so that every run gives the same."""
    graph = nx.Graph()
    graph.add_nodes_from(sorted(genes & set(knowledge.partners)))
    graph.add_edges_from(sorted(pair for pair in knowledge.edges if pair[0] in graph and pair[1] in graph))
    return graph


def _nodes(graph: nx.Graph, contrast: str) -> pd.DataFrame:
    graph = nx.Graph(graph)
    between = nx.betweenness_centrality(graph)
    communities = nx.community.louvain_communities(graph, seed=0) if graph.number_of_edges() else []
    community = _numbered([members for members in communities if len(members) > 1])
    component = _numbered(nx.connected_components(graph))
    rows = [
        (
            gene,
            contrast,
            degree,
            between[gene],
            f"C{community[gene]}" if gene in community else "",
            component[gene],
        )
        for gene, degree in sorted(graph.degree, key=lambda item: (-item[1], item[0]))
    ]
    columns = ["gene", "contrast", "degree", "betweenness", "community", "component"]
    return pd.DataFrame(rows, columns=columns)


def _numbered(parts: Iterable[set[str]]) -> dict[str, int]:
    """Member to the number of its part, 1 being the largest."""
    ordered = sorted((sorted(members) for members in parts), key=lambda members: (-len(members), members))
    return {gene: k for k, members in enumerate(ordered, 1) for gene in members}


def _edge_test(graph: nx.Graph, one: HitList, permutations: int, rng: np.random.Generator) -> dict[str, Any]:
    """Edges among the hits against those among as many genes of the same degrees (one-sided)."""
    genes = list(graph)
    hits = np.array([gene in one.hits for gene in genes])
    adjacency = nx.to_scipy_sparse_array(graph, nodelist=genes, dtype=np.float64) if genes else None
    row: dict[str, Any] = {
        "contrast": one.contrast,
        "n_hits": len(one.hits),
        "n_in_network": int(hits.sum()),
        "n_edges": 0,
        "expected_edges": np.nan,
        "fold": np.nan,
        "p_value": np.nan,
    }
    if adjacency is None or hits.sum() < 2:
        return row
    degrees = np.asarray(adjacency.sum(axis=1)).ravel()
    drawn = _of_like_degree(hits, degrees, permutations, rng).astype(float)
    edges = np.einsum("pn,pn->p", drawn, (adjacency @ drawn.T).T) / 2
    seen = float(hits @ (adjacency @ hits.astype(float))) / 2
    expected = float(edges.mean())
    row |= {"n_edges": int(seen), "expected_edges": expected}
    row |= {"fold": seen / expected if expected else np.nan}
    return row | {"p_value": float((1 + np.sum(edges >= seen)) / (1 + permutations))}


def _of_like_degree(
    hits: NDArray[np.bool_], degrees: NDArray[np.float64], permutations: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Permutations x genes: labels of hits shuffled among genes of the same tenth of the degrees."""
    edges = np.unique(np.quantile(degrees, np.linspace(0, 1, DEGREE_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, degrees, side="right")
    drawn = np.zeros((permutations, len(hits)), dtype=bool)
    for level in np.unique(bins):
        inside = np.flatnonzero(bins == level)
        order = np.argsort(rng.random((permutations, len(inside))), axis=1)
        drawn[:, inside] = hits[inside][order]
    return drawn
