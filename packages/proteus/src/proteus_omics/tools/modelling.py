"""From a matrix and a design to the fitted model that several tools ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from proteus_omics import stats
from proteus_omics.auditing import reference_of
from proteus_omics.design import Design
from proteus_omics.errors import NoReplicatesError, ToolError
from proteus_omics.stats import Diagnostics, LinearFit, ModeratedFit
from proteus_omics.stats.power import detectable_effect
from proteus_omics.tools.matrices import frame
from proteus_omics.tools.registry import ToolContext, ToolParams

if TYPE_CHECKING:
    from anndata import AnnData

LEAST_PROTEINS = 10


class ModelParams(ToolParams):
    """Settings of a moderated linear model.

    `auto` decides by diagnostics of the residual variances, never by what turns out significant. `covariates`
    and `batch` are columns beside those of the design.
    """

    trend: bool | Literal["auto"] = "auto"
    robust: bool | Literal["auto"] = "auto"
    legacy: bool | None = None
    covariates: tuple[str, ...] = Field(default=(), max_length=20)
    batch: str | None = None

    def extended(self, design: Design) -> Design:
        """The design with the columns that these parameters add."""
        extra = [name for name in self.covariates if name not in design.covariates]
        return Design(
            **design.model_dump(exclude={"covariates", "batch"}),
            covariates=(*design.covariates, *extra),
            batch=design.batch or self.batch,
        )


@dataclass(frozen=True)
class Model:
    """Proteins over the samples that have all columns of the design."""

    values: pd.DataFrame
    """Samples x proteins, transformed."""
    matrix: pd.DataFrame
    """Samples x terms."""
    labels: pd.Series
    """Level of the condition of each sample."""
    reference: str
    contrasts: dict[str, dict[str, float]]
    adjusted_for: tuple[str, ...]
    subjects: tuple[str, ...]
    """Terms of the matrix that are subjects of a paired design; nothing is asked of them."""

    @property
    def fit(self) -> LinearFit:
        """Least squares, protein by protein."""
        return self.fitted(self.values)

    def fitted(self, values: pd.DataFrame, matrix: pd.DataFrame | None = None) -> LinearFit:
        """Least squares of other values of the same samples, and where given of other values of the terms."""
        return stats.lm_fit(values, self.matrix if matrix is None else matrix, absorb=self.subjects)

    def level(self, contrast: str) -> str:
        """The level that the contrast compares with the reference."""
        return next(name for name in self.contrasts[contrast] if name != self.reference)

    def moderated(self, params: ModelParams) -> tuple[ModeratedFit, Diagnostics, bool, bool]:
        """The moderated fit, its diagnostics, and the settings (trend, robust) that were taken.

        Raises `ToolError` where fewer than ten proteins can be tested.
        """
        fit = self.fit.contrasts(self.contrasts)
        testable = int(((fit.fit.df_residual > 0) & np.isfinite(fit.estimate).any(axis=1)).sum())
        if testable < LEAST_PROTEINS:
            raise ToolError(
                f"{testable} proteins can be tested, and the common prior needs {LEAST_PROTEINS}: loosen the "
                "filter of missing values"
            )
        found = fit.diagnose()
        trend = found.trend if params.trend == "auto" else params.trend
        robust = found.robust if params.robust == "auto" else params.robust
        return fit.ebayes(trend=trend, robust=robust, legacy=params.legacy), found, trend, robust


def model_of(
    data: AnnData,
    context: ToolContext,
    params: ModelParams,
    values: pd.DataFrame | None = None,
    least: int = 2,
) -> Model:
    """The model of each level of the condition against the reference (`values` default to the matrix).

    Levels with fewer than `least` samples are in the model but in no contrast. Raises `ToolError` without a
    condition, `NoReplicatesError` where no level can be compared.
    """
    design = params.extended(context.design)
    if design.condition is None:
        raise ToolError("differences need a condition: name its column in the design")
    values = frame(data) if values is None else values
    matrix = stats.design_matrix(data.obs, design)
    labels = data.obs.loc[matrix.index, design.condition].astype(str)
    sizes = labels.value_counts()
    reference = reference_of(sorted(sizes.index), design)
    all_contrasts = stats.level_contrasts(sorted(sizes.index), reference)
    kept = {
        name: terms
        for name, terms in all_contrasts.items()
        if all(sizes[level] >= least for level in terms)  # one sample says nothing of its group's variance
    }
    if not kept:
        raise NoReplicatesError(
            f"no level of {design.condition} has two samples beside two of {reference}: "
            + ", ".join(f"{level} {size}" for level, size in sizes.items())
        )
    prefix = f"{design.subject}="
    people = [term for term in map(str, matrix) if design.subject and term.startswith(prefix)]
    subjects = tuple(f"{design.subject} {number}" for number in range(1, len(people) + 1))
    matrix = matrix.rename(columns=dict(zip(people, subjects, strict=True)))  # errors tell of terms
    terms = (design.batch, *design.covariates, design.subject if subjects else None)
    adjusted = tuple(name for name in terms if name is not None)
    return Model(values.loc[matrix.index], matrix, labels, reference, kept, adjusted, subjects)


def valid_counts(model: Model, contrast: str) -> pd.DataFrame:
    """Protein to `n_ref, n_alt`: in how many samples of either group it was measured."""
    measured = model.values.notna()
    return pd.DataFrame(
        {
            "n_ref": measured[model.labels == model.reference].sum(),
            "n_alt": measured[model.labels == model.level(contrast)].sum(),
        }
    )


def model_row(
    model: Model,
    found: tuple[ModeratedFit, Diagnostics, bool, bool],
    contrast: str,
    table: pd.DataFrame,
    alpha: float,
) -> dict[str, object]:
    """What a reader has to know of the model behind one contrast's rows of `table`."""
    fit, diagnostics, trend, robust = found
    hits = table[table["q_value"] < alpha]
    n_tested = int(table["p_value"].notna().sum())
    n_ref = int((model.labels == model.reference).sum())
    n_alt = int((model.labels == model.level(contrast)).sum())
    return {
        "contrast": contrast,
        "n_tested": n_tested,
        "n_hits": len(hits),
        "n_up": int((hits["log2fc"] > 0).sum()),
        "n_down": int((hits["log2fc"] < 0).sum()),
        "n_ref": n_ref,
        "n_alt": n_alt,
        "trend": trend,
        "robust": robust,
        "prior": fit.prior.kind,
        "df_prior": float(np.median(fit.prior.df)),
        "s2_prior": float(np.median(fit.prior.s2)),
        "trend_p": diagnostics.trend_p,
        "outlying": diagnostics.outlying,
        "detectable_log2fc": _detectable(fit, n_ref, n_alt, alpha / max(n_tested, 1)),
        "adjusted_for": ", ".join(model.adjusted_for),
    }


def _detectable(fit: ModeratedFit, n_ref: int, n_alt: int, p: float) -> float:
    """The log2 fold change that a typical protein's moderated t brings below `p` with power 0.8.

    The first of n tested proteins has q < alpha where its p is below alpha / n.
    """
    known = fit.contrasts.fit.df_residual > 0
    sd, df = float(np.sqrt(np.median(fit.s2_post[known]))), float(np.median(fit.df_total[known]))
    return detectable_effect(sd, n_ref, n_alt, alpha=p, df=df)
