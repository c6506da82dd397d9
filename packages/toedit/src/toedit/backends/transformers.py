"""The prior as a model of transformers (or any module that gives logits), on a CPU or a GPU."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import nn

from toedit.backends.loading import load_tokenizer, readable_errors, sources
from toedit.config import EditConfig
from toedit.editing import Scores
from toedit.errors import ToEditError, ToEditWarning
from toedit.packing import Workload, batches
from toedit.scoring import score_rows
from toedit.windows import Window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tensors: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

# Places a forward pass: large enough to fill the processor, small enough for its caches or memory.
_BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
_HEAD_ROWS = {"cpu": 128, "cuda": 2048}
_PROBE = 8
_CLOSE = 1e-3


class TransformersBackend:
    """Scores windows by a causal language model; right padding, which a causal model never looks at.

    `batch_tokens` bounds the places of one forward pass, `head_rows` the rows of logits that exist at a time.
    A model whose logits are more than `head(decoder(ids))` is run as a whole, and its logits are kept. A
    `PeftModel` is scored with its adapters.

    Raises `ToEditError` for a model that is no causal language model, for one that puts tokens of its own
    before the text, and for sizes that are none.
    """

    def __init__(
        self, model: nn.Module, *, batch_tokens: int | None = None, head_rows: int | None = None
    ) -> None:
        config = getattr(model, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            raise ToEditError(
                f"{type(model).__name__} is an encoder-decoder; the prior must be a causal language model"
            )
        self.model = model.eval()
        first = next(model.parameters(), None)
        self.device = torch.device("cpu") if first is None else first.device
        self.dtype = "float32" if first is None else str(first.dtype).removeprefix("torch.")
        _check_sizes(batch_tokens=batch_tokens, head_rows=head_rows)
        self.batch_tokens = batch_tokens or _BATCH_TOKENS.get(self.device.type, 8192)
        self.head_rows = head_rows or _HEAD_ROWS.get(self.device.type, 512)
        self.max_window: int | None = getattr(config, "max_position_embeddings", None)
        self.workload = Workload()
        self._hidden, self._head, self.vocab_size = self._parts()

    @classmethod
    def from_pretrained(
        cls, name: str, cfg: EditConfig, **options: Any
    ) -> tuple[TransformersBackend, PreTrainedTokenizerBase]:
        """The model and its tokenizer, from the hub, a folder, or a GGUF file (or a folder with just one).

        `options` are those of this class and of `AutoModelForCausalLM.from_pretrained`. float32 on a CPU,
        where bfloat16 is several times slower unless there are instructions for it; the checkpoint's own type
        on a GPU.
        """
        from transformers import AutoModelForCausalLM

        own = {key: options.pop(key) for key in ("batch_tokens", "head_rows") if key in options}
        cuda = torch.cuda.is_available()
        settings = {"dtype": "auto" if cuda else torch.float32, **sources(name), **options}
        tokenizer = load_tokenizer(name)
        with readable_errors(name, options):
            model: nn.Module = AutoModelForCausalLM.from_pretrained(**settings)
        if cuda and "device_map" not in options:
            model = model.to("cuda")
        return cls(model, **own), tokenizer

    def score(self, windows: Sequence[Window], cfg: EditConfig) -> list[Scores]:
        """See `Backend.score`. A batch that does not fit into memory is halved; later ones are smaller."""
        scores: dict[int, Scores] = {}
        for batch in batches([len(window.ids) for window in windows], self.batch_tokens):
            found = self._fitting([windows[index] for index in batch], cfg)
            scores.update(zip(batch, found, strict=True))
        return [scores[index] for index in range(len(windows))]

    def _fitting(self, batch: list[Window], cfg: EditConfig) -> list[Scores]:
        try:
            return self._forward(batch, cfg)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            message = str(error).partition("\n")[0]
        # Out of the except clause, whose traceback keeps the tensors alive.
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        longest = len(batch[0].ids)
        if len(batch) == 1:
            raise ToEditError(
                f"a single window of {longest} tokens does not fit into memory ({message}); lower window"
            )
        self.workload.n_halvings += 1
        self.batch_tokens = max(1, min(self.batch_tokens, longest * len(batch)) // 2)
        middle = len(batch) // 2
        return self._fitting(batch[:middle], cfg) + self._fitting(batch[middle:], cfg)

    @torch.inference_mode()
    def _forward(self, batch: list[Window], cfg: EditConfig) -> list[Scores]:
        lengths = [len(window.ids) for window in batch]
        padded = torch.zeros((len(batch), max(lengths)), dtype=torch.long)
        for row, window in enumerate(batch):
            padded[row, : lengths[row]] = torch.from_numpy(window.ids)
        # The row before a token scores it; context and padding have no rows.
        places = [
            torch.arange(window.first - 1, len(window.ids) - 1) + row * padded.shape[1]
            for row, window in enumerate(batch)
        ]
        flat = torch.cat(places)
        targets = padded.flatten()[flat + 1].to(self.device)
        hidden = self._hidden(padded.to(self.device))
        hidden = hidden.flatten(0, 1)[flat.to(hidden.device)]
        scores = score_rows(hidden, targets.to(hidden.device), self._head, cfg, self.head_rows)
        self.workload.add(lengths)
        return _parted(scores, batch)

    def _parts(self) -> tuple[Tensors, Tensors, int]:
        """(tokens to rows, rows to logits, V); rows are logits already if the model is no such pair."""
        # Not token 0, which often is padding with an embedding of zeros.
        known = getattr(self.model, "get_input_embeddings", lambda: None)()
        rows = 1 if known is None else known.weight.shape[0]
        probe = torch.arange(1, _PROBE + 1, device=self.device)[None] % rows
        with torch.inference_mode():
            logits = self.model(probe).logits
            if logits.shape[1] != probe.shape[1]:
                raise ToEditError(
                    f"{type(self.model).__name__} gives logits for {logits.shape[1]} tokens of a text of "
                    f"{probe.shape[1]}: it may put a learned prompt before it, and cannot be a prior so"
                )
            pair = self._decoder_and_head()
            if pair is not None:
                hidden, head = pair
                raw = head(hidden(probe))
                # Some models multiply their logits by a constant.
                scale = float((logits.double() * raw.double()).sum() / raw.double().square().sum())
                # A scale of NaN says that the logits are no numbers: the documents will tell, not this probe.
                if not abs(scale - 1) >= _CLOSE:
                    scale = 1.0
                scaled = raw.float() * scale
                if torch.allclose(scaled, logits.float(), rtol=_CLOSE, atol=_CLOSE, equal_nan=True):
                    return hidden, head if scale == 1.0 else lambda rows: head(rows) * scale, logits.shape[-1]
                warnings.warn(
                    f"{type(self.model).__name__} does more to its logits than its head; all logits of a "
                    "batch are kept in memory",
                    ToEditWarning,
                    stacklevel=4,
                )
        return lambda ids: self.model(ids).logits, lambda rows: rows, logits.shape[-1]

    def _decoder_and_head(self) -> tuple[Tensors, Tensors] | None:
        model: Any = self.model
        if hasattr(model, "get_base_model"):  # of PEFT, whose own `base_model` is the tuner and no decoder
            model = model.get_base_model()
        decoder = getattr(model, "base_model", model)
        output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        if output is None or decoder is model:
            return None
        cap = getattr(model.config, "final_logit_softcapping", None)

        def hidden(ids: torch.Tensor) -> torch.Tensor:
            return decoder(input_ids=ids, use_cache=False).last_hidden_state

        def head(rows: torch.Tensor) -> torch.Tensor:
            logits = output(rows)
            return logits if cap is None else torch.tanh(logits / cap) * cap

        return hidden, head


def _check_sizes(**sizes: object) -> None:
    for name, size in sizes.items():
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ToEditError(f"{name} is {size!r}; it must be a whole number, at least 1")


def _parted(scores: Scores, batch: Sequence[Window]) -> list[Scores]:
    """The scores of each window, from those of all their scored tokens one after the other."""
    ends = np.cumsum([len(window.ids) - window.first for window in batch])
    parts = []
    for window, start, end in zip(batch, [0, *ends[:-1]], ends, strict=True):
        log_p = np.full(len(window.ids), np.nan, dtype=scores.log_p.dtype)
        log_p[window.first :] = scores.log_p[start:end]
        own = slice(*np.searchsorted(scores.rows, [start, end]))
        rows = scores.rows[own] - start + window.first
        parts.append(Scores(log_p, rows, scores.top_ids[own], scores.top_log_p[own]))
    return parts


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "DefaultCPUAllocator" in str(error)  # on a CPU torch has no class for it
