"""The verb that gives a data set's tools to a user's own assistant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from proteus_omics.cli_options import (
    Batch,
    Condition,
    Covariates,
    Event,
    Modality,
    Quantity,
    Reference,
    Sample,
    Seed,
    Subject,
    Text,
    Time,
    design_of,
)


def serve_input(
    input: Annotated[Path, typer.Argument(metavar="INPUT", help="A table of proteins, AnnData, or cells.")],
    metadata: Annotated[Optional[Path], typer.Option(help="The sample sheet.")] = None,  # noqa: UP045
    sample_id: Annotated[Text, typer.Option(help="Its column that names the samples.")] = None,
    panel: Annotated[Optional[Path], typer.Option(help="Of cells: the markers.")] = None,  # noqa: UP045
    quantity: Quantity = "auto",
    modality: Modality = None,
    condition: Condition = None,
    reference: Reference = None,
    batch: Batch = None,
    subject: Subject = None,
    sample: Sample = None,
    time: Time = None,
    event: Event = None,
    covariate: Covariates = None,
    knowledge: Annotated[Optional[Path], typer.Option(help="A folder with gene sets, edges.")] = None,  # noqa: UP045
    seed: Seed = 0,
) -> None:
    """Serve the tools on this data over MCP, on standard input and output."""
    from proteus_omics.auditing import declared
    from proteus_omics.io import read
    from proteus_omics.knowledge import Knowledge
    from proteus_omics.mcp import serve
    from proteus_omics.sessions import Session

    adata = read(input, metadata=metadata, sample_id=sample_id, quantity=quantity, panel=panel)
    adata = declared(adata, None, modality)
    design = design_of(condition, reference, batch, subject, sample, time, event, covariate)
    known = None if knowledge is None else Knowledge.load(knowledge)
    serve(Session(adata, design, knowledge=known, seed=seed))
