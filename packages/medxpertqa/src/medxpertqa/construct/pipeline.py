"""All stages in the paper's order over a bank, with the calls of models in a ledger: a run resumes by itself.

Every stage decides anew on every run, which costs nothing: only a call that the ledger lacks reaches a model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medxpertqa.construct.edit_pairs import SimilarPair, edit_similar_pairs
from medxpertqa.construct.human import Normalisation, answer_shares, difficulty_levels, hardness, human_filter
from medxpertqa.construct.labelling import label_question
from medxpertqa.construct.ledger import ChatModel, Ledger
from medxpertqa.construct.nearest_edits import EditFences, edit_fences
from medxpertqa.construct.options import Made, expand_options, prune_options, shuffle_options
from medxpertqa.construct.removal import deduplicate
from medxpertqa.construct.rewriting import rewrite, rewrite_by_rule
from medxpertqa.construct.semantic import TfidfEmbedder, TransformersEmbedder, semantic_similar_pairs
from medxpertqa.construct.settings import AIStage, BuildSettings, EditStage, HumanStage, ModelSettings
from medxpertqa.construct.side_by_side import each_question
from medxpertqa.construct.voting import Votes, ai_expert_filter
from medxpertqa.errors import DataError
from medxpertqa.field_types import check_types
from medxpertqa.images import ImageStore
from medxpertqa.json_lines import read_json_lines, write_json_lines
from medxpertqa.parsing import ParsedAnswer, parse_answer
from medxpertqa.protocols import get_protocol
from medxpertqa.questions import N_OPTIONS, Question, check_questions


@dataclass(frozen=True)
class Item:
    """A question of the bank with how many people chose each letter, and experts' difficulty rating."""

    question: Question
    answer_counts: Mapping[str, float] = field(default_factory=dict)
    difficulty: float | None = None


@dataclass(frozen=True)
class Decision:
    """What a stage decided about a question, why, and the numbers or the problems behind it.

    Stages that change questions keep all of them: the reason is "changed", "unchanged" or "for review".
    """

    stage: str
    id: str
    keep: bool
    reason: str
    details: str = ""


def read_decisions(folder: str | Path) -> list[Decision]:
    """Read what the last finished run in a folder decided. Raises `DataError` if there is none."""
    file = Path(folder) / "decisions.jsonl"
    if not file.exists():
        raise DataError(f"{file} is not there: no run has finished in this folder")
    try:
        return [Decision(**row) for row in read_json_lines(file.read_text(encoding="utf-8"))]
    except (DataError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} has no decisions of a run ({error}); run `build run` again") from None


def read_notes(folder: str | Path) -> dict[str, list[str]]:
    """Read the notes for reviewers of the last finished run in a folder, by id; none if it kept none.

    Raises `DataError` for a damaged file.
    """
    file = Path(folder) / "notes.jsonl"
    if not file.exists():
        return {}
    try:
        return {row["id"]: list(row["problems"]) for row in read_json_lines(file.read_text(encoding="utf-8"))}
    except (DataError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} has no notes of a run ({error}); run `build run` again") from None


@dataclass(frozen=True)
class Build:
    """The questions that are left, `funnel` (stage, how many left), decisions, notes for reviewers by id.

    `no_letter` has, by model of the AI filter, in how many of its replies no letter was found, and of how
    many: they count as wrong, so that a model which is often silent lets much through. `retention` is the
    share that the human filter keeps under either reading of the paper (see `human_filter`). `edit_fences` is
    there if the settings ask for it and two questions or more reach that stage.
    """

    questions: list[Question]
    funnel: list[tuple[str, int]]
    decisions: list[Decision]
    notes: dict[str, list[str]]
    new_calls: int
    no_letter: dict[str, tuple[int, int]]
    retention: dict[str, float]
    edit_fences: EditFences | None


def read_bank(path: str | Path) -> list[Item]:
    """Read JSON lines: records of either form, with `answer_counts` {letter: n} and `difficulty` if known.

    Raises `DataError` that names the file and the line or the question.
    """
    try:
        return [_item(row) for row in read_json_lines(Path(path).read_text(encoding="utf-8"))]
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the bank can't be read ({error})") from error


def _item(row: Mapping[str, Any]) -> Item:
    question = Question.from_record(row)
    about: dict[str, Any] = {
        "answer_counts": row.get("answer_counts") or {},
        "difficulty": row.get("difficulty"),
    }
    check_types(Item, about, question.id)
    item = Item(question, **about)
    try:
        answer_shares(item.answer_counts, question.letters)
        difficulty_levels([item.difficulty])
    except DataError as error:
        raise DataError(f"{question.id}: {error}") from None
    return item


