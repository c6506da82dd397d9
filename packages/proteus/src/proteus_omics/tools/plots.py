"""Tools that draw: each takes what another tool left and gives a figure (section 2.5)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from proteus_omics.errors import ToolError
from proteus_omics.tools.columns import FIGURE
from proteus_omics.tools.hitlists import hit_lists, required
from proteus_omics.tools.matrices import frame, groups, is_bulk, is_numeric, obs_column
from proteus_omics.tools.network import known_interactions
from proteus_omics.tools.registry import ToolContext, ToolParams, tool

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

MATPLOTLIB = "Hunter, Computing in Science & Engineering 2007, 9:90 (matplotlib)"
MOST_PANELS = 6
MOST_POPULATIONS = 100  # rows of a heat map: thousands take minutes to draw, and nobody can read them
UP, DOWN, REST = "#b2182b", "#2166ac", "#bdbdbd"


class NoParams(ToolParams):
    """A drawing without settings."""


class VolcanoParams(ToolParams):
    """Parameters of `plot_volcano`: how many of the strongest are named in each panel."""

    names: int = Field(default=10, ge=0, le=50)


class ColorParams(ToolParams):
    """The column of the sample sheet that colours the points."""

    color: str | None = None


class TopParams(ToolParams):
    """How many rows are drawn."""

    top: int = Field(default=15, ge=1, le=60)


def _drawn(outputs: Mapping[str, Any]) -> str:
    axes = outputs["figure"].axes
    titles = (" ".join(axis.get_title().split()) for axis in axes)
    return f"a figure of {len(axes)} panels: " + "; ".join(titles)


def _wrapped(text: str, width: int = 30) -> str:
    """A title or label that keeps to its panel: names of levels may be long."""
    return textwrap.fill(text, width)


def _panels(n: int, width: float = 4.0, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    columns = min(3, n)
    rows = -(-n // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[n:]:
        axis.remove()
    return figure, axes[:n]


@tool(
    params=VolcanoParams,
    inputs={"de": "table"},
    outputs={"figure": FIGURE},
    summary=_drawn,
    citation=MATPLOTLIB,
    library="matplotlib",
)
def plot_volcano(inputs: Mapping[str, Any], params: VolcanoParams, context: ToolContext) -> Mapping[str, Any]:
    """Draw estimate against p of each contrast, those with q below alpha in colour."""
    found = inputs["de"].dropna(subset=["p_value", "log2fc"])
    contrasts = list(dict.fromkeys(found["contrast"]))[:MOST_PANELS]
    if not contrasts:
        raise ToolError("no row of the table was tested, so there is nothing to draw")
    figure, axes = _panels(len(contrasts))
    for axis, contrast in zip(axes, contrasts, strict=True):
        rows = found[found["contrast"] == contrast].sort_values("p_value", kind="stable")
        height = -np.log10(np.maximum(rows["p_value"], 1e-300))
        hit = rows["q_value"] < context.alpha
        color = np.where(hit, np.where(rows["log2fc"] > 0, UP, DOWN), REST)
        axis.scatter(rows["log2fc"], height, c=color, s=8, linewidths=0, rasterized=True)
        for (_, row), y in list(zip(rows[hit].iterrows(), height[hit], strict=True))[: params.names]:
            axis.annotate(
                _label(row), (row["log2fc"], y), fontsize=6, textcoords="offset points", xytext=(2, 2)
            )
        axis.axvline(0, color="black", linewidth=0.5)
        axis.set_title(_wrapped(f"{contrast}: {int(hit.sum())} of {len(rows)}"), fontsize=9)
        axis.set(xlabel="difference" if "population" in found else "log2 fold change", ylabel="-log10 p")
    return {"figure": figure}


def _label(row: pd.Series) -> str:
    name = row.get("gene") or row["protein"]
    return f"{name}, {row['population']}" if "population" in row else str(name)


@tool(
    params=ColorParams,
    inputs={"data": "matrix"},
    outputs={"figure": FIGURE},
    summary=_drawn,
    citation=MATPLOTLIB,
    library="matplotlib",
)
def plot_pca(inputs: Mapping[str, Any], params: ColorParams, context: ToolContext) -> Mapping[str, Any]:
    """Draw the samples on their first two principal components."""
    data = inputs["data"]
    if "X_pca" not in data.obsm:
        raise ToolError("plot_pca needs principal components: run pca first")
    share = data.uns["pca"]["variance_ratio"]
    labels = [f"PC{k + 1} ({100 * share[k]:.0f} %)" for k in range(2)]
    return {"figure": _scatter(data, "X_pca", labels, params.color, 24)}


@tool(
    params=ColorParams,
    inputs={"data": "matrix"},
    outputs={"figure": FIGURE},
    summary=_drawn,
    citation=MATPLOTLIB,
    library="matplotlib",
)
def plot_umap(inputs: Mapping[str, Any], params: ColorParams, context: ToolContext) -> Mapping[str, Any]:
    """Draw the cells on their map."""
    if "X_umap" not in inputs["data"].obsm:
        raise ToolError("plot_umap needs the map of the cells: run umap first")
    return {"figure": _scatter(inputs["data"], "X_umap", ["UMAP 1", "UMAP 2"], params.color, 2)}


def _scatter(data: AnnData, key: str, labels: list[str], color: str | None, size: float) -> Figure:
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axis = figure.subplots()
    points = np.asarray(data.obsm[key])[:, :2]
    if color is None:
        axis.scatter(points[:, 0], points[:, 1], s=size, linewidths=0, rasterized=True)
    elif is_numeric(obs_column(data, color)):
        values = data.obs[color].to_numpy(dtype=np.float64)
        shown = axis.scatter(
            points[:, 0], points[:, 1], c=values, s=size, linewidths=0, cmap="viridis", rasterized=True
        )
        figure.colorbar(shown, label=color)
    else:
        names = groups(data, color)
        for k, name in enumerate(sorted(set(names))):
            chosen = points[names == name]
            axis.scatter(
                chosen[:, 0],
                chosen[:, 1],
                s=size,
                linewidths=0,
                color=f"C{k % 10}",
                marker="os^D"[k // 10 % 4],
                label=_wrapped(name or "missing", 24),
                rasterized=True,
            )
        figure.legend(title=color, loc="outside right upper", fontsize=7, markerscale=max(1, 4 / size**0.5))
    axis.set(title=color or key[2:], xlabel=labels[0], ylabel=labels[1])
    return figure


@tool(
    params=NoParams,
    inputs={"data": "matrix"},
    outputs={"figure": FIGURE},
    summary=_drawn,
    citation=MATPLOTLIB,
    library="matplotlib",
)
def plot_qc(inputs: Mapping[str, Any], params: NoParams, context: ToolContext) -> Mapping[str, Any]:
    """Draw the distribution of values and the count of proteins (bulk) or cells of each sample."""
    data = inputs["data"]
    values = frame(data)
    names = values.index.to_numpy() if is_bulk(data) else groups(data, context.design.sample)
    order = list(dict.fromkeys(names))
    figure, (spread, count) = _panels(2, width=max(4.0, min(12.0, 0.12 * len(order))))
    parts = [values.to_numpy()[names == name].ravel() for name in order]
    spread.boxplot([part[~np.isnan(part)] for part in parts], showfliers=False, widths=0.7)
    spread.set(title="values by sample", ylabel="value")
    if is_bulk(data):
        count.bar(range(1, len(order) + 1), values.notna().sum(axis=1))
        count.set(title="proteins by sample", ylabel="proteins")
    else:
        count.bar(range(1, len(order) + 1), [int((names == name).sum()) for name in order])
        count.set(title="cells by sample", ylabel="cells")
    for axis in (spread, count):
        axis.set_xticks(range(1, len(order) + 1), [str(name) for name in order], rotation=90, fontsize=6)
    return {"figure": figure}


@tool(
    params=TopParams,
    inputs={"enriched": "table"},
    outputs={"figure": FIGURE},
    summary=_drawn,
    citation=MATPLOTLIB,
    library="matplotlib",
)
def plot_enrichment(inputs: Mapping[str, Any], params: TopParams, context: ToolContext) -> Mapping[str, Any]:
    """Draw the strongest gene sets of each contrast: normalised score, or fold over the background."""
    found = inputs["enriched"].dropna(subset=["p_value"])
    value = "nes" if "nes" in found else "fold"
    contrasts = list(dict.fromkeys(found["contrast"]))[:MOST_PANELS]
    if not contrasts:
        raise ToolError("no gene set was tested, so there is nothing to draw")
    figure, axes = _panels(len(contrasts), width=5.5, height=0.8 + 0.2 * params.top)
    for axis, contrast in zip(axes, contrasts, strict=True):
        rows = (
            found[found["contrast"] == contrast].sort_values("p_value", kind="stable").head(params.top)[::-1]
        )
        color = np.where(rows["q_value"] < context.alpha, np.where(rows[value] > 0, UP, DOWN), REST)
        axis.barh(range(len(rows)), rows[value], color=color)
        terms = rows["name"] if "name" in rows else rows["term"]
        axis.set_yticks(range(len(rows)), [str(term)[:45] for term in terms], fontsize=6)
        axis.set_title(_wrapped(str(contrast)), fontsize=9)
        axis.set(xlabel=value)
    return {"figure": figure}


@tool(
    params=NoParams,
    inputs={"hits": "table"},
    outputs={"figure": FIGURE},
    summary=_drawn,
    citation=MATPLOTLIB,
    library="networkx, matplotlib",
)
def plot_network(inputs: Mapping[str, Any], params: NoParams, context: ToolContext) -> Mapping[str, Any]:
    """Draw the known interactions among the hits of each contrast; what has none is left out."""
    lists = [one for one in hit_lists(inputs["hits"], context.alpha) if one.hits][:MOST_PANELS]
    if not lists:
        raise ToolError(f"no gene has q < {context.alpha:g}, so there is no network of hits")
    knowledge = required(context.knowledge, frozenset().union(*(one.background for one in lists)))
    drawn = []
    for one in lists:
        graph = nx.Graph(known_interactions(one.hits, knowledge))
        graph.remove_nodes_from(list(nx.isolates(graph)))
        drawn.append((one, graph))
    drawn = [(one, graph) for one, graph in drawn if graph.number_of_edges()] or drawn[:1]
    figure, axes = _panels(len(drawn), 5, 4)
    for axis, (one, graph) in zip(axes, drawn, strict=True):
        place = nx.spring_layout(graph, seed=context.seed)
        nx.draw_networkx(
            graph, place, ax=axis, node_size=60, font_size=6, node_color=REST, edge_color="#888888"
        )
        axis.set_title(_wrapped(f"{one.contrast}: {graph.number_of_edges()} interactions", 40), fontsize=9)
        axis.set_axis_off()
    return {"figure": figure}


@tool(
    params=NoParams,
    inputs={"markers": "table"},
    outputs={"figure": FIGURE},
    summary=_drawn,
    citation=MATPLOTLIB,
    library="matplotlib",
)
def plot_populations(inputs: Mapping[str, Any], params: NoParams, context: ToolContext) -> Mapping[str, Any]:
    """Draw the median of each marker in each population, of many in the largest."""
    wide = inputs["markers"].pivot(index="population", columns="protein", values="median")
    title = "median"
    if len(wide) > MOST_POPULATIONS:
        sizes = inputs["markers"].groupby("population")["n_cells"].first()
        title = f"median in the {MOST_POPULATIONS} largest of {len(wide):,} populations"
        wide = wide.loc[wide.index.isin(sizes.nlargest(MOST_POPULATIONS).index)]
    return {"figure": _heat(wide, title, "viridis", None)}


@tool(
    params=NoParams,
    inputs={"associations": "table"},
    outputs={"figure": FIGURE},
    summary=_drawn,
    citation=MATPLOTLIB,
    library="matplotlib",
)
def plot_module_trait(inputs: Mapping[str, Any], params: NoParams, context: ToolContext) -> Mapping[str, Any]:
    """Draw the correlations of modules with traits; a star is q below alpha."""
    found = inputs["associations"]
    wide = found.pivot(index="module", columns="trait", values="r")
    stars = found.pivot(index="module", columns="trait", values="q_value") < context.alpha
    figure = _heat(wide, "correlation", "RdBu_r", 1.0)
    for row, column in np.argwhere(stars.to_numpy()):
        figure.axes[0].text(column, row, "*", ha="center", va="center")
    return {"figure": figure}


def _heat(wide: pd.DataFrame, title: str, colors: str, limit: float | None) -> Figure:
    columns, rows = ([len(str(name)) for name in names] for names in (wide.columns, wide.index))
    room = 0.06  # inches a letter of a label
    size = (2 + room * max(rows) + 0.28 * len(columns), 1 + room * max(columns) + 0.28 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    low = None if limit is None else -limit
    figure.colorbar(axis.imshow(wide.to_numpy(), cmap=colors, aspect="auto", vmin=low, vmax=limit))
    axis.set_xticks(range(wide.shape[1]), [str(name) for name in wide.columns], rotation=90, fontsize=7)
    axis.set_yticks(range(wide.shape[0]), [str(name) for name in wide.index], fontsize=7)
    axis.set(title=title)
    return figure
