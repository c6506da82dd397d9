"""All results as one page that needs nothing but itself: results/index.html."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from itertools import product
from pathlib import Path

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tenfold.claims import SCALES, Verdict
from tenfold.errors import UsageError
from tenfold.estimates import number_text
from tenfold.experiments import experiment_names
from tenfold.pictures import Picture, read_pictures
from tenfold.results import ClaimResult, ClaimsFile, Environment, EstimateRecord, RunFolder
from tenfold.storage import Tell, write_atomically
from tenfold.tables import paper_number

PAGE = "index.html"


@dataclass(frozen=True)
class RunPart:
    """What the page shows of one run; `claims` is None where it has not finished."""

    anchor: str
    name: str
    scale: str
    claims: ClaimsFile | None
    pictures: list[Picture]
    config: str
    environment: Environment | None
    warnings: list[str]

    @property
    def command(self) -> str:
        """The command that makes this run again, with the values that --set changed."""
        given = self.environment.command if self.environment is not None else []
        changes = self.environment.assignments if self.environment is not None else []
        arguments = ["run", self.name, "--scale", self.scale]
        arguments += [part for change in changes for part in ("--set", change)]
        # As it was given; else options stood before the name, or it was started from Python.
        match given:
            case [_, "run", self.name, *options] | [_, "reproduce", *options]:
                arguments = ["run", self.name, *(option for option in options if option != "--resume")]
        return shlex.join(["tenfold", *arguments])


@dataclass(frozen=True)
class ClaimPart:
    """One claim with its result at every scale at which its text is the same."""

    anchor: str
    results: list[tuple[str, ClaimResult]]

    @property
    def text(self) -> ClaimResult:
        """Where statement, source, condition and note are read from."""
        return self.results[0][1]


@dataclass(frozen=True)
class PaperPart:
    """A paper with its claims and runs, smallest scale first."""

    anchor: str
    name: str
    claims: list[ClaimPart]
    runs: list[RunPart]

    @property
    def about(self) -> ClaimsFile | None:
        """What the newest finished run says of the paper."""
        finished = [run.claims for run in self.runs if run.claims is not None]
        return max(finished, key=lambda claims: claims.finished, default=None)

    @property
    def unfinished(self) -> list[RunPart]:
        """The runs without claims."""
        return [run for run in self.runs if run.claims is None]


class Anchors:
    """Names for the places of the page, each given once."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def new(self, *parts: str) -> str:
        """Return a name made of `parts` that is fit for a URL and for CSS."""
        name = slug("-".join(parts))
        self._taken[name] += 1
        return name if self._taken[name] == 1 else f"{name}--{self._taken[name]}"


def write_report(results: Path, tell: Tell = print) -> Path:
    """Write the page of the runs in `results` to results/index.html, and return its path."""
    page = Path(results) / PAGE
    write_atomically(page, report_page(results, tell))
    return page


def report_page(results: Path, tell: Tell = print) -> str:
    """Return the page of the runs in `results` as HTML.

    A run without sound claims is shown as unfinished. A damaged file is moved aside and named, to `tell`
    and on the page. Raises `UsageError` if there is no run in `results`.
    """
    results = Path(results)
    papers = _read_papers(results, tell)
    if not papers:
        example = next(iter(experiment_names()), "PAPER")
        raise UsageError(
            f"there are no results in {results}: run an experiment first (tenfold run {example}), "
            "or say with --results where they are"
        )
    return _render(papers, results)


def open_page(page: Path) -> bool:
    """Open the page in the person's browser; where there is no screen, do nothing and return False."""
    import webbrowser

    # Without a display, a browser inside the terminal would take the terminal over.
    screen = sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & {
        name for name, value in os.environ.items() if value
    }
    return bool(screen) and webbrowser.open(page.resolve().as_uri())


def _read_papers(results: Path, tell: Tell) -> list[PaperPart]:
    anchors, papers = Anchors(), []
    for folder in sorted(path for path in results.glob("*") if path.is_dir()):
        anchor = anchors.new("paper", folder.name)
        runs = [_read_run(anchors, path, tell) for path in _run_folders(folder)]
        if runs:
            papers.append(PaperPart(anchor, folder.name, _claims_of(folder.name, runs, anchors), runs))
    return papers


def _run_folders(paper: Path) -> Iterator[Path]:
    """Yield the folders of the present runs, smallest scale first; `<scale>.old-1` is none of them."""
    for scale in SCALES:
        folder = paper / scale
        if folder.is_dir() and any(folder.iterdir()):
            yield folder


def _read_run(anchors: Anchors, path: Path, tell: Tell) -> RunPart:
    # metrics.jsonl is left alone: a run that goes on at this moment is writing to it.
    folder, warnings = RunFolder(path), list[str]()

    def warn(message: str) -> None:
        warnings.append(message)
        tell(message)

    config = folder.read_config(warn)
    return RunPart(
        anchor=anchors.new("run", path.parent.name, path.name),
        name=path.parent.name,
        scale=path.name,
        claims=folder.read_claims(warn),
        pictures=read_pictures(folder, warn),
        config="" if config is None else folder.config_file.read_text(encoding="utf-8"),
        environment=folder.read_environment(warn),
        warnings=warnings,
    )


