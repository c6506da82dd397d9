"""What a rollout engine is: it writes responses with the policy's weights, and takes new ones each step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from implicit_prime.errors import PrimeError, PrimeWarning

if TYPE_CHECKING:
    from torch import nn

    from implicit_prm.sampling import Sample

# The mean |difference| of log-probs a token. Other kernels in bfloat16 give 0.01 to 0.03; weights of a few
# steps ago at the paper's learning rate hardly more, so that what is found are engines never synchronised.
_NOTICEABLE_DRIFT = 0.1
_IMPOSSIBLE_DRIFT = 1.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How responses are drawn; with the same seed the same ones again, None: fresh ones."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Rollouts:
    """B = P n responses: the n of the first prompt, then those of the next.

    ids        tokens of each, the end token included where it was written
    log_probs  float32 [T] each: of every token under the policy at temperature 1 with nothing cut, whatever
               it was drawn with
    truncated  whether it was cut off, and so has no end token
    texts      what was written, without the end token: what a verifier reads
    """

    ids: list[tuple[int, ...]]
    log_probs: list[npt.NDArray[np.float32]]
    truncated: list[bool]
    texts: list[str]

    @classmethod
    def from_samples(cls, samples: Sequence[Sequence[Sample]]) -> Rollouts:
        """The samples of each prompt. Raises `PrimeError` if they come without log-probs."""
        flat = [sample for row in samples for sample in row]
        log_probs = [sample.log_probs for sample in flat if sample.log_probs is not None]
        if len(log_probs) < len(flat):
            raise PrimeError(
                "the engine gives no log-probs of the tokens that it drew; serve the policy by vLLM"
            )
        return cls(
            ids=[sample.token_ids for sample in flat],
            log_probs=log_probs,
            truncated=[sample.truncated for sample in flat],
            texts=[sample.text for sample in flat],
        )


@runtime_checkable
class RolloutEngine(Protocol):
    """Writes responses. A step is `sync_weights`, any number of `generate`, then `rest`.

    Of several processes each has an engine and draws its own responses; `sync_weights` is called by all of
    them together.
    """

    def sync_weights(self, model: nn.Module) -> None:
        """Write with the weights that `model` has now, its active adapters included."""
        ...

    def generate(self, prompt_ids: Sequence[Sequence[int]], n: int, sampling: Sampling) -> Rollouts:
        """Draw `n` responses to each prompt.

        Raises `implicit_prm.ImplicitPRMError` for settings out of range, and for prompts that have no tokens
        or do not fit into the model's context.
        """
        ...

    def rest(self) -> None:
        """Give back the memory that only rollouts need; `sync_weights` comes before the next `generate`."""
        ...


def log_prob_drift(
    ours: Sequence[npt.NDArray[np.float32]], engine: Sequence[npt.NDArray[np.float32]]
) -> float:
    """Mean |difference| over all tokens between the trainer's log-probs and the engine's, a row a response.

    0 where there are no tokens. Raises `PrimeError` for rows of other lengths.
    """
    lengths = [[len(row) for row in rows] for rows in (ours, engine)]
    if lengths[0] != lengths[1]:
        raise PrimeError(f"log-probs of {lengths[0]} and {lengths[1]} tokens cannot be compared")
    if not sum(lengths[0]):
        return 0.0
    return float(np.abs(np.concatenate(ours, dtype=np.float64) - np.concatenate(engine)).mean())


def check_drift(drift: float) -> None:
    """Warn (`PrimeWarning`) of a `log_prob_drift` that rounding does not explain.

    Raises `PrimeError` from 1 on, and for NaN: the engine then writes with other weights than the trainer's.
    """
    if not drift < _IMPOSSIBLE_DRIFT:
        raise PrimeError(
            f"the rollout engine's log-probs differ from the trainer's by {drift:.3g} a token: it writes "
            "with other weights; do both load the same model, and does the weight sync reach the engine?"
        )
    if drift > _NOTICEABLE_DRIFT:
        warnings.warn(
            f"the rollout engine's log-probs differ from the trainer's by {drift:.3g} a token, more than "
            "rounding explains: are its weights those of this step, and its dtype the trainer's?",
            PrimeWarning,
            stacklevel=2,
        )
