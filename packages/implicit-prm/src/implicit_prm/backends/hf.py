"""Log-probabilities by transformers: any causal language model, on the device where it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from implicit_prm.backends.batching import Block, Piece, Row, plan
from implicit_prm.backends.prompts import PromptCache, can_share_prompts, padded
from implicit_prm.backends.reading import read_rows
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.logprobs import chosen_log_probs
from implicit_prm.pretrained import max_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_IGNORED = -100


@dataclass(slots=True)
class Workload:
    """What a backend has been asked and what it has computed.

    rows and tokens: as asked, every row with its prompt up to its last marked token; computed: positions
    that went through the model, padding included; padding: those of them that stood for no token.
    """

    rows: int = 0
    tokens: int = 0
    computed: int = 0
    padding: int = 0

    @property
    def padding_waste(self) -> float:
        """Share of the computed positions that stood for no token."""
        return self.padding / self.computed if self.computed else 0.0


class HFBackend:
    """A `LogProbBackend` on a causal language model of transformers, also one wrapped by PEFT.

    Rows go through in batches of at most `batch_size` rows of like length. Where many rows begin with one
    prompt, it goes through once and its keys and values serve all of them; `share_prompts=False` forbids it.
    Models whose layers do not all attend to the whole past (sliding windows, state spaces) never share.
    The result depends on neither, but for rounding: expect 1e-5 in float32.

    Raises `ImplicitPRMError` for `batch_size` below 1.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        batch_size: int = 8,
        share_prompts: bool = True,
        chunk_size: int = 1024,
    ) -> None:
        if batch_size < 1:
            raise ImplicitPRMError(f"batch_size must be at least 1, not {batch_size}")
        self.model = model
        self.batch_size = batch_size
        self.share_prompts = share_prompts and can_share_prompts(model)
        self.chunk_size = chunk_size
        self.max_length = max_positions(model)
        self.workload = Workload()

    def token_log_probs(
        self, input_ids: Sequence[Sequence[int]], completion_mask: Sequence[Sequence[bool]]
    ) -> list[npt.NDArray[np.float32]]:
        """See `LogProbBackend.token_log_probs`. The model scores in evaluation mode, whatever mode it is in.

        Raises `ImplicitPRMError` for rows without a mask of their length, a marked first token, token ids
        that the model does not have, and a single row that does not fit into memory.
        """
        vocab_size = len(self.model.get_input_embeddings().weight)  # type: ignore[arg-type]
        rows = read_rows(input_ids, completion_mask, vocab_size=vocab_size)
        # Samples of one prompt are often equal: equal rows are computed once.
        unique = dict.fromkeys(row for row in rows if row is not None)
        self.workload.rows += len(rows)
        self.workload.tokens += sum(len(row.ids) for row in rows if row is not None)
        scores: dict[Row, npt.NDArray[np.float32]] = {}
        with evaluating(self.model), torch.no_grad():
            self._score(list(unique), self.batch_size, scores)
        return [np.zeros(0, np.float32) if row is None else scores[row] for row in rows]

    def _score(self, rows: list[Row], batch_size: int, scores: dict[Row, npt.NDArray[np.float32]]) -> None:
        for block in plan(rows, batch_size, self.share_prompts):
            members = [piece.row for batch in block.batches for piece in batch]
            found = self._block_or_none(block, batch_size)
            if found is not None:
                scores.update(zip(members, found, strict=True))
            elif batch_size > 1:
                self._score(members, batch_size // 2, scores)
            else:
                longest = max(len(row.ids) for row in members)
                raise ImplicitPRMError(
                    f"a single row of up to {longest} tokens does not fit into memory; "
                    "set a lower max_length, or load the model in bfloat16"
                )

    def _block_or_none(self, block: Block, batch_size: int) -> list[npt.NDArray[np.float32]] | None:
        """The log-probs of the block's rows in its order, None where memory did not suffice."""
        try:
            cache = None
            if block.prompts:
                cache = PromptCache.compute(self.model, block.prompts, batch_size)
                self._count(cache.computed, cache.tokens)
            found = torch.cat([self._batch(batch, cache) for batch in block.batches])
        except torch.OutOfMemoryError:
            # Outside of this clause, as the error holds on to the tensors that filled the memory.
            return None
        counts = [sum(piece.row.marks) for batch in block.batches for piece in batch]
        # One copy to the host a block: a copy a batch would make the device wait for every one.
        return np.split(found.float().cpu().numpy(), np.cumsum(counts)[:-1])

    def _batch(self, batch: list[Piece], cache: PromptCache | None) -> Tensor:
        """Log-probs of all marked tokens of a batch, row after row."""
        tokens = padded([piece.fed for piece in batch], 0, self.model.device)
        targets = padded([piece.targets for piece in batch], _IGNORED, self.model.device)
        self._count(tokens.numel(), sum(len(piece.fed) for piece in batch))
        # Padding comes after the tokens, where a causal model does not see it: no mask is needed.
        inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": False}
        if cache is not None:
            inputs = cache.followed_by(tokens, [piece.prompt for piece in batch])
        places = targets != _IGNORED
        return chosen_log_probs(self.model, inputs, targets[places], places, self.chunk_size)

    def _count(self, computed: int, tokens: int) -> None:
        self.workload.computed += computed
        self.workload.padding += computed - tokens


def without_dropout(model: torch.nn.Module) -> None:
    """Switch dropout off for good: scores of a response before and after a step must be of one function."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Every module in evaluation mode (no dropout), and back in the mode that it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
