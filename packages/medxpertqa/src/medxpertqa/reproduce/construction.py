"""E7: the steps of the construction on three real banks, with one small voter and made-up human answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from medxpertqa.construct.edit_pairs import edit_similar_pairs
from medxpertqa.construct.human import LEVELS, TOP_PERCENT, Level, brier, human_filter
from medxpertqa.construct.ledger import Ledger
from medxpertqa.construct.removal import deduplicate
from medxpertqa.construct.rewriting import rewrite_by_rule
from medxpertqa.construct.semantic import iqr_fence, semantic_similar_pairs, semantic_similarity
from medxpertqa.construct.voting import Votes, ai_expert_filter
from medxpertqa.datasets import bank
from medxpertqa.parsing import parse_answer
from medxpertqa.protocols import get_protocol
from medxpertqa.questions import Question
from medxpertqa.reproduce.claims import BANKS
from medxpertqa.reproduce.server import NAME, Complete, first_question, open_model
from tenfold import Trial, TrialContext

THRESHOLD = 0.8
UNRATED = 0.1678
"""The share of the paper's questions that have no human answers and pass."""


class ConstructionConfig(BaseModel):
    """How many of the bank's questions the voter may be asked about, and what it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: int = Field(gt=0, description="of 6,545; those the human filter keeps are asked")
    samples: int = Field(gt=0)
    max_tokens: int = Field(gt=0)
    temperature: float = Field(gt=0)
    copies: int = Field(gt=0)


@dataclass(frozen=True)
class Thresholds:
    """What a re-run may change without asking the voter again."""

    top_percent: Mapping[Level, float]
    edit: float
    fence: float


FIRST = Thresholds(TOP_PERCENT, THRESHOLD, 3.0)
STRICTER = Thresholds({"hard": 20.0, "medium": 10.0, "easy": 2.0}, 0.75, 1.5)


class Voter:
    """The small model as a voter of the AI filter; counts its calls."""

    def __init__(self, complete: Complete) -> None:
        self.name, self.calls, self._complete = NAME, 0, complete

    def __call__(self, messages: Sequence[Mapping[str, Any]], **parameters: Any) -> str:
        """Return the reply; raises `RuntimeError` if the model gives none."""
        self.calls += 1
        plain = [
            {"role": m["role"], "content": first_question({"messages": [{**m, "role": "user"}]})}
            for m in messages
        ]
        answer = self._complete({"messages": plain, **parameters})
        if "error" in answer:
            raise RuntimeError(f"the voter gave no reply: {answer['error'].get('message')}")
        return str(answer["choices"][0]["message"]["content"])


def pairs_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Similar pairs within each bank, nearest similarities for the figure, and the planted copies."""
    found: dict[str, Any] = {"bank_questions": 0}
    for done, (name, key) in enumerate(zip(BANKS, ("medqa", "medmcqa", "mmlu"), strict=True)):
        context.progress(done, len(BANKS) + 1)
        texts = [question.to_prompt_string() for question in bank(name)]  # type: ignore[arg-type]
        pairs = edit_similar_pairs(texts, THRESHOLD)
        found["bank_questions"] += len(texts)
        found[f"pairs_{key}"] = len(pairs)
        found[f"identical_{key}"] = sum(texts[first] == texts[second] for first, second, _ in pairs)
    questions = bank("medqa")
    semantic = semantic_similarity([question.to_prompt_string() for question in questions])
    found["nearest"] = np.sort(np.round(semantic.nearest, 4)).tolist()
    found["fence"] = iqr_fence(semantic.nearest)
    return found | planted(questions, trial.settings["copies"])


def planted(questions: Sequence[Question], copies: int) -> dict[str, float]:
    """Add copies with one sentence moved to a bank; the share that a filter pairs with their originals."""
    moved = [(place, rewrite_by_rule(question)) for place, question in enumerate(questions)]
    chosen = [(place, made.question) for place, made in moved if not made.problems][:copies]
    texts = [question.to_prompt_string() for question in questions]
    texts += [question.to_prompt_string() for _, question in chosen]
    pairs = [*edit_similar_pairs(texts, THRESHOLD), *semantic_similar_pairs(texts)]
    together = {(first, second) for first, second, _ in pairs}
    hits = sum((place, len(questions) + number) in together for number, (place, _) in enumerate(chosen))
    return {"planted_copies": len(chosen), "planted_recall": hits / len(chosen)}


