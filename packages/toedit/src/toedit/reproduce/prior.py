"""T2, T3: what SmolLM2 says of human text, and what editing it again and again does to that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lmlab.cache import built_once, file_fingerprint, fingerprint
from tenfold import Trial, TrialContext
from tenfold.data import get
from toedit.backends.base import Backend
from toedit.config import EditConfig
from toedit.documents import Document, EditResult, or_raise
from toedit.editing import Scores
from toedit.editor import Editor
from toedit.reproduce.claims import PRIOR
from toedit.reproduce.synthesis import synthetic_texts
from toedit.reproduce.texts import human_texts
from toedit.statistics import EditStats
from toedit.windows import Window

EDITED_SPLIT = "train"
"""Of the documentation, since T7 trains on its edit."""

EXAMPLES = 12
CONTEXT = 40
RESAMPLES = 2000


class PriorConfig(BaseModel):
    """The sizes of T2 and T3; tokens are those of SmolLM2, of each corpus."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int = Field(gt=0, description="of each corpus: T2 asks for its histogram, T3 edits some of them")
    synthetic_tokens: int = Field(gt=0, description="of synthetic text, for the distribution of perplexities")
    characters: int = Field(gt=0, description="of the longest document")
    generations: int = Field(gt=1)
    window: int = Field(gt=1)


