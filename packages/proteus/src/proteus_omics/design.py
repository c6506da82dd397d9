"""The design: which columns of the sample sheet are the question and which are in its way."""

from __future__ import annotations

from pydantic import model_validator

from proteus_omics.errors import DesignError
from proteus_omics.models import Model


class Design(Model):
    """Names of columns of `adata.obs`, and the levels that are compared.

    Each level of `condition` is compared with `reference` (by default one named control, ctrl, healthy,
    normal, ref, reference or wt, else the level that sorts first). `sample` names the biological sample of
    a cell, for cells are never replicates. `root` asks for a trajectory.
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

    @model_validator(mode="after")
    def _one_column_one_role(self) -> Design:
        named = [
            self.condition,
            self.batch,
            self.subject,
            self.sample,
            self.time,
            self.event,
            *self.covariates,
        ]
        columns = [name for name in named if name is not None]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise DesignError(f"columns with two roles in the design: {', '.join(twice)}")
        return self
