"""The distribution Q_i of a new token: a set of candidate tokens, and a temperature (sections 2.1 and 2.5).

Everything works on the m candidates of a document at once: `top_ids` [m, k] and `top_log_p` [m, k] hold the
k >= 1 most probable tokens there, most probable first, with their log probabilities under the prior,
normalised over the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from toedit.config import EditConfig

# Sums and comparisons of float32 probabilities are known up to about this.
_SLACK = 1e-6


def log_weights(
    original: NDArray[np.int64],
    top_ids: NDArray[np.int64],
    top_log_p: NDArray[np.floating],
    cfg: EditConfig,
    specials: Collection[int] = (),
) -> NDArray[np.float64]:
    """log q [m, k] up to a constant a row; -inf for the tokens that cannot be drawn.

    `original` [m] is the token in the text; it counts for `exclude_original` only. Rejection sampling needs
    no loop: tokens that are drawn with q0 and accepted with probability a follow q0 a, normalised.
    """
    log_p = top_log_p.astype(np.float64)
    weights = log_p / cfg.temperature
    if cfg.sampler == "rejection":
        assert cfg.rejection_temperature is not None  # EditConfig has settled it
        weights += log_p / cfg.rejection_temperature
    outside = ~_in_set(log_p, cfg)
    if cfg.avoid_specials and specials:
        outside |= np.isin(top_ids, np.fromiter(specials, np.int64))
    if cfg.exclude_original:
        outside |= top_ids == original[:, None]
    weights[outside] = -np.inf
    return weights


def _in_set(log_p: NDArray[np.float64], cfg: EditConfig) -> NDArray[np.bool_]:
    if cfg.sampler == "top_p":
        assert cfg.top_p is not None
        p = np.exp(log_p)
        return np.cumsum(p, axis=1) - p < cfg.top_p - _SLACK  # what came before does not reach it yet
    if cfg.sampler == "min_p":
        assert cfg.min_p is not None
        return log_p >= log_p[:, :1] + np.log(cfg.min_p) - _SLACK
    return np.ones(log_p.shape, dtype=bool)


def probabilities(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """q [m, k] of the `log_weights`; a row of zeros where nothing can be drawn."""
    largest = weights.max(axis=1, keepdims=True)
    q = np.exp(weights - np.where(np.isfinite(largest), largest, 0.0))
    return q / np.maximum(q.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)


def swap_probability(
    original: NDArray[np.int64], top_ids: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The probability [m], 1 - q(original), that a draw changes the token; 0 where nothing can be drawn."""
    return np.where(top_ids == original[:, None], 0.0, probabilities(weights)).sum(axis=1)


def draw(weights: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rank [m] drawn from q by Gumbel's trick, argmax(log q + noise); -1 where nothing can be drawn."""
    rank = np.argmax(weights + noise, axis=1)
    return np.where(np.isfinite(weights).any(axis=1), rank, -1)
