"""What a user calls, whole, hence over 400 lines: run, resume, verify, validate, compare (section 3)."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from proteus_omics.auditing import declared
from proteus_omics.design import Design
from proteus_omics.engine.budget import Meter
from proteus_omics.engine.execution import Executor
from proteus_omics.engine.inputs import difference
from proteus_omics.engine.ledger import Ledger
from proteus_omics.engine.lock import LOCK, PROCESS, writing
from proteus_omics.engine.loop import Loop, Outcome
from proteus_omics.engine.recording import RecordedPlanner
from proteus_omics.engine.store import EVENTS, INPUT_FILE, Store, file_hash, readable
from proteus_omics.engine.versions import versions
from proteus_omics.errors import BudgetError, ProteusError, ResumeError
from proteus_omics.hypotheses.assembly import assemble
from proteus_omics.hypotheses.references import Frames, Table, Tables
from proteus_omics.models import Budget, DatasetProfile, Hypothesis, Objective, Ref, Result
from proteus_omics.planner.base import Cassette, Connection, EndpointPlanner, Planner, Results, Spent
from proteus_omics.planner.rules import RulesPlanner
from proteus_omics.profiling import Normalization, profile_dataset
from proteus_omics.tools.registry import ToolContext, all_tools

if TYPE_CHECKING:
    from anndata import AnnData

    from proteus_omics.knowledge import Knowledge

RECORD = "run.json"
HYPOTHESES = "hypotheses.json"
REPORT = "report.html"


@dataclass(frozen=True)
class Run:
    """A run's folder, read when it is asked."""

    folder: Path

    @property
    def id(self) -> str:
        """The run's id: of its input and settings."""
        return str(self.record["id"])

    @cached_property
    def record(self) -> dict[str, Any]:
        """`run.json`."""
        path = self.folder / RECORD
        if not path.is_file():
            raise ResumeError(f"{self.folder} is no run: it has no {RECORD}")
        with readable(path):
            return dict(json.loads(path.read_text(encoding="utf-8")))

    @cached_property
    def hypotheses(self) -> list[Hypothesis]:
        """In rank order, flagged ones last."""
        path = self.folder / HYPOTHESES
        if not path.is_file():
            raise ResumeError(f"{self.folder} is no finished run: it has no {HYPOTHESES}")
        with readable(path):
            content = json.loads(path.read_text(encoding="utf-8"))
            return [Hypothesis.model_validate(one) for one in content["hypotheses"]]

    @property
    def results(self) -> list[Result]:
        """What is known of the tables."""
        with readable(self.folder / RECORD):
            return [Result.model_validate(one) for one in self.record["results"]]

    @property
    def objectives(self) -> list[Objective]:
        """Questions in the order in which they were worked on."""
        with readable(self.folder / RECORD):
            return [Objective.model_validate(one) for one in self.record["objectives"]]

    @property
    def profile(self) -> DatasetProfile:
        """What the planner was told of the data."""
        with readable(self.folder / RECORD):
            return DatasetProfile.model_validate(self.record["profile"])

    @cached_property
    def index(self) -> Tables:
        """Result tables with the meaning of their columns. Raises `ResumeError` for a damaged one."""
        store = Store(self.folder)
        found = {}
        for one in self.results:
            data = store.load("table", one.path, one.sha256)
            found[one.table_id] = Table(one.table_id, data, one.key_columns, one.columns)
        return Tables(found)

    @cached_property
    def tables(self) -> Frames:
        """Result tables by id: `de`, `gsea`, `cox`, `state_de`, ...; `.entities()` are what they name."""
        return Frames(self.index)

    def entities(self) -> list[str]:
        """Every entity that a hypothesis is about, in rank order."""
        return list(dict.fromkeys(name for one in self.hypotheses for name in one.entities))

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / REPORT

    @property
    def exit_code(self) -> int:
        """0; 3 where no question had an answer, 4 where the budget was spent, 5 where an endpoint failed."""
        return int(self.record["exit_code"])


