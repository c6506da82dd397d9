"""`report`: one page of HTML over one or several runs, which opens from disk without a network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from medxpertqa.errors import MedXpertQAError, MedXpertQAWarning, MissingExtraError
from medxpertqa.reporting.plots import accuracy_plot, difference_plot, letters_plot
from medxpertqa.reporting.tables import FOOTER, difference_tables, labels, report_tables, visible
from medxpertqa.results import Results
from medxpertqa.scores import Errors
from medxpertqa.summaries import compare_all, summarize


def report(
    runs: Sequence[Results],
    out: str | os.PathLike[str],
    *,
    title: str = "MedXpertQA",
    errors: Errors = "wrong",
) -> Path:
    """Write a page with tables and plots of the runs, and their comparison if there are several.

    The page holds ids, letters and counts, no text of questions or replies. `errors` as for `summarize`.
    Raises `MedXpertQAError` for no runs, `MissingExtraError` without jinja2 and matplotlib.
    """
    if not runs:
        raise MedXpertQAError("there are no results to report")
    try:
        from jinja2 import Environment
    except ModuleNotFoundError:
        raise MissingExtraError(
            "a page of HTML needs an optional extra: pip install 'medxpertqa[report]'"
        ) from None
    summaries = [summarize(run, errors=errors) for run in runs]
    tables, remarks = report_tables(runs, summaries)
    options = {record.n_options for run in runs for record in run.records}
    chance = 1 / options.pop() if len(options) == 1 else None
    plots = [("Accuracy", accuracy_plot(summaries, chance))]
    for run, summary, name in zip(runs, summaries, labels(summaries), strict=True):
        plots.append((f"Letters of {name}", letters_plot(run, summary)))
    if len(runs) == 2:
        with warnings.catch_warnings():  # the remarks have them already
            warnings.simplefilter("ignore", MedXpertQAWarning)
            pairs = compare_all(runs, errors=errors)
        for pair, _ in pairs:
            tables += difference_tables(pair)
            plots.append(("Difference", difference_plot(pair)))
    template = files("medxpertqa.reporting").joinpath("page.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(template)
    target = Path(out)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(
        page.render(
            title=visible(title),
            tables=tables,
            remarks=remarks,
            plots=[(heading, svg) for heading, svg in plots if svg],
            footer=FOOTER,
        ),
        encoding="utf-8",
    )
    os.replace(partial, target)
    return target
