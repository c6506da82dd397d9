"""Tools that ask which known sets a ranking or a list of hits is about (section 2.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.stats import hypergeom

from proteus_omics.errors import MissingExtraError, ToolError
from proteus_omics.knowledge import Knowledge
from proteus_omics.stats import bh
from proteus_omics.tools import briefs
from proteus_omics.tools.columns import table
from proteus_omics.tools.hitlists import Direction, HitList, gene_names, hit_lists, required
from proteus_omics.tools.registry import ToolContext, ToolParams, tool

SHOWN_GENES = 30  # of a leading edge or an overlap, in the table


class GseaParams(ToolParams):
    """Parameters of `gsea_prerank`; no `collections` are all that the knowledge has."""

    collections: tuple[str, ...] = ()
    min_size: int = Field(default=8, ge=2, le=1000)
    max_size: int = Field(default=500, ge=2, le=100_000)
    permutations: int = Field(default=1000, ge=100, le=100_000)


def _enriched_summary(outputs: Mapping[str, Any]) -> str:
    (found,) = outputs.values()
    shown = (
        "term name contrast nes p_value q_value"
        if "nes" in found
        else "term name contrast n_overlap fold q_value"
    )
    return f"{briefs.hits(found)}\n{briefs.rows(found, shown, by='p_value', n=15)}"


@tool(
    params=GseaParams,
    inputs={"de": "table"},
    outputs={"gsea": table(("term", "contrast"), "collection name n es nes p_value q_value leading_edge")},
    summary=_enriched_summary,
    citation="Subramanian et al., PNAS 2005, 102:15545; Fang et al., Bioinformatics 2023 (gseapy)",
    library="gseapy",
)
def gsea_prerank(inputs: Mapping[str, Any], params: GseaParams, context: ToolContext) -> Mapping[str, Any]:
    """Find gene sets at the ends of the ranking by moderated t, each collection with an FDR of its own."""
    de = inputs["de"]
    if not {"t", "contrast"} <= set(de.columns):
        raise ToolError("gsea_prerank ranks by the column t of each contrast; give it the table of de_limma")
    names = gene_names(de)
    knowledge = required(context.knowledge, names[names != ""])
    parts = [
        _prerank(ranking, knowledge, collection, params, context.seed).assign(contrast=contrast)
        for contrast, ranking in _rankings(de, names).items()
        for collection in chosen_collections(knowledge, params.collections)
    ]
    parts = [part for part in parts if len(part)]
    if not parts:
        raise ToolError(f"no set has between {params.min_size} and {params.max_size} of the quantified genes")
    columns = [
        "term",
        "contrast",
        "collection",
        "name",
        "n",
        "es",
        "nes",
        "p_value",
        "q_value",
        "leading_edge",
    ]
    found = pd.concat(parts, ignore_index=True)[columns].drop_duplicates(["term", "contrast"])
    return {"gsea": found.sort_values(["contrast", "p_value", "term"], kind="stable", ignore_index=True)}


def chosen_collections(knowledge: Knowledge, named: tuple[str, ...]) -> tuple[str, ...]:
    """The named collections, or all. Raises `ToolError` that lists those there are."""
    unknown = [name for name in named if name not in knowledge.sets]
    if unknown or not knowledge.sets:
        there = ", ".join(knowledge.sets) or "none"
        raise ToolError(f"there is no collection {', '.join(unknown) or 'of gene sets'}; there are: {there}")
    return named or tuple(knowledge.sets)


def _rankings(de: pd.DataFrame, names: pd.Series) -> dict[str, pd.Series]:
    """Contrast to gene and t, the largest first; of a gene's several proteins the one of the largest |t|."""
    tested = de.assign(gene=names)[(names != "") & de["t"].notna()]
    tested = tested.assign(size=tested["t"].abs()).sort_values(["size", "gene"], ascending=[False, True])
    found = {}
    for contrast, rows in tested.groupby("contrast", sort=True):
        unique = rows.drop_duplicates("gene").sort_values(["t", "gene"], ascending=[False, True])
        found[str(contrast)] = pd.Series(unique["t"].to_numpy(), index=unique["gene"])
    return found


def _prerank(
    ranking: pd.Series, knowledge: Knowledge, collection: str, params: GseaParams, seed: int
) -> pd.DataFrame:
    try:
        import gseapy
    except ImportError as error:
        raise MissingExtraError(
            "gsea_prerank needs an optional extra: pip install 'proteus-omics[enrich]'"
        ) from error
    terms = knowledge.sets[collection]
    ranked = frozenset(ranking.index)
    sizes = {term: len(item.genes & ranked) for term, item in terms.items()}
    tested = {term: sorted(terms[term].genes) for term, n in sizes.items()
              if params.min_size <= n <= params.max_size}  # fmt: skip
    if not tested:
        return pd.DataFrame()
    result = gseapy.prerank(
        rnk=ranking,
        gene_sets=tested,
        min_size=params.min_size,
        max_size=params.max_size,
        permutation_num=params.permutations,
        seed=seed,
        threads=2,
        outdir=None,
        no_plot=True,
        verbose=False,
    ).res2d
    found = pd.DataFrame({"term": result["Term"].astype(str)})
    found["collection"] = collection
    found["name"] = found["term"].map(lambda term: terms[term].name)
    found["n"] = found["term"].map(sizes)
    for ours, theirs in {"es": "ES", "nes": "NES", "p_value": "NOM p-val", "q_value": "FDR q-val"}.items():
        found[ours] = result[theirs].to_numpy(dtype=np.float64)
    found["leading_edge"] = [_listed(genes.split(";")) for genes in result["Lead_genes"].astype(str)]
    return found


