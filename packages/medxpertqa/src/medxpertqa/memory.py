"""Ask a Hugging Face model for what the leakage metrics need: log-probabilities, continuations, answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medxpertqa.errors import DataError, MissingExtraError
from medxpertqa.leakage import log10_inverse_probability, ngram_audit, perplexity, start_points
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

    @classmethod
    def from_pretrained(cls, name: str, device: str = "cpu") -> CausalMemory:
        """Load a model of the hub or a folder; Python code that it brings is not run."""
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise MissingExtraError("the leakage audit of a local model", "leakage") from None
        model: Any = AutoModelForCausalLM.from_pretrained(name)
        return cls(model.to(device), AutoTokenizer.from_pretrained(name))

    def log_probabilities(self, text: str) -> list[float]:
        """Return the natural log-probability of each token of the text after the first."""
        import torch

        ids = self._ids(text)
        if len(ids) < 2:
            raise DataError(f"a text of {len(ids)} tokens has no log-probabilities: give at least 2")
        row = torch.tensor([ids], device=self.model.device)
        with torch.inference_mode():
            logits = self.model(row).logits[0, :-1].float()
        picked = torch.log_softmax(logits, -1).gather(1, row[0, 1:, None])
        return [float(value) for value in picked[:, 0].cpu()]

    def continuations(self, text: str, n: int = 5, k: int = 5) -> tuple[list[str], list[str]]:
        """Return what the model writes after k prefixes of the text, n tokens each, and what the text has."""
        ids = self._ids(text)
        places = start_points(len(ids), n, k)
        predicted = [self._greedy(ids[:place], n)[0] for place in places]
        decode = self.tokenizer.decode
        return [decode(p) for p in predicted], [decode(ids[place : place + n]) for place in places]

    def audit_text(self, text: str, n: int = 5, k: int = 5) -> TextAudit:
        """Audit a text that the model may have been trained on (BenBench)."""
        log_probabilities = self.log_probabilities(text)
        predicted, expected = self.continuations(text, n, k)
        nan = float("nan")
        grams = ngram_audit(predicted, expected) if expected else None
        return TextAudit(
            perplexity(log_probabilities),
            log10_inverse_probability(log_probabilities),
            grams.accuracy if grams else nan,
            grams.edit_similarity if grams else nan,
            grams.rouge_l if grams else nan,
            bool(grams and grams.flagged),
        )

    def audit_output(self, question: Question, max_tokens: int = 256) -> OutputAudit:
        """Let the model go on after "question + Answer:" and measure its certainty (the paper's table 6)."""
        ids = self._ids(question.to_prompt_string() + "\nAnswer:")
        written, log_probabilities = self._greedy(ids, max_tokens)
        return OutputAudit(
            self.tokenizer.decode(written, skip_special_tokens=True),
            perplexity(log_probabilities),
            log10_inverse_probability(log_probabilities),
        )

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit and len(ids) > limit:
            raise DataError(f"a text of {len(ids)} tokens is longer than the model's context of {limit}")
        return ids

    def _greedy(self, ids: Sequence[int], n: int) -> tuple[list[int], list[float]]:
        """The most likely token n times (fewer at the end of the text), each with its log-probability."""
        import torch

        device = self.model.device
        prefix = torch.tensor([list(ids)], device=device)
        out = self.model.generate(
            prefix,
            attention_mask=torch.ones_like(prefix),
            max_new_tokens=n,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            pad_token_id=self.tokenizer.eos_token_id or 0,
        )
        written = out.sequences[0, len(ids) :].tolist()
        log_probabilities = [
            float(torch.log_softmax(logits[0].float(), -1)[token])
            for logits, token in zip(out.logits, written, strict=True)
        ]
        return written, log_probabilities
