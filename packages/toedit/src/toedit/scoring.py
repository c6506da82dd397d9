"""log P of every token and the top tokens of the candidates, without ever holding the logits of all tokens.

    log P(x) = z_x - logsumexp(z),   z = head(h)

The head runs over a few hundred rows at a time. Of each chunk [rows, V] one number a row is kept, and the k
best tokens of those rows alone that fulfil the condition: memory is O(chunk x V), not O(tokens x V).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from toedit.config import EditConfig
from toedit.editing import Scores, fulfils


@torch.inference_mode()
def score_rows(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    cfg: EditConfig,
    chunk: int,
) -> Scores:
    """The scores of N independent rows.

    `hidden` (N, d) goes through `head` to logits (n, V), `chunk` rows at a time; `targets` int64 (N) are the
    tokens that they are to predict, on the same device. A row whose logits are NaN or infinite gets NaN.
    """
    log_p: list[np.ndarray] = []
    top: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, len(targets), chunk):
        logits = head(hidden[start : start + chunk])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        normaliser = logits.logsumexp(-1)
        gathered = logits.gather(1, targets[start : start + chunk, None])[:, 0] - normaliser
        # A token may have no chance at all (-inf), but a row of them is no distribution.
        found = gathered.masked_fill(~normaliser.isfinite(), torch.nan).numpy(force=True)
        rows = np.flatnonzero(fulfils(found, cfg))
        log_p.append(found)
        if len(rows):
            top.append((rows + start, *_top(logits, normaliser, rows, cfg.top_k)))
    if not top:
        empty = np.empty((0, cfg.top_k))
        return Scores(_joined(log_p), np.empty(0, np.int64), empty.astype(np.int64), empty.astype(np.float32))
    return Scores(_joined(log_p), *(np.concatenate(part) for part in zip(*top, strict=True)))


def _top(
    logits: torch.Tensor, normaliser: torch.Tensor, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    chosen = torch.from_numpy(rows).to(logits.device)
    best, ids = logits[chosen].topk(k, dim=-1)
    return ids.numpy(force=True), (best - normaliser[chosen, None]).numpy(force=True)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
