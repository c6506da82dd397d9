"""The design: which columns of the sample sheet are the question and which are in its way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from proteus_omics.errors import DesignError
from proteus_omics.models import Model

CONTROLS = ("control", "ctrl", "healthy", "normal", "ref", "reference", "wt")


class Design(Model):
    """Names of columns of `adata.obs`, and the levels that are compared.

    Each level of `condition` is compared with `reference` (by default one named control, ctrl, healthy,
    normal, ref, reference or wt, else the level that sorts first). `sample` names the biological sample of
    a cell, for cells are never replicates. `root` asks for a trajectory. Raises `DesignError`.
    """

    condition: str | None = None
    reference: str | None = None
    batch: str | None = None
    subject: str | None = None
    sample: str | None = None
    time: str | None = None
    event: str | None = None
    covariates: tuple[str, ...] = ()
    root: str | None = None

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DesignError(f"the design's {where} = {first['input']!r}: {first['msg']}") from error
        columns = list(self.columns.values())
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise DesignError(f"columns with two roles in the design: {', '.join(twice)}")

    @property
    def columns(self) -> Mapping[str, str]:
        """Role to column, for every column that the design names."""
        roles = ("condition", "batch", "subject", "sample", "time", "event")
        named = {role: getattr(self, role) for role in roles if getattr(self, role) is not None}
        return named | {f"covariate {name}": name for name in self.covariates}
