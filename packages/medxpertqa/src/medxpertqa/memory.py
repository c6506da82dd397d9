"""Ask a Hugging Face model for what the leakage metrics need: log-probabilities, continuations, answers."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medxpertqa.errors import DataError, MissingExtraError
from medxpertqa.leakage import (
    Change,
    edit_similarity,
    log10_inverse_probability,
    ngram_audit,
    paired_change,
    perplexity,
    rouge_l,
    start_points,
)
from medxpertqa.questions import Question


@dataclass(frozen=True)
class TextAudit:
    """One text under one model: its perplexity, and BenBench's test (NaN and False if it is too short)."""

    perplexity: float
    log10_inverse_probability: float
    ngram_accuracy: float
    edit_similarity: float
    rouge_l: float
    flagged: bool


@dataclass(frozen=True)
class OutputAudit:
    """The model's own greedy answer to a question, and how certain it was of it."""

    output: str
    perplexity: float
    log10_inverse_probability: float


class CausalMemory:
    """A causal language model of `transformers` and its tokenizer, asked greedily and one text at a time."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        first, begin = tokenizer.encode("a")[:1], tokenizer.bos_token_id
        # What the model was trained to see before a text, where its tokenizer puts it (Llama, Gemma).
        self._begin: list[int] = first if begin is not None and first == [begin] else []

    @classmethod
    def from_pretrained(cls, name: str, device: str = "cpu") -> CausalMemory:
        """Load a model of the hub or a folder; Python code that it brings is not run.

        Raises `DataError` for a model or a device that is not to be had, `MissingExtraError`.
        """
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise MissingExtraError(
                "the leakage audit of a local model needs an optional extra: "
                "pip install 'medxpertqa[leakage]'"
            ) from None
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(name)
            tokenizer = AutoTokenizer.from_pretrained(name)
        except OSError as error:
            raise DataError(f"the model {name} cannot be loaded: {error}") from error
        try:
            return cls(model.to(device), tokenizer)
        except (RuntimeError, AssertionError) as error:  # what torch raises for a device that is not there
            raise DataError(f"the device {device!r} cannot be used: {str(error).splitlines()[0]}") from error

    @property
    def name(self) -> str:
        """The hub id or the folder that the model came from, "" if it was made in memory."""
        return str(getattr(self.model, "name_or_path", ""))

    def log_probabilities(self, text: str) -> list[float]:
        """Return the natural log-probability of each token of the text after the first."""
        import torch

        ids = self._ids(text)
        if len(ids) < 2:
            raise DataError(f"a text of {len(ids)} tokens has no log-probabilities: give at least 2")
        row = torch.tensor([self._begin + ids], device=self.model.device)
        with torch.inference_mode():
            logits = self.model(row).logits[0, len(self._begin) : -1].float()
        picked = torch.log_softmax(logits, -1).gather(1, row[0, len(self._begin) + 1 :, None])
        return [float(value) for value in picked[:, 0].cpu()]

    def continuations(self, text: str, n: int = 5, k: int = 5) -> tuple[list[str], list[str]]:
        """Return what the model writes after k prefixes of the text, n tokens each, and what the text has."""
        ids = self._ids(text)
        places = start_points(len(ids), n, k)
        predicted = [self._greedy(ids[:place], n)[0] for place in places]
        decode = self.tokenizer.decode
        return [decode(p) for p in predicted], [decode(ids[place : place + n]) for place in places]

    def audit_text(self, text: str, n: int = 5, k: int = 5, stemmed: bool = False) -> TextAudit:
        """Audit a text that the model may have been trained on (BenBench); `stemmed` as in `rouge_l`."""
        log_probabilities = self.log_probabilities(text)
        predicted, expected = self.continuations(text, n, k)
        nan = float("nan")
        grams = ngram_audit(predicted, expected, stemmed=stemmed) if expected else None
        return TextAudit(
            perplexity(log_probabilities),
            log10_inverse_probability(log_probabilities),
            grams.accuracy if grams else nan,
            grams.edit_similarity if grams else nan,
            grams.rouge_l if grams else nan,
            bool(grams and grams.flagged),
        )

    def audit_output(self, question: Question, max_tokens: int = 256) -> OutputAudit:
        """Let the model go on after "question + Answer:" and measure its certainty (the paper's table 6).

        Raises `DataError` if question and answer may be longer than the model's context.
        """
        ids = self._ids(question.to_prompt_string() + "\nAnswer:", max_tokens)
        written, log_probabilities = self._greedy(ids, max_tokens)
        return OutputAudit(
            self.tokenizer.decode(written, skip_special_tokens=True),
            perplexity(log_probabilities),
            log10_inverse_probability(log_probabilities),
        )

    def _ids(self, text: str, reply: int = 0) -> list[int]:
        """The tokens of a text, behind which a reply of so many is to fit into the context."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit and len(self._begin) + len(ids) + reply > limit:
            what = f"a text of {len(ids)} tokens" + (f" with {reply} of a reply" if reply else "")
            raise DataError(f"{what} is longer than the model's context of {limit}")
        return ids

    def _greedy(self, ids: Sequence[int], n: int) -> tuple[list[int], list[float]]:
        """The most likely token n times (fewer at the end of the text), each with its log-probability."""
        import torch

        device = self.model.device
        prefix = torch.tensor([[*self._begin, *ids]], device=device)
        out = self.model.generate(
            prefix,
            attention_mask=torch.ones_like(prefix),
            max_new_tokens=n,
            do_sample=False,
            repetition_penalty=1.0,  # else what the model's own settings say, greedy or not
            no_repeat_ngram_size=0,
            return_dict_in_generate=True,
            output_logits=True,
            pad_token_id=self.tokenizer.eos_token_id or 0,
        )
        written = out.sequences[0, prefix.shape[1] :].tolist()
        log_probabilities = [
            float(torch.log_softmax(logits[0].float(), -1)[token])
            for logits, token in zip(out.logits, written, strict=True)
        ]
        return written, log_probabilities


@dataclass(frozen=True)
class QuestionAudit:
    """A question under a model: its text, the model's own answer, and that answer beside an explanation."""

    id: str
    text: TextAudit
    output: OutputAudit
    rouge_l: float | None
    edit_similarity: float | None


@dataclass(frozen=True)
class LeakageAudit:
    """All questions, and what rewriting changed (`changes` is empty without rewritten questions)."""

    rows: list[QuestionAudit]
    changes: dict[str, Change]


def audit_questions(
    memory: CausalMemory,
    questions: Sequence[Question],
    out: str | os.PathLike[str],
    *,
    rewritten: Sequence[Question] | None = None,
    max_tokens: int = 256,
    stemmed: bool = False,
) -> LeakageAudit:
    """Audit every question, and its rewritten form if there is one; a line of `out` (JSON lines) a question.

    A number that is not finite is null there. What `out` has is not done again; each line has the SHA-256 of
    what was audited. `rewritten` must have the same ids. `stemmed` takes ROUGE-L of stems (see `rouge_l`).

    Raises `DataError` for ids that are not there, for a text (with `max_tokens` of the model's own) longer
    than the model's context, and if `out` is of another model or other texts, or was made in another way;
    `MissingExtraError`.
    """
    other = {question.id: question for question in rewritten or ()}
    lacking = [question.id for question in questions if rewritten is not None and question.id not in other]
    if lacking:
        raise DataError(f"{lacking[0]} is not among the rewritten questions")
    path = Path(out)
    how = {"model": memory.name, "max_tokens": max_tokens, "stemmed": stemmed}
    asked = {("original", q.id): q for q in questions}
    asked |= {("rewritten", q.id): other[q.id] for q in questions if other}
    done = _audited(path, how, {place: _sha256(question) for place, question in asked.items()})
    with path.open("a", encoding="utf-8") as file:
        for (kind, name), question in asked.items():
            if (kind, name) in done:
                continue
            row = _audit(memory, question, max_tokens, stemmed)
            done[kind, name] = row
            about = {"kind": kind, **how, "sha256": _sha256(question)}
            file.write(json.dumps({**about, **_plain(asdict(row))}, allow_nan=False) + "\n")
            file.flush()
    rows = [done["original", question.id] for question in questions]
    again = [done["rewritten", question.id] for question in questions if other]
    changes = {}
    if again:
        measures: dict[str, Callable[[QuestionAudit], float]] = {
            "perplexity of the question": lambda row: row.text.perplexity,
            "n-grams continued exactly": lambda row: row.text.ngram_accuracy,
            "perplexity of its own answer": lambda row: row.output.perplexity,
            "log10 of 1/P(own answer)": lambda row: row.output.log10_inverse_probability,
            "ROUGE-L to the explanation": lambda row: _number(row.rouge_l),
            "edit similarity to the explanation": lambda row: _number(row.edit_similarity),
        }
        for name, measure in measures.items():
            pairs = [(measure(a), measure(b)) for a, b in zip(rows, again, strict=True)]
            whole = [pair for pair in pairs if all(math.isfinite(value) for value in pair)]
            if len(whole) > 1:
                changes[name] = paired_change([a for a, _ in whole], [b for _, b in whole])
    return LeakageAudit(rows, changes)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _sha256(question: Question) -> str:
    """Of what the measures depend on: the question's text and its explanation."""
    text = json.dumps([question.to_prompt_string(), question.explanation])
    return hashlib.sha256(text.encode()).hexdigest()


def _audit(memory: CausalMemory, question: Question, max_tokens: int, stemmed: bool) -> QuestionAudit:
    try:
        text = memory.audit_text(question.to_prompt_string(), stemmed=stemmed)
        output = memory.audit_output(question, max_tokens)
    except DataError as error:
        raise DataError(f"{question.id}: {error}") from None
    explained = question.explanation
    return QuestionAudit(
        question.id,
        text,
        output,
        rouge_l(output.output, explained, stemmed) if explained else None,
        edit_similarity(output.output, explained) if explained else None,
    )


def _audited(
    path: Path, how: Mapping[str, Any], hashes: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], QuestionAudit]:
    """What an earlier call wrote in the same way of the same texts; the half line of a killed one is cut off.

    `hashes` has the SHA-256 of what is to be audited by kind and id.
    """
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    found = {}
    for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            other = [key for key, value in how.items() if row[key] != value]
            text, output = TextAudit(**_numbers(row["text"])), OutputAudit(**_numbers(row["output"]))
            place, sha256 = (row["kind"], row["id"]), row["sha256"]
            found[place] = QuestionAudit(row["id"], text, output, row["rouge_l"], row["edit_similarity"])
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}, line {number} is no line of a leakage audit; use another file"
            ) from None
        if other:
            key = other[0]
            raise DataError(f"{path} is an audit with {key} {row[key]!r}, not {how[key]!r}; use another file")
        if hashes.get(place, sha256) != sha256:
            raise DataError(
                f"{path} is an audit of another text of {place[1]} ({place[0]}); use another file"
            )
    return found


_ENDLESS = ("perplexity", "log10_inverse_probability")  # beyond a float; the others are NaN of a short text


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON, which has neither NaN nor infinity: null instead."""
    return {
        name: _plain(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in values.items()
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `_plain` was given."""
    return {
        name: (math.inf if name in _ENDLESS else math.nan) if value is None else value
        for name, value in values.items()
    }
