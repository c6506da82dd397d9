"""Log-probabilities from vLLM: an implicit PRM is a plain causal LM, so a plain engine serves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from implicit_prm.backends.batching import Row
from implicit_prm.backends.reading import read_rows
from implicit_prm.errors import ImplicitPRMError, MissingExtraError

# For a prompt's log-probs vLLM makes the float32 log-softmax of all tokens of a step, which its plan of
# the memory leaves out: with 128k words 4,096 tokens are 2 GB.
_STEP_TOKENS = 4096


def load_engine(name: str, **options: Any) -> Any:
    """A `vllm.LLM` of a model's folder or hub id; `options` are those of `vllm.LLM`.

    Raises `ImplicitPRMError` where vLLM is not installed or cannot load the model.
    """
    try:
        from vllm import LLM
    except ImportError as error:
        raise MissingExtraError("vLLM is not installed: pip install 'implicit-prm[vllm]'") from error
    options.setdefault("max_num_batched_tokens", _STEP_TOKENS)
    try:
        return LLM(model=name, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ImplicitPRMError(f"vLLM could not load {name!r}: {error}") from error


def check_engine(llm: Any) -> Any:
    """The engine's `ModelConfig`. Raises `ImplicitPRMError` if its log-probs are not the model's own."""
    config = llm.llm_engine.vllm_config.model_config
    if config.logprobs_mode != "raw_logprobs":
        raise ImplicitPRMError(
            f"the engine was built with logprobs_mode={config.logprobs_mode!r}; rewards need log-probs at "
            "temperature 1 with nothing cut: build it with vllm.LLM(..., logprobs_mode='raw_logprobs')"
        )
    return config


class VLLMBackend:
    """A `LogProbBackend` on a `vllm.LLM`, which batches by itself.

    A row may have `max_model_len - 1` tokens, since vLLM insists on writing one more. Requests for prompt
    log-probs never read the prefix cache, so an engine with prefix caching gives the same numbers.

    Raises `ImplicitPRMError` for an engine whose `logprobs_mode` is another than "raw_logprobs".
    """

    def __init__(self, llm: Any) -> None:
        config = check_engine(llm)
        self.llm = llm
        self.vocab_size: int = config.get_vocab_size()
        self.max_length: int = config.max_model_len - 1

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> VLLMBackend:
        """Load the engine by `load_engine`, which raises the errors; `options` are those of `vllm.LLM`."""
        return cls(load_engine(name, **options))

    def token_log_probs(
        self, input_ids: Sequence[Sequence[int]], completion_mask: Sequence[Sequence[bool]]
    ) -> list[npt.NDArray[np.float32]]:
        """See `LogProbBackend.token_log_probs`. Raises `ImplicitPRMError` for rows that do not fit."""
        rows = read_rows(input_ids, completion_mask, vocab_size=self.vocab_size, max_length=self.max_length)
        from vllm import SamplingParams, TokensPrompt

        outputs = iter(
            self.llm.generate(
                [TokensPrompt(prompt_token_ids=list(row.ids)) for row in rows if row is not None],
                SamplingParams(
                    max_tokens=1, temperature=0.0, prompt_logprobs=0, flat_logprobs=True, detokenize=False
                ),
                use_tqdm=False,
            )
        )
        return [np.empty(0, dtype=np.float32) if row is None else _marked(row, next(outputs)) for row in rows]


def _marked(row: Row, output: Any) -> npt.NDArray[np.float32]:
    """vLLM gives one number a token, the token's own, and none for the first."""
    log_probs = np.asarray(output.prompt_logprobs.logprobs, dtype=np.float32)
    return log_probs[np.asarray(row.marks[1:])]