class Remembering:
    """A backend that computes the scores of a window once: most texts are the same after an edit."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.vocab_size, self.max_window = backend.vocab_size, backend.max_window
        self.dtype, self.workload = backend.dtype, backend.workload
        self._known: dict[tuple[bytes, int, float, int], Scores] = {}

    def score(self, windows: Sequence[Window], cfg: EditConfig) -> list[Scores]:
        """See `Backend.score`; thresholds and `top_k` of `cfg` are all that scores depend on here."""
        keys = [(window.ids.tobytes(), window.first, cfg.threshold, cfg.top_k) for window in windows]
        new = {key: window for key, window in zip(keys, windows, strict=True) if key not in self._known}
        self._known.update(zip(new, self.backend.score(list(new.values()), cfg), strict=True))
        return [self._known[key] for key in keys]


@cache
def prior_editor(window: int) -> Editor:
    """SmolLM2 with the official script's rule."""
    config = EditConfig.preset("official", window=window, overlap=window // 8)
    editor = Editor.from_pretrained(str(get(PRIOR)), config)
    return Editor(Remembering(editor.backend), editor.tokenizer.base, config)


def prior_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Edit each of `corpora` {name: {corpus, split, generations}} again and again; a `summary` of each.

    The first edit of "docs" is kept for T6 and T7. With `synthesis` the perplexities of synthetic texts too.
    """
    settings = trial.settings
    sizes = PriorConfig(**settings["sizes"])
    found: dict[str, Any] = {"corpora": {}}
    for done, (name, part) in enumerate(settings["corpora"].items()):
        context.progress(done, len(settings["corpora"]))
        source = source_texts(part["corpus"], part["split"], sizes)
        history = edit_again(prior_editor(sizes.window), source, part["generations"])
        if name == "docs":
            _keep(part["corpus"], sizes, source, [result.text for result in history[0]])
        found["corpora"][name] = summary(source, history)
    if settings["synthesis"] is not None:
        texts = synthetic_texts(settings["synthesis"])
        found["synthetic_ppl"] = _perplexities(prior_editor(sizes.window), texts, sizes.synthetic_tokens)
    return found


def source_texts(corpus: str, split: str, sizes: PriorConfig) -> list[str]:
    """The human texts that are edited."""
    tokenizer = prior_editor(sizes.window).tokenizer.base
    return human_texts(corpus, split, tokenizer, sizes.tokens, sizes.characters)


def edit_again(editor: Editor, texts: Sequence[str], generations: int) -> list[list[EditResult]]:
    """The results of each generation, a document each; generation n draws with seed n - 1."""
    history = []
    config = editor.config
    for generation in range(generations):
        editor.config = config.replace(seed=config.seed + generation)
        found = editor.edit_stream(Document(index, text) for index, text in enumerate(texts))
        history.append([or_raise(outcome) for outcome in found])
        texts = [result.text for result in history[-1]]
    editor.config = config
    return history


def summary(source: Sequence[str], history: Sequence[Sequence[EditResult]]) -> dict[str, Any]:
    """Plain JSON: the statistics of each generation, tokens and candidates of each document, examples."""
    examples = [
        {
            "before": text[max(0, edit.start - CONTEXT) : edit.start],
            "old": edit.old,
            "new": edit.new,
            "after": text[edit.end : edit.end + CONTEXT],
        }
        for text, result in zip(source, history[0], strict=True)
        for edit in result.edits
    ]
    return {
        "stats": [sum((result.stats for result in results), EditStats()).to_dict() for results in history],
        "tokens": [[result.n_tokens for result in results] for results in history],
        "candidates": [[result.n_candidates for result in results] for results in history],
        "ppl": [result.stats.perplexity for result in history[0] if result.stats.n_scored],
        "examples": examples[:EXAMPLES],
    }


def edited_texts(corpus: str, sizes: PriorConfig) -> tuple[list[str], list[str]]:
    """(source, edited) training texts of the first generation: what the prior's trial kept, or made anew."""

    def build(folder: Path) -> None:
        source = source_texts(corpus, EDITED_SPLIT, sizes)
        (results,) = edit_again(prior_editor(sizes.window), source, 1)
        _write(folder, source, [result.text for result in results])

    folder = built_once("toedit-edited", corpus, _key(corpus, sizes), build)
    pairs = json.loads((folder / "texts.json").read_text("utf-8"))
    return pairs["source"], pairs["edited"]


def prior_metrics(found: Mapping[str, Any]) -> dict[str, list[float] | float]:
    """The numbers of the claims T2 and T3, from the summaries of the corpora."""
    metrics: dict[str, list[float] | float] = {}
    leads = {}
    for corpus, summed in found.items():
        stats = EditStats.from_dict(summed["stats"][0])
        leads[corpus] = bin_leads(stats.histogram)
        metrics[f"candidate_share_{corpus}"] = stats.candidate_rate
        metrics[f"change_share_{corpus}"] = stats.change_rate
        metrics[f"mean_swap_{corpus}"] = stats.mean_swap_probability
    outside = [lead for corpus, lead in leads.items() if corpus != "docs"]
    for place, name in enumerate(("first", "last")):
        metrics[f"{name}_bin_lead_docs"] = leads["docs"][place]
        if outside:
            metrics[f"{name}_bin_lead_outside"] = min(lead[place] for lead in outside)
    edited = {"docs": ["docs"], "outside": [name for name in ("gsm8k", "wikitext2") if name in found]}
    for where, corpora in edited.items():
        if corpora:
            steps, highs = share_steps([found[corpus] for corpus in corpora])
            metrics[f"candidate_share_steps_{where}"] = steps
            metrics[f"candidate_share_steps_high_{where}"] = highs
    return metrics


def bin_leads(histogram: Sequence[int]) -> tuple[float, float]:
    """The first bin less the largest other one, the last less the mean of bins 7 to 9; shares of all."""
    shares = np.array(histogram) / sum(histogram)
    return float(shares[0] - shares[1:].max()), float(shares[9] - shares[6:9].mean())


def share_steps(summaries: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """How much the share of candidates changes from generation to generation, and the upper ends of the
    95% intervals: documents are drawn with replacement, the same for both generations of a step."""
    tokens, candidates = (
        np.concatenate([np.array(summed[key], dtype=float) for summed in summaries], axis=1)
        for key in ("tokens", "candidates")
    )
    documents = tokens.shape[1]
    drawn = np.random.default_rng(0).integers(documents, size=(RESAMPLES, documents))
    shares = _shares(tokens, candidates, np.arange(documents)[None])[:, 0]
    resampled = _shares(tokens, candidates, drawn)
    highs = np.quantile(np.diff(resampled, axis=0), 0.975, axis=1)
    return np.diff(shares).tolist(), highs.tolist()


def _shares(
    tokens: NDArray[np.float64], candidates: NDArray[np.float64], drawn: NDArray[np.int64]
) -> NDArray[np.float64]:
    return candidates[:, drawn].sum(-1) / tokens[:, drawn].sum(-1)


def _perplexities(editor: Editor, texts: Sequence[str], tokens: int) -> list[float]:
    found: list[float] = []
    for scored in editor.score(list(texts[: max(1, tokens // 100)])):
        if tokens > 0 and len(scored.ids) > 1:
            found.append(float(np.exp(-np.nanmean(scored.log_p.astype(np.float64)))))
        tokens -= len(scored.ids)
    return found


def _keep(corpus: str, sizes: PriorConfig, source: Sequence[str], edited: Sequence[str]) -> None:
    key = _key(corpus, sizes)
    built_once("toedit-edited", corpus, key, lambda folder: _write(folder, source, edited))


def _write(folder: Path, source: Sequence[str], edited: Sequence[str]) -> None:
    texts = {"source": list(source), "edited": list(edited)}
    (folder / "texts.json").write_text(json.dumps(texts, ensure_ascii=False), "utf-8")


def _key(corpus: str, sizes: PriorConfig) -> str:
    here = Path(__file__)
    code = file_fingerprint(*sorted(here.parents[1].glob("*.py")), here, here.with_name("texts.py"))
    return fingerprint(corpus, sizes.model_dump(mode="json"), code)