class OraParams(ToolParams):
    """Parameters of `ora`; a set counts with its quantified genes only."""

    collections: tuple[str, ...] = ()
    direction: Direction = "any"
    min_size: int = Field(default=3, ge=1, le=1000)
    max_size: int = Field(default=500, ge=1, le=100_000)


@tool(
    params=OraParams,
    inputs={"hits": "table"},
    outputs={
        "ora": table(
            ("term", "contrast"),
            "collection name n_overlap n_set n_hits n_background fold p_value q_value genes",
        )
    },
    summary=_enriched_summary,
    citation="Rivals et al., Bioinformatics 2007, 23:401 (hypergeometric test)",
    library="scipy",
)
def ora(inputs: Mapping[str, Any], params: OraParams, context: ToolContext) -> Mapping[str, Any]:
    """Find sets with more hits than chance gives, against the quantified genes and no others."""
    lists = [one for one in hit_lists(inputs["hits"], context.alpha, params.direction) if one.hits]
    if not lists:
        raise ToolError(
            f"no gene has q < {context.alpha:g} ({params.direction}), so there is nothing to enrich"
        )
    knowledge = required(context.knowledge, frozenset().union(*(one.background for one in lists)))
    collections = chosen_collections(knowledge, params.collections)
    found = pd.concat([_over_represented(one, knowledge, collections, params) for one in lists])
    if found.empty:
        raise ToolError(f"no set has between {params.min_size} and {params.max_size} of the quantified genes")
    return {"ora": found.sort_values(["contrast", "p_value", "term"], kind="stable", ignore_index=True)}


def _over_represented(
    one: HitList, knowledge: Knowledge, collections: tuple[str, ...], params: OraParams
) -> pd.DataFrame:
    """P(X >= k) of k hits in the set; q over the tested sets of each collection."""
    parts = []
    total, drawn = len(one.background), len(one.hits)
    for collection in collections:
        rows = []
        for term, item in knowledge.sets[collection].items():
            size = len(item.genes & one.background)
            if params.min_size <= size <= params.max_size:
                overlap = item.genes & one.hits
                rows.append((term, one.contrast, collection, item.name, len(overlap), size, _listed(overlap)))
        part = pd.DataFrame(
            rows, columns=["term", "contrast", "collection", "name", "n_overlap", "n_set", "genes"]
        )
        part.insert(6, "n_hits", drawn)
        part.insert(7, "n_background", total)
        part.insert(8, "fold", part["n_overlap"] * total / (part["n_set"] * drawn))
        part.insert(9, "p_value", hypergeom.sf(part["n_overlap"] - 1, total, part["n_set"], drawn))
        part.insert(10, "q_value", bh(part["p_value"]))
        parts.append(part)
    return pd.concat(parts, ignore_index=True).drop_duplicates(["term", "contrast"])


def _listed(genes: Any) -> str:
    """The genes in one text, cut where there are too many to read."""
    names = sorted(genes)
    rest = len(names) - SHOWN_GENES
    return ";".join(names[:SHOWN_GENES]) + (f";and {rest} more" if rest > 0 else "")


class LookupParams(ToolParams):
    """Parameters of `knowledge_lookup`: entities by name, or the strongest hits of the table."""

    entities: tuple[str, ...] = Field(default=(), max_length=200)
    top: int = Field(default=20, ge=1, le=200)


def _lookup_summary(outputs: Mapping[str, Any]) -> str:
    return briefs.rows(outputs["knowledge"], "entity collection term name", n=35)


@tool(
    params=LookupParams,
    inputs={"hits": "table"},
    optional_inputs=("hits",),
    outputs={"knowledge": table(("entity", "collection", "term"), "name")},
    summary=_lookup_summary,
    citation="the sources of the knowledge folder",
    library="proteus_omics.knowledge",
)
def knowledge_lookup(
    inputs: Mapping[str, Any], params: LookupParams, context: ToolContext
) -> Mapping[str, Any]:
    """Look up what the knowledge files say of genes; the only source of statements on known functions."""
    entities = list(params.entities)
    found = inputs.get("hits")
    if not entities and found is not None:
        strongest = found[found["q_value"] < context.alpha].sort_values("p_value", kind="stable")
        named = gene_names(strongest)
        entities = named[named != ""].drop_duplicates().head(params.top).tolist()
    if not entities:
        raise ToolError("knowledge_lookup has nobody to look up: name entities or give it a table with hits")
    if context.knowledge is None:
        raise ToolError("there is no knowledge (gene sets, edges); give the run a knowledge folder")
    return {"knowledge": context.knowledge.lookup(entities)}