def run(
    adata: AnnData,
    *,
    design: Design | None = None,
    out: str | Path,
    planner: str | Planner = "rules",
    knowledge: str | Path | Knowledge | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    alpha: float = 0.05,
    scale: str | None = None,
    modality: str | None = None,
    normalization: Normalization | Literal["auto"] = "auto",
    min_frac: float = 0.5,
    explore: bool = False,
    test: bool = True,
    resume: Literal["auto", "never"] = "auto",
    cassette: Cassette | None = None,
    cache: str | Path | None = None,
) -> Run:
    """Plan, analyse, interpret and check; everything is left in the folder `out`.

    A folder with a run of the same data and settings is gone on with (`resume="never"` refuses it). `scale`
    and `modality` declare what the reader could only guess; `normalization="none"` is for values that are
    normalised already. Proteins with less than the share `min_frac` of values in every group are set aside.
    `cache` is another run's folder whose finished steps are taken where their inputs and
    settings are the same. `test=False` gives fold changes where groups have one sample.

    Raises `DataError`, `DesignError` and their kinds before any statistics, `ProteusError` for a negative
    seed, `ResumeError` for a folder of another run or of other things. A spent budget and a failed endpoint
    are no errors: see `Run.exit_code`.
    """
    if seed < 0:
        raise ProteusError(f"the seed is {seed}; it is 0 or more")
    folder, design, chosen = Path(out), design or Design(), _planner(planner)
    if cassette is not None and not isinstance(chosen, EndpointPlanner):
        raise ProteusError(f"a cassette keeps a language model's answers, and the planner is {chosen.name}")
    adata = declared(adata, scale, modality)
    known = _knowledge(knowledge)
    profile = profile_dataset(
        adata, design, knowledge=known, explore=explore, normalization=normalization, test=test,
        min_frac=min_frac,
    )  # fmt: skip
    settings = {
        "design": design.model_dump(mode="json"),
        "planner": chosen.name,
        "seed": seed,
        "alpha": alpha,
        "normalization": profile.normalization,
        "min_frac": min_frac,
        "explore": explore,
        "test": test,
        # As seen from the run's folder: both can be moved, and gone on with from anywhere.
        "knowledge": os.path.relpath(knowledge, folder.resolve())
        if isinstance(knowledge, (str, Path))
        else None,
        "knowledge_sha256": "" if known is None else known.sha256,
    }
    _refuse_other_things(folder)
    with writing(folder) as stale:
        store = Store(folder)
        store.mend()
        data, sha256 = _input(store, adata)
        _begin(store, settings, sha256, resume, stale)
        context = ToolContext(design=design, alpha=alpha, seed=seed, knowledge=known)
        session = _Session(store, chosen, profile, context, budget or Budget(), settings, cassette)
        return session.work(data, sha256, cache)


def resume(
    folder: str | Path,
    *,
    budget: Budget | None = None,
    planner: Planner | None = None,
    cassette: Cassette | None = None,
) -> Run:
    """Go on with a run that was killed or whose budget was spent; finished steps are not run again.

    `planner` and `cassette` are those of a run by a language model. Raises `ResumeError` if the folder is no
    run, or another process works on it.
    """
    import anndata

    folder = Path(folder)
    started = _started(folder)
    settings = started["settings"]
    path = folder / INPUT_FILE
    if not path.is_file() or file_hash(path) != started["input_sha256"]:
        raise ResumeError(f"{path} is missing or is not the data that the run began with")
    if planner is None and settings["planner"] != "rules":
        raise ResumeError(f"the run's planner is {settings['planner']!r}: give it again")
    return run(
        anndata.read_h5ad(path),
        design=Design(**settings["design"]),
        out=folder,
        planner=planner or "rules",
        knowledge=None if settings["knowledge"] is None else folder.resolve() / settings["knowledge"],
        budget=budget,
        seed=settings["seed"],
        alpha=settings["alpha"],
        normalization=settings["normalization"],
        min_frac=settings["min_frac"],
        explore=settings["explore"],
        test=settings["test"],
        cassette=cassette,
    )


class _Session:
    """One sitting at a run."""

    def __init__(
        self,
        store: Store,
        planner: Planner,
        profile: DatasetProfile,
        context: ToolContext,
        budget: Budget,
        settings: dict[str, Any],
        cassette: Cassette | None,
    ) -> None:
        self.store = store
        self.planner = planner
        self.profile = profile
        self.context = context
        self.budget = budget
        self.settings = settings
        if isinstance(planner, EndpointPlanner):
            planner.connect(
                Connection(
                    profile=profile,
                    tools=all_tools(),
                    budget=budget,
                    seed=context.seed,
                    emit=self._emit,
                    cassette=cassette,
                    alpha=context.alpha,
                    spent=Spent.of(store.events()),
                )
            )

    def _emit(self, event: str, payload: Mapping[str, Any]) -> None:
        self.store.append(event, **payload)

    def work(self, data: AnnData, sha256: str, cache: str | Path | None) -> Run:
        recorded = RecordedPlanner(self.planner, self.store)
        executor = Executor(self.store, data, sha256, self.context, Meter(self.budget))
        if cache is not None:
            executor.adopt(Store(cache))
        ledger = Ledger()
        outcome = Loop(recorded, executor, self.profile, self.budget, ledger).run()
        tables = executor.tables()
        results = Results(tables.aggregate(), tables.aggregate(), self.context.alpha)
        hypotheses = assemble(
            outcome.drafts,
            tables,
            lambda objective, draft, findings: _revised(recorded, objective, draft, findings, results),
            alpha=self.context.alpha,
            knowledge=self.context.knowledge,
            caveat=lambda ref: list(_caveats(ref, ledger, executor)),
        )
        return self._finish(outcome, executor, ledger, hypotheses, sha256)

    def _finish(
        self,
        outcome: Outcome,
        executor: Executor,
        ledger: Ledger,
        hypotheses: Sequence[Hypothesis],
        sha256: str,
    ) -> Run:
        broken = self.planner.broken if isinstance(self.planner, EndpointPlanner) else ""
        code, reason = _ending(outcome, broken)
        id = _run_id(self.settings, sha256)
        for one in hypotheses:
            self.store.append("guard", hypothesis=one.id, status=one.status)
        self.store.write_json("ledger.json", ledger.to_json())
        self.store.write_json(
            HYPOTHESES, {"run": id, "hypotheses": [one.model_dump(mode="json") for one in hypotheses]}
        )
        self.store.write_json(
            RECORD,
            {
                "id": id,
                "version": version("proteus-omics"),
                "settings": self.settings,
                "input_sha256": sha256,
                "profile": self.profile.model_dump(mode="json"),
                "objectives": [one.model_dump(mode="json") for one in outcome.objectives],
                "workflows": [one.model_dump(mode="json") for one in outcome.workflows],
                "results": [one.model_dump(mode="json") for one in executor.results],
                "figures": executor.figures(),
                "exit_code": code,
                "stopped": reason,
                "environment": versions(),
            },
        )
        self.store.append("run_finished", exit_code=code, stopped=reason)
        found = Run(self.store.folder)
        from proteus_omics.report import write_report

        write_report(found)
        return found