def pipeline_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Thin the bank twice: with the paper's thresholds, then from the ledger alone with stricter ones."""
    config = ConstructionConfig(**trial.settings)
    questions = [question for name in BANKS for question in bank(name)]  # type: ignore[arg-type]
    path = context.checkpoint_dir / "ledger.jsonl"
    with open_model() as complete:
        voter = Voter(complete)
        funnel = thin(questions, voter, path, config, FIRST, context)
        calls = voter.calls
        again = thin(questions, voter, path, config, STRICTER, context)
    return {
        "funnel": funnel,
        "funnel_again": again,
        "ledger_first_calls": calls,
        "ledger_rerun_calls": voter.calls - calls,
        "funnel_stages": len(funnel),
        "funnel_differences": sum(
            before["count"] - after["removed"] != after["count"]
            for one in (funnel, again)
            for before, after in pairwise(one)
        ),
    }


def thin(
    questions: Sequence[Question],
    voter: Voter,
    path: Path,
    config: ConstructionConfig,
    thresholds: Thresholds,
    context: TrialContext,
) -> list[dict[str, Any]]:
    """Apply the filters in the order of Table 1: for each stage its count, and what its decisions removed."""
    scores, levels = made_up_answers(questions)
    human = human_filter(scores, levels, top_percent=thresholds.top_percent).keep
    stages: list[dict[str, Any]] = [{"stage": "collected", "count": len(questions), "removed": 0}]
    left = _next(stages, "human filter", range(len(questions)), [not keep for keep in human])
    candidates = {place * len(questions) // config.candidates for place in range(config.candidates)}
    with Ledger(path) as ledger:
        asked = [place for place in left if place in candidates]
        votes = []
        for done, place in enumerate(asked):
            context.progress(done, len(asked))
            votes.append(Votes({voter.name: vote(questions[place], voter, ledger, config)}, {}))
    kept = dict(zip(asked, ai_expert_filter(votes).keep, strict=True)) if asked else {}
    left = _next(stages, "AI filter", left, [not kept.get(place, True) for place in left])
    texts = [questions[place].to_prompt_string() for place in left]
    left = _removed(stages, "edit similarity", left, edit_similar_pairs(texts, thresholds.edit), scores)
    texts = [questions[place].to_prompt_string() for place in left]
    similar = semantic_similar_pairs(texts, k=thresholds.fence)
    left = _removed(stages, "semantic similarity", left, similar, scores)
    made = [rewrite_by_rule(questions[place]) for place in left]
    stages.append({"stage": "rewritten", "count": len(made), "removed": 0})
    stages[-1]["to_review"] = sum(bool(one.problems) for one in made)
    return stages


def vote(question: Question, voter: Voter, ledger: Ledger, config: ConstructionConfig) -> list[bool]:
    """Whether each sample of the voter's answer to a question is right."""
    protocol = get_protocol("official-ao")
    rights = []
    for sample in range(config.samples):
        parameters = {"max_tokens": config.max_tokens, "temperature": config.temperature, "seed": sample}
        reply = ledger.ask(voter, protocol.first_turn(question), sample, **parameters)
        found = parse_answer(reply, question.n_options, "robust", options=question.options, trigger="ao")
        rights.append(found.letter == question.label)
    return rights


def made_up_answers(questions: Sequence[Question]) -> tuple[list[float | None], list[str | None]]:
    """Synthetic answer distributions and levels: Brier scores (None without answers), the same every time."""
    rng = np.random.default_rng(0)
    scores: list[float | None] = []
    levels: list[str | None] = []
    for question in questions:
        n, answer = question.n_options, question.letters.index(question.label)
        ease = rng.beta(4, 2)
        wrong = rng.dirichlet(np.ones(n - 1)) * (1 - ease)
        unrated = rng.random() < UNRATED
        scores.append(None if unrated else brier(np.insert(wrong, answer, ease), answer))
        levels.append(None if unrated else LEVELS[rng.integers(3)])
    return scores, levels


def _next(stages: list[dict[str, Any]], name: str, left: Sequence[int], gone: Sequence[bool]) -> list[int]:
    kept = [place for place, goes in zip(left, gone, strict=True) if not goes]
    stages.append({"stage": name, "count": len(kept), "removed": sum(gone)})
    return kept


def _removed(
    stages: list[dict[str, Any]],
    name: str,
    left: Sequence[int],
    pairs: Sequence[tuple[int, int, float]],
    scores: Sequence[float | None],
) -> list[int]:
    difficulty = [np.nan if (score := scores[place]) is None else score for place in left]
    gone = set(deduplicate(pairs, difficulty))
    return _next(stages, name, left, [place in gone for place in range(len(left))])