def run_pipeline(
    items: Sequence[Item],
    settings: BuildSettings,
    folder: str | Path,
    open_model: Callable[[ModelSettings], ChatModel],
    images: ImageStore | None = None,
) -> Build:
    """Run the stages of the settings; write questions.jsonl, decisions.jsonl and notes.jsonl into `folder`.

    Stages that ask models have as many questions under way as their models take together. The ledger is
    calls.jsonl in the folder. `open_model` makes a model of its settings, for example
    `medxpertqa.construct.endpoints.EndpointModel`. `images` are shown to the models of the AI filter; the
    ledger keeps their names and SHA-256, not their bytes.

    Raises:
        MedXpertQAError: texts would leave the machine without `phi_checked`; another run uses the folder.
        DataError: ids that come twice, no questions, or an image that the AI filter needs is not there.
    """
    settings.check_privacy()
    check_questions((item.question for item in items), "the bank")
    if settings.ai:
        _check_images([item.question for item in items], images)
    with Ledger(Path(folder) / "calls.jsonl") as ledger:
        run = _Run(list(items), settings, ledger, open_model, images)
        run.filters()
        run.changes()
        build = Build(
            [item.question for item in run.items],
            run.funnel,
            run.decisions,
            run.notes,
            ledger.new_calls,
            run.no_letter,
            run.retention,
            run.edit_fences,
        )
        write_json_lines(Path(folder) / "questions.jsonl", [q.to_record() for q in build.questions])
        write_json_lines(Path(folder) / "decisions.jsonl", [vars(decision) for decision in build.decisions])
        notes = [{"id": name, "problems": problems} for name, problems in build.notes.items()]
        write_json_lines(Path(folder) / "notes.jsonl", notes)
    return build


def _check_images(questions: Sequence[Question], images: ImageStore | None) -> None:
    shown = [question for question in questions if question.images]
    if images is not None:
        images.check(shown)
    elif shown:
        raise DataError(
            f"{shown[0].id} has images, which the AI filter shows to its models; name a ZIP or a folder with "
            'them in the settings, images = "images.zip"'
        )