def _ending(outcome: Outcome, broken: str) -> tuple[int, str]:
    """The run's exit code, and what stopped it; `broken` is how an endpoint failed."""
    if outcome.stopped or broken:
        return 4 if isinstance(outcome.stopped, BudgetError) else 5, str(outcome.stopped or broken)
    asked = [one for one in outcome.objectives if one.status != "skipped" and one.kind != "quality"]
    if asked and all(one.status == "failed" for one in asked):
        return 3, f"no question could be answered: {asked[0].reason}"
    return 0, ""


def _revised(
    planner: RecordedPlanner, objective: Objective, draft: Any, findings: Any, results: Results
) -> Any:
    with contextlib.suppress(BudgetError):  # a text that is not revised is kept, and flagged
        return planner.revise(objective, draft, findings, results)
    return None


def _caveats(ref: Ref, ledger: Ledger, executor: Executor) -> Iterator[str]:
    again = ledger.caveat(ref.table)
    if again:
        yield again
    if executor.used_imputation(ref.table):
        yield "imputed values went into this result"


def _knowledge(source: str | Path | Knowledge | None) -> Knowledge | None:
    if source is None or not isinstance(source, (str, Path)):
        return source
    from proteus_omics.knowledge import Knowledge

    return Knowledge.load(source)


def _planner(planner: str | Planner) -> Planner:
    if not isinstance(planner, str):
        return planner
    if planner != "rules":
        raise ProteusError(
            f"planner is {planner!r}; it is 'rules' or a planner such as LLMPlanner(base_url, model)"
        )
    return RulesPlanner()


def _input(store: Store, adata: AnnData) -> tuple[AnnData, str]:
    """Keep the data once; a run that goes on reads what it began with."""
    import anndata

    path = store.folder / INPUT_FILE
    before = next((event for event in store.events() if event["event"] == "run_started"), None)
    if before is not None and path.is_file() and file_hash(path) == before["input_sha256"]:
        kept = anndata.read_h5ad(path)
        other = difference(kept, adata)
        if not other:
            return kept, before["input_sha256"]
        raise ResumeError(f"{store.folder} is a run of other data ({other}): give another folder")
    if before is not None:
        raise ResumeError(f"{path} is missing or is not the data that the run began with")
    _, sha256 = store.save("matrix", "input", adata)
    return adata, sha256


def _refuse_other_things(folder: Path) -> None:
    """A folder that has something and no run is somebody's: nothing is mixed into it."""
    if not folder.is_dir() or (folder / EVENTS).exists():
        return
    # A run that was killed before its first event has no more than these.
    other = sorted(path.name for path in folder.iterdir() if path.name not in (LOCK, PROCESS, "data"))
    if other:
        shown = ", ".join(other[:3]) + (" and more" if len(other) > 3 else "")
        raise ResumeError(f"{folder} is no run and not empty ({shown}): give another folder")


def _begin(store: Store, settings: dict[str, Any], sha256: str, resume: str, stale: bool) -> None:
    before = next((event for event in store.events() if event["event"] == "run_started"), None)
    if before is None:
        store.append("run_started", settings=settings, input_sha256=sha256, version=version("proteus-omics"))
        return
    if resume == "never":
        raise ResumeError(f"{store.folder} has a run already: give another folder")
    changed = sorted(name for name in settings if settings[name] != before["settings"].get(name))
    if set(changed) - {"knowledge"}:  # its folder may have moved; its hash counts
        raise ResumeError(
            f"{store.folder} is a run with other settings ({', '.join(changed)}): give another folder"
        )
    store.append("run_resumed", killed=stale)


def _started(folder: Path) -> dict[str, Any]:
    if not (folder / EVENTS).is_file():
        raise ResumeError(f"{folder} is no run: it has no {EVENTS}")
    found = next((event for event in Store(folder).events() if event["event"] == "run_started"), None)
    if found is None:
        raise ResumeError(f"{folder} is no run: it never began")
    return found


def _run_id(settings: dict[str, Any], sha256: str) -> str:
    from proteus_omics.models import content_id

    return content_id("run", {name: value for name, value in settings.items() if name != "knowledge"}, sha256)
