"""A language model that scores hypotheses on the paper's five metrics, in three passes (section 2.9)."""

from __future__ import annotations

import contextlib
import random
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pandas as pd

from proteus_omics.errors import BudgetError, EndpointError, ProteusWarning
from proteus_omics.models import Budget, Hypothesis
from proteus_omics.planner.base import Cassette, Spent
from proteus_omics.planner.context import Section, row_text
from proteus_omics.planner.endpoint import Endpoint, Unanswered
from proteus_omics.planner.schemas import JudgeScore

if TYPE_CHECKING:
    from pydantic_ai.models import Model

    from proteus_omics.api import Run
    from proteus_omics.hypotheses.references import Tables

METRICS = ("reliability", "coherence", "literature", "novelty", "evaluability")
PASSES = 3


class LLMJudge:
    """Scores hypotheses by a language model; arguments as of `LLMPlanner`.

    The judge sees a statement, the rows that it refers to and its caveats, nothing else. Scores of different
    judges are not comparable and never averaged.
    """

    def __init__(
        self,
        base_url: str | None = None,
        model: str | Model = "",
        *,
        api_key_env: str = "OPENAI_API_KEY",
        context_tokens: int = 16_384,
        max_tokens: int = 1_024,
    ) -> None:
        self.endpoint = Endpoint(
            model,
            base_url,
            api_key_env=api_key_env,
            context_tokens=context_tokens,
            max_tokens=max_tokens,
        )
        self.stopped: BudgetError | None = None
        """Why the last scoring ended before its three passes, if its budget was spent."""

    @property
    def broken(self) -> str:
        """Why the model was not asked any more, empty if it was asked to the end."""
        return self.endpoint.broken

    @property
    def spent(self) -> Spent:
        """What was asked so far."""
        return self.endpoint.spent

    def score(
        self,
        hypotheses: Sequence[Hypothesis],
        tables: Tables,
        *,
        seed: int = 0,
        author: str = "",
        budget: Budget | None = None,
        cassette: Cassette | None = None,
    ) -> pd.DataFrame:
        """A row a hypothesis: `hypothesis, judge, passes`, of each metric the median of the passes' integers
        1 to 5 with `<metric>_low` and `<metric>_high`, and `comment` of the first pass.

        Each pass has its own seed, order of hypotheses and order of rows. A pass without an answer is left
        out; a hypothesis with none has `passes` 0 and NaN. `author` is the model that wrote the hypotheses.
        Without a `budget` there are twice as many requests as questions. Where it is spent, the scores until
        then are returned, and `stopped` says so. Raises `CassetteMiss`.
        """
        if author.removeprefix("llm:") == self.endpoint.name:
            warnings.warn(
                f"{self.endpoint.name} judges its own hypotheses: name another model to judge",
                ProteusWarning,
                stacklevel=2,
            )
        budget = budget or Budget(max_requests=self.spent.requests + 2 * PASSES * len(hypotheses))
        self.endpoint.use(budget, cassette, seed)
        self.stopped = None
        scores: dict[str, list[JudgeScore]] = {one.id: [] for one in hypotheses}
        try:
            for number in range(PASSES):
                self._pass(number, hypotheses, tables, seed, scores)
        except BudgetError as error:
            self.stopped = error
        return pd.DataFrame([self._row(id, found) for id, found in scores.items()])

    def _pass(
        self,
        number: int,
        hypotheses: Sequence[Hypothesis],
        tables: Tables,
        seed: int,
        scores: dict[str, list[JudgeScore]],
    ) -> None:
        shuffled = random.Random(f"{seed}-{number}")
        for hypothesis in shuffled.sample(list(hypotheses), len(hypotheses)):
            with contextlib.suppress(Unanswered):
                scores[hypothesis.id].append(self._ask(hypothesis, tables, shuffled, seed + number))

    def _ask(self, hypothesis: Hypothesis, tables: Tables, shuffled: random.Random, seed: int) -> JudgeScore:
        cells = dict.fromkeys((ref.table, ref.row) for ref in hypothesis.refs)
        rows = [f"{id}: {row_text(tables[id], tables[id].row(name))}" for id, name in cells]
        shuffled.shuffle(rows)
        return self.endpoint.ask(
            "judge",
            [
                Section("Statement", [hypothesis.statement]),
                Section("Caveats", ["\n".join(hypothesis.caveats) or "none"]),
                Section("Rows", ["\n".join(rows[:most]) or "none" for most in (40, 10, 3)]),
            ],
            JudgeScore,
            lambda answer: answer,
            system="",
            seed=seed,
        )

    def _row(self, id: str, found: Sequence[JudgeScore]) -> dict[str, object]:
        row: dict[str, object] = {"hypothesis": id, "judge": self.endpoint.name, "passes": len(found)}
        for metric in METRICS:
            values = [getattr(one, metric) for one in found]
            row[metric] = median(values) if values else float("nan")
            row[f"{metric}_low"] = min(values, default=float("nan"))
            row[f"{metric}_high"] = max(values, default=float("nan"))
        row["comment"] = found[0].comment if found else ""
        return row


def judge_run(
    run: Run,
    base_url: str | None,
    model: str | Model,
    *,
    api_key_env: str = "OPENAI_API_KEY",
    seed: int = 0,
    budget: Budget | None = None,
    cassette: Cassette | None = None,
) -> Path:
    """Judge a run's hypotheses; the path of a table in its folder, with the judge's name in it.

    Raises `EndpointError` where the model does not answer, and `BudgetError` where the budget is spent; what
    was judged before is in the table.
    """
    judge = LLMJudge(base_url, model, api_key_env=api_key_env)
    author = str(run.record["settings"]["planner"])
    found = judge.score(run.hypotheses, run.index, seed=seed, author=author, budget=budget, cassette=cassette)
    path = run.folder / f"judge_{re.sub(r'[^A-Za-z0-9.-]+', '_', judge.endpoint.name)}.csv"
    found.to_csv(path, index=False)
    if judge.stopped is not None:
        raise BudgetError(f"{judge.stopped}; {path} has what was judged before")
    if judge.broken:
        raise EndpointError(f"{judge.broken}; {path} has what was judged before")
    return path