class _Run:
    def __init__(
        self,
        items: list[Item],
        settings: BuildSettings,
        ledger: Ledger,
        open_model: Callable[[ModelSettings], ChatModel],
        images: ImageStore | None,
    ) -> None:
        self.items, self.settings, self.ledger, self.open_model = items, settings, ledger, open_model
        # By the place in the bank, not among those left: other thresholds leave each its rewriter.
        self.turns = {item.question.id: turn for turn, item in enumerate(items)}
        self.images = images
        self.funnel = [("collected", len(items))]
        self.decisions: list[Decision] = []
        self.notes: dict[str, list[str]] = {}
        self.no_letter: dict[str, tuple[int, int]] = {}
        self.retention: dict[str, float] = {}
        self.edit_fences: EditFences | None = None

    def filters(self) -> None:
        settings = self.settings
        if settings.human:
            self._human(settings.human)
        if settings.ai:
            self._ai(settings.ai)
        if settings.edit:
            self._edit(settings.edit)
        if settings.semantic:
            stage = settings.semantic
            embedder = (
                TfidfEmbedder()
                if stage.embedder == "tfidf"
                else TransformersEmbedder(stage.embedder, stage.max_length)
            )
            pairs = semantic_similar_pairs(self._texts(), embedder, stage.scope, stage.k)
            self._similar("semantic", pairs)

    def changes(self) -> None:
        settings, ask = self.settings, self.ledger
        if settings.prune:
            before, self.items = self.items, [_pruned(item, settings.prune.min_rate) for item in self.items]
            self._tell_changes("prune", before)
        if settings.rewrite:
            used = settings.rewrite.models
            models = [self.open_model(model) for model in used]
            if models:
                self._change("rewrite", lambda q: rewrite(q, models, ask, self.turns[q.id]), used)
            else:
                self._change("rewrite", rewrite_by_rule)
        if settings.expand:
            stage = settings.expand
            generator = self.open_model(stage.generator)
            checker = self.open_model(stage.checker) if stage.checker else None
            used = [stage.generator]
            self._change(
                "expand",
                lambda q: expand_options(q, stage.n_options or N_OPTIONS[q.subset], generator, ask, checker),
                used,
            )
        if settings.shuffle:
            self._change("shuffle", lambda q: Made(shuffle_options(q, settings.seed), []))
        if settings.labels:
            model = self.open_model(settings.labels.model)
            self._change("labels", lambda q: label_question(q, model, ask), [settings.labels.model])

    def _texts(self) -> list[str]:
        return [item.question.to_prompt_string() for item in self.items]

    def _keep(self, stage: str, keep: Sequence[bool], reasons: Sequence[str], details: Sequence[str]) -> None:
        ids = [item.question.id for item in self.items]
        judged = zip(ids, keep, reasons, details, strict=True)
        self.decisions += [Decision(stage, *about) for about in judged]
        self.items = [item for item, stays in zip(self.items, keep, strict=True) if stays]
        self.funnel.append((stage, len(self.items)))

    def _human(self, stage: HumanStage) -> None:
        levels = difficulty_levels([item.difficulty for item in self.items])
        scores = [_hardness(item, stage.min_responses, stage.normalise) for item in self.items]
        result = human_filter(scores, levels, stage.mode, stage.top_percent)
        self.retention = result.retention
        sign = -1 if stage.normalise == "skill" else 1  # shown as `brier` gives it
        details = [
            "" if score is None else f"{stage.normalise} Brier score {sign * score:.4f}, level {level}"
            for score, level in zip(scores, levels, strict=True)
        ]
        self._keep("human", result.keep, result.reasons, details)

    def _ai(self, stage: AIStage) -> None:
        basic = [(self.open_model(model), stage.samples) for model in stage.basic]
        advanced = [(self.open_model(model), 1) for model in stage.advanced]

        def ask(question: Question) -> dict[str, list[ParsedAnswer]]:
            return {model.name: self._answers(model, question, stage, n) for model, n in basic + advanced}

        questions = [item.question for item in self.items]
        at_once = _at_once(stage.basic + stage.advanced)
        found = each_question("ai", ask, questions, at_once, self.ledger.stop)
        for name in found[0] if found else ():
            letters = [answer.letter for answers in found for answer in answers[name]]
            self.no_letter[name] = letters.count(None), len(letters)
        rights = [
            {name: [answer.letter == question.label for answer in some] for name, some in answers.items()}
            for question, answers in zip(questions, found, strict=True)
        ]
        votes = [
            Votes({m.name: right[m.name] for m, _ in basic}, {m.name: right[m.name] for m, _ in advanced})
            for right in rights
        ]
        result = ai_expert_filter(votes, stage.mixed)
        details = [
            ", ".join(f"{name} {sum(right)} of {len(right)}" for name, right in by_model.items())
            for by_model in rights
        ]
        self._keep("ai", result.keep, result.reasons, details)

    def _answers(
        self, model: ChatModel, question: Question, stage: AIStage, samples: int
    ) -> list[ParsedAnswer]:
        messages = get_protocol("official-ao").first_turn(question)
        for part in messages[-1]["content"]:
            if part["type"] == "image":  # another image under the same name is another call
                assert self.images is not None
                part["sha256"] = hashlib.sha256(self.images.read(part["image"])).hexdigest()
        limits = {"temperature": stage.temperature, "max_tokens": stage.max_tokens}
        replies = [self.ledger.ask(model, messages, sample, **limits) for sample in range(samples)]
        n, options = question.n_options, question.options
        return [parse_answer(reply, n, "robust", options=options, trigger="ao") for reply in replies]

    def _edit(self, stage: EditStage) -> None:
        texts = self._texts()
        if stage.fences and len(texts) > 1:
            self.edit_fences = edit_fences(texts, stage.threshold)
        self._similar("edit", edit_similar_pairs(texts, stage.threshold))

    def _similar(self, stage: str, pairs: Sequence[SimilarPair]) -> None:
        normalise = self.settings.human.normalise if self.settings.human else "paper"
        scores = [_hardness(item, 1, normalise) for item in self.items]
        removed = set(deduplicate(pairs, [math.nan if score is None else score for score in scores]))
        keep = [i not in removed for i in range(len(self.items))]
        nearest: dict[int, str] = {}
        for first, second, similarity in sorted(pairs, key=lambda pair: pair[2]):
            for one, other in ((first, second), (second, first)):
                nearest[one] = f"{self.items[other].question.id}: {similarity:.4f}"
        details = [nearest.get(i, "") for i in range(len(self.items))]
        reasons = ["unlike the others" if stays else "too like another" for stays in keep]
        self._keep(stage, keep, reasons, details)

    def _change(
        self, stage: str, change: Callable[[Question], Made], models: Sequence[ModelSettings] = ()
    ) -> None:
        before = self.items
        questions = [item.question for item in before]
        changed = each_question(stage, change, questions, _at_once(models), self.ledger.stop)
        self.items = [
            replace(item, question=made.question) for item, made in zip(before, changed, strict=True)
        ]
        problems = {made.question.id: made.problems for made in changed if made.problems}
        for name, found in problems.items():
            self.notes.setdefault(name, []).extend(found)
        self._tell_changes(stage, before, problems)

    def _tell_changes(
        self, stage: str, before: Sequence[Item], problems: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> None:
        for old, new in zip(before, self.items, strict=True):
            found = problems.get(new.question.id, ())
            done = "unchanged" if new.question == old.question else "changed"
            reason = "for review" if found else done
            self.decisions.append(Decision(stage, new.question.id, True, reason, "; ".join(found)))


def _at_once(models: Sequence[ModelSettings]) -> int:
    return sum(model.max_connections for model in models)


def _hardness(item: Item, min_responses: int, normalise: Normalisation) -> float | None:
    question = item.question
    shares = answer_shares(item.answer_counts, question.letters, min_responses)
    return None if shares is None else hardness(shares, question.letters.index(question.label), normalise)


def _pruned(item: Item, min_rate: float) -> Item:
    shares = answer_shares(item.answer_counts, item.question.letters)
    if shares is None:
        return item
    by_letter = dict(zip(item.question.letters, shares, strict=True))
    return replace(item, question=prune_options(item.question, by_letter, min_rate))
