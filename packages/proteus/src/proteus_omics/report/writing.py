"""All files of a run that follow from its record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from proteus_omics.engine.store import Store
from proteus_omics.hypotheses.reviews import review_form
from proteus_omics.report.methods import methods_text
from proteus_omics.report.page import page
from proteus_omics.report.provenance import provenance
from proteus_omics.report.replay import replay_script

if TYPE_CHECKING:
    from pathlib import Path

    from proteus_omics.api import Run


def write_report(run: Run) -> Path:
    """Write `report.html, methods.md, reproduce.py, prov.json, review.csv` into the run's folder.

    They follow from the run's record and tables alone: the same run gives the same bytes. Returns the page.
    Raises `ResumeError` for a damaged table or a disk that is full.
    """
    store = Store(run.folder)
    methods = methods_text(run)
    store.write_text("methods.md", methods)
    store.write_text("reproduce.py", replay_script(run))
    store.write_text("prov.json", json.dumps(provenance(run), indent=1, sort_keys=True) + "\n")
    store.write_text("review.csv", review_form(run.hypotheses).to_csv(index=False))
    store.write_text("report.html", page(run, methods))
    return run.report
