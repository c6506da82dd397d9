"""Text files as token ids, and how well a model predicts them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memoryformer.errors import MemoryFormerError

BYTES_PER_TOKEN = 12  # more than any tokenizer needs for ordinary text
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class TextScore:
    """`loss` in nats a predicted token, and in bits a byte of text, which compares tokenizers."""

    loss: float
    bits_per_byte: float
    tokens: int
    bytes: int


def read_text(file: str | Path, limit: int | None = None) -> str:
    """The first `limit` characters of a UTF-8 text file. Raises `MemoryFormerError` if it cannot be read."""
    try:
        with Path(file).open(encoding="utf-8") as handle:
            return handle.read(limit)
    except (OSError, UnicodeDecodeError) as error:
        raise MemoryFormerError(f"the text {file} cannot be read: {error}") from error


def token_sequences(file: str | Path, tokenizer: Any, tokens: int, length: int) -> Tensor:
    """The first `tokens` tokens of a UTF-8 text, [sequences, length] int64, in whole sequences.

    `tokenizer` is one of transformers. Raises `MemoryFormerError` for a file that cannot be read, or whose
    text is shorter than one sequence.
    """
    text = read_text(file, BYTES_PER_TOKEN * tokens)
    ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:tokens])
    if len(ids) < length:
        raise MemoryFormerError(
            f"the text {file} has {len(ids)} tokens of the {tokens} asked for; a sequence needs {length}"
        )
    return ids[: len(ids) // length * length].view(-1, length)


@torch.no_grad()
def score_text(model: nn.Module, tokenizer: Any, text: str, context_length: int) -> TextScore:
    """Predict each token of `text` but the first, in windows of `context_length` tokens.

    A window begins with the last token of the one before, so that each token is predicted once, from one to
    `context_length` - 1 tokens. The bytes are those of the predicted tokens, as a fast tokenizer tells them.

    Raises `MemoryFormerError` for a text of fewer than two tokens, a context of fewer than two, and a
    tokenizer that is not a fast one.
    """
    if not tokenizer.is_fast:
        raise MemoryFormerError(
            f"{type(tokenizer).__name__} does not say which bytes a token is: use a fast one"
        )
    if context_length < 2:
        raise MemoryFormerError(f"the context is {context_length}; it takes two tokens to predict one")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = torch.tensor(encoded["input_ids"])
    if len(ids) < 2:
        raise MemoryFormerError(f"the text has {len(ids)} tokens; it takes two to predict one")
    stride = context_length - 1
    whole = (len(ids) - 1) // stride
    windows = [ids.unfold(0, context_length, stride)] if whole else []
    if len(ids) - 1 > whole * stride:
        windows.append(ids[None, whole * stride :])
    model.eval()
    nats = sum(
        _nats(model, batch)
        for part in windows
        for batch in part.split(max(1, BATCH_TOKENS // context_length))
    )
    offsets, predicted = encoded["offset_mapping"], len(ids) - 1
    size = len(text[offsets[1][0] : offsets[-1][1]].encode())
    return TextScore(nats / predicted, nats / math.log(2) / size, predicted, size)


def _nats(model: nn.Module, batch: Tensor) -> float:
    batch = batch.to(next(model.parameters()).device)
    logits = model(batch).logits[:, :-1].float()
    return float(nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"))


def find_tasks(tasks: list[str]) -> Any:
    """lm-evaluation-harness's own list of its tasks (extra `eval`), once all of `tasks` are seen to be in it.

    Needs no model, so that a wrong name need not wait for one. Raises `MemoryFormerError` for a task that it
    does not have.
    """
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    unknown = [task for task in tasks if not manager.match_tasks([task])]
    if unknown:
        raise MemoryFormerError(f"lm-eval has no task {', '.join(unknown)}; `lm-eval ls tasks` lists them")
    return manager


def benchmarks(
    model: nn.Module, tokenizer: Any, tasks: list[str], manager: Any, limit: int | None = None
) -> dict[str, Any]:
    """Tasks of lm-evaluation-harness, zero-shot: {task: {metric: value}}; `manager` is from `find_tasks`."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    found = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer), tasks=tasks, limit=limit, task_manager=manager
    )
    return {
        task: {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        for task, metrics in (found or {"results": {}})["results"].items()
    }
