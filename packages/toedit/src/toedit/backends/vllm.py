"""The prior served by vLLM, which batches by itself: prompts in, log probabilities of the prompts out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toedit.backends.loading import load_tokenizer, readable_errors
from toedit.config import EditConfig
from toedit.editing import Scores, fulfils
from toedit.errors import MissingExtraError, ToEditError, ToEditWarning
from toedit.packing import Workload
from toedit.windows import Window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# vLLM allows so many log probabilities a token unless told otherwise.
_MAX_LOGPROBS = 20
# It takes the log-softmax of a whole step's tokens, which its memory plan leaves out.
_STEP_TOKENS = 4096


class VllmBackend:
    """Scores windows by `vllm.LLM`; the window is `max_model_len - 1`, since it insists on one more token.

    Raises `ToEditError` for an engine with prefix caching, with which the log probabilities of a prompt
    depend on those before it.
    """

    def __init__(self, llm: Any) -> None:
        config = llm.llm_engine.vllm_config
        if config.cache_config.enable_prefix_caching:
            raise ToEditError(
                "with prefix caching vLLM's scores depend on the order of requests; build the engine with "
                "vllm.LLM(..., enable_prefix_caching=False)"
            )
        self.llm = llm
        self.max_window: int | None = config.model_config.max_model_len - 1
        self.vocab_size: int = config.model_config.get_vocab_size()
        self.max_logprobs: int = config.model_config.max_logprobs
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self.workload = Workload()

    @classmethod
    def from_pretrained(
        cls, name: str, cfg: EditConfig, **options: Any
    ) -> tuple[VllmBackend, PreTrainedTokenizerBase]:
        """The engine and the tokenizer; `options` are those of `vllm.LLM`.

        Prefix caching is off, and `max_logprobs` is raised to the config's `top_k` where it is lower.
        """
        try:
            from vllm import LLM
        except ImportError as error:
            raise MissingExtraError("the backend vllm needs vLLM: pip install 'toedit[vllm]'") from error
        if options.pop("enable_prefix_caching", False):
            warnings.warn(
                "prefix caching is turned off: with it vLLM's scores depend on the order of requests",
                ToEditWarning,
                stacklevel=3,
            )
        options["max_logprobs"] = max(options.get("max_logprobs", _MAX_LOGPROBS), cfg.top_k)
        options.setdefault("max_num_batched_tokens", _STEP_TOKENS)
        tokenizer = load_tokenizer(name)
        with readable_errors(name, options):
            llm = LLM(model=name, enable_prefix_caching=False, **options)
        return cls(llm), tokenizer

    def score(self, windows: Sequence[Window], cfg: EditConfig) -> list[Scores]:
        """See `Backend.score`. Raises `ToEditError` if the engine allows fewer than `top_k` tokens."""
        from vllm import SamplingParams, TokensPrompt

        k = cfg.top_k if cfg.threshold <= 1 else 0
        if self.max_logprobs not in (-1, None) and k > self.max_logprobs:
            raise ToEditError(
                f"top_k is {k}, but the engine gives {self.max_logprobs} log probabilities; build it with "
                f"vllm.LLM(..., max_logprobs={k})"
            )
        wanted = SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=k, flat_logprobs=True, detokenize=False
        )
        prompts = [TokensPrompt(prompt_token_ids=window.ids.tolist()) for window in windows]
        outputs = self.llm.generate(prompts, wanted, use_tqdm=False)
        if windows:
            self.workload.add_unpadded([len(window.ids) for window in windows])
        return [
            _scores(window, output.prompt_logprobs, cfg, k)
            for window, output in zip(windows, outputs, strict=True)
        ]


def _scores(window: Window, found: Any, cfg: EditConfig, k: int) -> Scores:
    """Of each token `found` has the token itself first, then the k most probable ones; of the first none."""
    starts = np.asarray(found.start_indices, dtype=np.int64)[window.first :]
    ids = np.asarray(found.token_ids, dtype=np.int64)
    values = np.asarray(found.logprobs, dtype=np.float32)
    log_p = np.full(len(window.ids), np.nan, dtype=np.float32)
    log_p[window.first :] = values[starts]
    rows = np.flatnonzero(fulfils(log_p, cfg))
    entries = starts[rows - window.first, None] + np.arange(1, k + 1)
    return Scores(log_p, rows, ids[entries], values[entries])
