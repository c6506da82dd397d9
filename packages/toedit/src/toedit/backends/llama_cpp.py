"""The prior as a GGUF file, run by llama.cpp through llama-cpp-python: quantized weights on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toedit.backends.loading import gguf_file, load_tokenizer, readable_errors
from toedit.config import EditConfig
from toedit.editing import Scores
from toedit.errors import MissingExtraError, ToEditError
from toedit.packing import Workload
from toedit.scoring import score_rows
from toedit.windows import Window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HEAD_ROWS = 128
_PROBE = 2


class LlamaCppBackend:
    """Scores windows by `llama_cpp.Llama`, one after the other.

    The model must be made with `logits_all=True`; llama-cpp-python then keeps the logits of a whole window,
    so memory is O(window x V) here. Products with quantized weights are rounded: log probabilities of
    SmolLM2-135M differ from those of the same file in transformers by 0.04 on average, and by 0.26 at most.

    Raises `ToEditError` for a model without `logits_all`.
    """

    def __init__(self, llama: Any) -> None:
        self.llama = llama
        llama.reset()
        llama.scores[:_PROBE] = np.nan
        llama.eval([0] * _PROBE)
        if np.isnan(llama.scores[:_PROBE]).any():
            raise ToEditError(
                "the model keeps only the last token's logits; make it with Llama(..., logits_all=True)"
            )
        # n_ctx() can be larger: llama.cpp rounds it up, the array has what was asked for.
        self.max_window: int | None = len(llama.scores)
        self.vocab_size: int = llama.n_vocab()
        self.dtype = "llama.cpp's quantized arithmetic"
        self.workload = Workload()

    @classmethod
    def from_pretrained(
        cls, name: str, cfg: EditConfig, **options: Any
    ) -> tuple[LlamaCppBackend, PreTrainedTokenizerBase]:
        """The model of a GGUF file (or a folder with just one) and its tokenizer.

        `options` are those of `llama_cpp.Llama`; `n_ctx` is the config's window.

        Raises `ToEditError` if there is no such file.
        """
        try:
            from llama_cpp import Llama
        except ImportError as error:
            raise MissingExtraError(
                "the backend llama_cpp needs llama-cpp-python: pip install 'toedit[llama-cpp]'"
            ) from error
        file = gguf_file(name)
        if file is None:
            raise ToEditError(f"the backend llama_cpp needs a GGUF file; {name!r} is none and holds none")
        tokenizer = load_tokenizer(name)
        settings = {"n_ctx": cfg.window, "verbose": False, **options}
        with readable_errors(name, options):
            llama = Llama(model_path=str(file), logits_all=True, **settings)
        return cls(llama), tokenizer

    def score(self, windows: Sequence[Window], cfg: EditConfig) -> list[Scores]:
        """See `Backend.score`."""
        return [self._score(window, cfg) for window in windows]

    def _score(self, window: Window, cfg: EditConfig) -> Scores:
        self.llama.reset()
        self.llama.eval(window.ids[:-1].tolist())
        logits = torch.from_numpy(self.llama.scores[window.first - 1 : len(window.ids) - 1])
        targets = torch.from_numpy(window.ids[window.first :])
        found = score_rows(logits, targets, lambda rows: rows, cfg, _HEAD_ROWS)
        self.workload.add_unpadded([len(window.ids)])
        log_p = np.full(len(window.ids), np.nan, dtype=np.float32)
        log_p[window.first :] = found.log_p
        return Scores(log_p, found.rows + window.first, found.top_ids, found.top_log_p)
