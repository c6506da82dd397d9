"""Tools that find populations of cells and name them by rules on markers (section 2.5), on scanpy."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from proteus_omics.errors import MissingExtraError, ToolError
from proteus_omics.tools import briefs
from proteus_omics.tools.columns import MATRIX, table
from proteus_omics.tools.matrices import changed, frame, population_column, transformed
from proteus_omics.tools.registry import ToolContext, ToolParams, tool

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]

SCANPY = "Wolf et al., Genome Biology 2018, 19:15 (scanpy)"
EXACT_BELOW = 50_000  # cells, up to which exact neighbours take less time than compiling approximate ones
DIRECT_BELOW = 50  # markers, above which distances are of principal components
COMPARED = "X_compared"  # in obsm: the numbers by which cells are alike
UNASSIGNED = "unassigned"

# Blood cells of people; the first rule that a cluster fulfils names it.
RULES: Mapping[str, str] = {
    "B cell": "CD20+ or CD19+, CD3-",
    "CD4 T cell": "CD3+, CD4+",
    "CD8 T cell": "CD3+, CD8+",
    "T cell": "CD3+",
    "Monocyte": "CD14+ or CD33+, CD3-",
    "NK cell": "CD56+ or CD7+, CD3-",
    "Dendritic cell": "HLA-DR+, CD123+, CD3-",
}


class NeighborsParams(ToolParams):
    """Parameters of `neighbors`."""

    n_neighbors: int = Field(default=15, ge=2, le=200)


def _cells_summary(outputs: Mapping[str, Any]) -> str:
    matrix = outputs["matrix"]
    return f"{matrix.n_obs} cells x {matrix.n_vars} markers"


@tool(
    params=NeighborsParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX},
    summary=_cells_summary,
    citation=SCANPY,
    library="scanpy",
)
def neighbors(inputs: Mapping[str, Any], params: NeighborsParams, context: ToolContext) -> Mapping[str, Any]:
    """Join each cell with those most alike in the markers of class `type` (all, where no class is told)."""
    sc = _scanpy("neighbors")
    data = inputs["data"]
    values, scale = transformed(data)
    result = changed(data, values, scale)
    chosen = (data.var["marker_class"] == "type").to_numpy() if "marker_class" in data.var else slice(None)
    cells = result[:, chosen].copy()
    if cells.n_vars < 2 or cells.n_obs <= params.n_neighbors:
        raise ToolError(f"neighbours of {cells.n_obs} cells by {cells.n_vars} markers cannot be told")
    if np.isnan(cells.X).any():
        raise ToolError("neighbours need a value of each marker in each cell: filter or impute first")
    if cells.n_vars > DIRECT_BELOW:
        sc.pp.pca(cells, n_comps=min(30, cells.n_obs - 1), random_state=context.seed)
        cells.obsm[COMPARED] = cells.obsm["X_pca"]
    else:
        cells.obsm[COMPARED] = np.asarray(cells.X)
    sc.pp.neighbors(
        cells,
        n_neighbors=params.n_neighbors,
        use_rep=COMPARED,
        random_state=context.seed,
        transformer="sklearn" if cells.n_obs < EXACT_BELOW else None,
    )
    result.obsm[COMPARED] = cells.obsm[COMPARED]  # by the name that uns gives; umap begins from it
    result.uns["neighbors"] = cells.uns["neighbors"]
    for name, graph in cells.obsp.items():
        result.obsp[name] = graph
    return {"matrix": result}


class LeidenParams(ToolParams):
    """Parameters of `leiden`."""

    resolution: float = Field(default=0.8, gt=0, le=10)


def _leiden_summary(outputs: Mapping[str, Any]) -> str:
    sizes = outputs["matrix"].obs["leiden"].value_counts()
    return f"{len(sizes)} clusters of " + ", ".join(map(str, sizes)) + " cells"


@tool(
    params=LeidenParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX},
    summary=_leiden_summary,
    citation="Traag et al., Scientific Reports 2019, 9:5233",
    library="scanpy, igraph",
)
def leiden(inputs: Mapping[str, Any], params: LeidenParams, context: ToolContext) -> Mapping[str, Any]:
    """Divide the cells into communities of their neighbour graph."""
    sc = _scanpy("leiden")
    result = _with_graph(inputs["data"], "leiden").copy()
    sc.tl.leiden(
        result,
        resolution=params.resolution,
        flavor="igraph",
        n_iterations=2,
        directed=False,
        random_state=context.seed,
    )
    return {"matrix": result}


class UmapParams(ToolParams):
    """Parameters of `umap`."""

    min_dist: float = Field(default=0.5, ge=0, le=1)


@tool(
    params=UmapParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX},
    summary=_cells_summary,
    citation="McInnes et al., JOSS 2018, 3:861",
    library="scanpy, umap-learn",
)
def umap(inputs: Mapping[str, Any], params: UmapParams, context: ToolContext) -> Mapping[str, Any]:
    """Lay the cells out on a plane, for looking at; distances in it are not to be measured.

    The cells begin at their principal components, which keep as much of the whole as umap's own spectral
    beginning (Kobak & Linderman, Nature Biotechnology 2021, 39:156): that takes minutes for 200,000 cells.
    """
    sc = _scanpy("umap")
    result = _with_graph(inputs["data"], "umap").copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a seed keeps umap from running in parallel, which is meant
        sc.tl.umap(result, min_dist=params.min_dist, init_pos="pca", random_state=context.seed)
    return {"matrix": result}


class AnnotateParams(ToolParams):
    """Parameters of `annotate`: `rules` are a name and a rule such as `CD19+ or CD20+, CD3-`."""

    rules: dict[str, str] = Field(default=dict(RULES), max_length=200)
    cluster: str = "leiden"


def _annotation_summary(outputs: Mapping[str, Any]) -> str:
    return briefs.rows(outputs["annotation"], "cluster population n_cells rule", n=35)


@tool(
    params=AnnotateParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX, "annotation": table(("cluster",), "population n_cells rule")},
    summary=_annotation_summary,
    citation="Levine et al., Cell 2015, 162:184 (populations by markers)",
    library="scikit-learn",
)
def annotate(inputs: Mapping[str, Any], params: AnnotateParams, context: ToolContext) -> Mapping[str, Any]:
    """Name each cluster by the first rule that it fulfils; one that fulfils none is unassigned.

    A marker is positive in a cluster where more than half of its cells are above the marker's threshold. A
    rule with a part of which the panel has no marker is left out. Clusters of one name are numbered, the
    largest first.
    """
    data = inputs["data"]
    clusters = pd.Series(population_column(data, params.cluster, context.design), data.obs_names)
    values = frame(data)
    positive = (values > thresholds(values)).groupby(clusters.to_numpy()).mean() > 0.5
    rules = {name: _parsed(rule) for name, rule in params.rules.items()}
    sizes = clusters.value_counts()
    order = sorted(positive.index, key=lambda cluster: (-sizes[cluster], cluster))
    named = {cluster: _name(positive.loc[cluster], rules) for cluster in order}
    counts = pd.Series(named).value_counts()
    seen: dict[str, int] = {}
    rows = []
    for cluster, name in named.items():
        seen[name] = seen.get(name, 0) + 1
        shown = f"{name} {seen[name]}" if counts[name] > 1 else name
        rows.append((cluster, shown, int(sizes[cluster]), params.rules.get(name, "")))
    annotation = pd.DataFrame(rows, columns=["cluster", "population", "n_cells", "rule"])
    result = data.copy()
    population = clusters.map(annotation.set_index("cluster")["population"])
    result.obs["population"] = pd.Categorical(population)
    return {"matrix": result, "annotation": annotation}


class MarkersParams(ToolParams):
    """Parameters of `population_markers`."""

    population: str = "population"


def _markers_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["population_markers"]
    high = found[found["fraction_positive"] > 0.5]
    lines = [f"{name}: {' '.join(rows['protein'])}" for name, rows in high.groupby("population")]
    return "positive in more than half of the cells:\n" + "\n".join(lines[:35])


@tool(
    params=MarkersParams,
    inputs={"data": "matrix"},
    outputs={
        "population_markers": table(("population", "protein"), "median fraction_positive threshold n_cells")
    },
    summary=_markers_summary,
    citation="Levine et al., Cell 2015, 162:184 (populations by markers)",
    library="scikit-learn",
)
def population_markers(
    inputs: Mapping[str, Any], params: MarkersParams, context: ToolContext
) -> Mapping[str, Any]:
    """Describe each population by the median of each marker and the share of cells that are positive."""
    data = inputs["data"]
    names = population_column(data, params.population, context.design)
    values = frame(data)
    limits = thresholds(values)
    found = values.groupby(names).median().stack().rename("median").to_frame()
    found["fraction_positive"] = (values > limits).groupby(names).mean().stack()
    found.index.names = ["population", "protein"]
    found = found.reset_index()
    found["threshold"] = found["protein"].map(limits)
    found["n_cells"] = found["population"].map(pd.Series(names).value_counts())
    return {"population_markers": found}


class DptParams(ToolParams):
    """Parameters of `dpt`."""

    population: str = "population"


def _dpt_summary(outputs: Mapping[str, Any]) -> str:
    return briefs.rows(outputs["pseudotime"], "population median n_cells", by="median", n=35)


@tool(
    params=DptParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX, "pseudotime": table(("population",), "median n_cells")},
    summary=_dpt_summary,
    citation="Haghverdi et al., Nature Methods 2016, 13:845; Wolf et al., Genome Biology 2019, 20:59 (PAGA)",
    library="scanpy",
)
def dpt(inputs: Mapping[str, Any], params: DptParams, context: ToolContext) -> Mapping[str, Any]:
    """Order the cells by diffusion pseudotime from the population that the design names as root."""
    sc = _scanpy("dpt")
    result = _with_graph(inputs["data"], "dpt").copy()
    names = population_column(result, params.population, context.design)
    root = context.design.root
    if root not in set(names):
        raise ToolError(f"root = {root!r} is no population; there are {', '.join(sorted(set(names)))}")
    edges = result.obsp["connectivities"].tocoo()
    if not np.any(names[edges.row] != names[edges.col]):
        raise ToolError(
            "no cell of a population has a neighbour in another one, so there is no order to tell"
        )
    result.obs[params.population] = pd.Categorical(names)
    sc.tl.paga(result, groups=params.population)
    sc.tl.diffmap(result, random_state=context.seed)
    inside = np.flatnonzero(names == root)
    away = np.asarray(result.obsm["X_diffmap"])[inside]
    result.uns["iroot"] = int(inside[np.argmin(np.linalg.norm(away - np.median(away, axis=0), axis=1))])
    sc.tl.dpt(result)
    times = result.obs["dpt_pseudotime"].replace(np.inf, np.nan).groupby(names).agg(["median", "size"])
    times = times.rename(columns={"size": "n_cells"}).rename_axis("population").reset_index()
    return {"matrix": result, "pseudotime": times}


def thresholds(values: pd.DataFrame) -> pd.Series:
    """Marker to the value where two normal components, fitted to all cells, are equally probable.

    They have one spread, so that the spike of cells without any signal is not a component of its own. Between
    their means, or the midpoint of these where one covers the other; infinite for a constant.
    """
    return pd.Series({name: _threshold(values[name].dropna().to_numpy()) for name in values})


def _threshold(values: Floats) -> float:
    from sklearn.mixture import GaussianMixture

    if len(values) < 4 or np.ptp(values) == 0:
        return np.inf
    start = np.quantile(values, [0.1, 0.98])
    if start[0] == start[1]:
        start = np.array([values.min(), values.max()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that goes on improving in the last digits
        model = GaussianMixture(2, covariance_type="tied", means_init=start[:, None], random_state=0)
        model.fit(values[:, None])
    low, high = np.sort(model.means_.ravel())
    grid = np.linspace(low, high, 1001)
    upper = model.predict_proba(grid[:, None])[:, int(np.argmax(model.means_))]
    above = np.flatnonzero(upper >= 0.5)
    return float(grid[above[0]]) if 0 < len(above) < len(grid) else float((low + high) / 2)


def _parsed(rule: str) -> list[list[tuple[str, bool]]]:
    """`CD19+ or CD20+, CD3-` as alternatives that all have to hold. Raises `ToolError` for another form."""
    clauses = []
    for clause in rule.split(","):
        options = [re.fullmatch(r"\s*(.+?)([+-])\s*", part) for part in re.split(r"\s+or\s+", clause)]
        if not all(options):
            raise ToolError(f"the rule {rule!r} has no form such as 'CD19+ or CD20+, CD3-'")
        clauses.append([(option[1], option[2] == "+") for option in options if option])
    return clauses


def _name(positive: pd.Series, rules: Mapping[str, list[list[tuple[str, bool]]]]) -> str:
    for name, clauses in rules.items():
        known = [[(m, sign) for m, sign in clause if m in positive.index] for clause in clauses]
        if all(known) and all(any(positive[m] == sign for m, sign in clause) for clause in known):
            return name
    return UNASSIGNED


def _with_graph(data: AnnData, name: str) -> AnnData:
    if "neighbors" not in data.uns:
        raise ToolError(f"{name} needs the graph of neighbours: run neighbors first")
    return data


def _scanpy(name: str) -> Any:
    try:
        import scanpy
    except ImportError as error:
        raise MissingExtraError(
            f"{name} needs an optional extra: pip install 'proteus-omics[single-cell]'"
        ) from error
    return scanpy