def _claims_of(name: str, runs: list[RunPart], anchors: Anchors) -> list[ClaimPart]:
    """Bring together the results of each claim; one whose text has changed between two runs stands twice."""
    parts: dict[tuple[object, ...], ClaimPart] = {}
    for run in runs:
        for claim in run.claims.claims if run.claims is not None else ():
            text = (
                claim.id,
                claim.statement,
                claim.condition,
                claim.source,
                claim.note,
                paper_number(claim, number),
            )
            if text not in parts:
                parts[text] = ClaimPart(anchors.new("claim", name, claim.id), [])
            parts[text].results.append((run.scale, claim))
    return sorted(parts.values(), key=lambda part: _place(part.text.id, runs))


def _place(claim: str, runs: list[RunPart]) -> int:
    """Return where the claim stands in the first run that has it."""
    ids = next(ids for run in runs if claim in (ids := _ids(run)))
    return ids.index(claim)


def _ids(run: RunPart) -> list[str]:
    return [] if run.claims is None else [claim.id for claim in run.claims.claims]


def _render(papers: list[PaperPart], results: Path) -> str:
    templates = Templates(
        loader=PackageLoader("tenfold", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "number": number,
        "numbers": numbers,
        "slug": slug,
        "paper_number": partial(paper_number, write=number),
        "why": why_not_tested,
        "moment": moment,
        "breakable": breakable,
        "is_web_address": lambda url: url.startswith(("https://", "http://")),
    }
    templates.tests["finite"] = math.isfinite
    runs = [run for paper in papers for run in paper.runs]
    scales = [scale for scale in SCALES if any(run.scale == scale for run in runs)]
    return templates.get_template("report.html").render(
        papers=papers,
        scales=scales,
        verdicts=list(Verdict),
        tally=_tally(runs),
        filters=Markup(filter_rules(scales, papers)),
        style=Markup(PackageLoader("tenfold", "page").get_source(templates, "report.css")[0]),
        unfinished=sum(run.claims is None for run in runs),
        now=datetime.now(UTC),
        version=metadata.version("tenfold"),
        rebuild=shlex.join(["tenfold", "report", "--results", str(results)]),
    )


def _tally(runs: list[RunPart]) -> dict[str, Counter[Verdict]]:
    """Count the verdicts at each scale that has a finished run."""
    tally: dict[str, Counter[Verdict]] = {}
    for scale in SCALES:
        for run in runs:
            if run.scale == scale and run.claims is not None:
                tally.setdefault(scale, Counter()).update(claim.verdict for claim in run.claims.claims)
    return tally


def filter_rules(scales: Sequence[str], papers: Sequence[PaperPart]) -> str:
    """Return the CSS that makes the lists above the summary choose its rows; the page needs no script."""
    rules = [
        f'{_chosen("paper", name)} [data-paper]:not([data-paper="{name}"]) {{ display: none }}'
        for name in (paper.anchor for paper in papers)
    ]
    for scale, verdict in product(["", *scales], ["", *Verdict]):
        choices = {"scale": scale, "verdict": slug(verdict)}
        choices = {name: value for name, value in choices.items() if value}
        chosen = "".join(_chosen(name, value) for name, value in choices.items())
        wanted = "".join(f'[data-{name}="{value}"]' for name, value in choices.items())
        if choices:
            rules.append(f"{chosen} .claims tr[data-scale]:not({wanted}) {{ display: none }}")
            rules.append(f"{chosen} .claims tbody:not(:has(tr{wanted})) {{ display: none }}")
    return "\n".join(rules)


def _chosen(name: str, value: str) -> str:
    return f':root:has(#{name} option[value="{value}"]:checked)'


def slug(text: str) -> str:
    """Return `text` as a word that is fit for a URL, an attribute and CSS."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)


def numbers(claim: ClaimResult) -> dict[str, EstimateRecord]:
    """Return the metrics that the verdict rests on, the claim's own first."""
    own = {} if claim.ours is None else {claim.metric: claim.ours}
    return own | claim.compared_with


def number(value: float) -> str:
    """Return a number for people, with the sign of mathematics for minus."""
    return number_text(value).replace("-", "−")


def why_not_tested(claim: ClaimResult) -> str:
    """Return the reason without the words "not tested", which stand beside it."""
    return claim.reason.removeprefix(Verdict.NOT_TESTED).lstrip(": ")


def moment(time: datetime) -> str:
    """Return a time for people."""
    return f"{time.astimezone(UTC):%d %B %Y, %H:%M} UTC".removeprefix("0")


def breakable(name: str) -> Markup:
    """Return a metric's name that may be broken into lines after its underscores."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))
