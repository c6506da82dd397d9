from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.set_num_threads(1)

VOCABULARY = 320  # more rows than tokens, as in many models

# Every reply is stripped, as in Llama 3's template.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] %}{{ m['content'] | trim }}{% endif %}<|im_end|>\n{% endfor %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with all bytes, some English words and three special tokens; it adds no BOS."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    trained.train_from_iterator(["hello world, the cat in the hat sat on the mat"] * 9, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=TEMPLATE,
    )


@pytest.fixture(scope="session")
def trimmed(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer with offsets that leave out a word's space."""
    words = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    words.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=words, chat_template=TEMPLATE)


@pytest.fixture(scope="session")
def applied() -> Callable[[Any, list[dict[str, Any]]], Any]:
    """Apply the edits of `toedit_edits` to the source's column, each where it says that it stands."""

    def apply(value: Any, edits: list[dict[str, Any]]) -> Any:
        value = json.loads(json.dumps(value))  # a copy in which no two messages are one
        for edit in reversed(edits):
            text = value if edit["message"] is None else value[edit["message"]]["content"]
            assert text[edit["start"] : edit["end"]] == edit["old"]
            text = text[: edit["start"]] + edit["new"] + text[edit["end"] :]
            if edit["message"] is None:
                value = text
            else:
                value[edit["message"]]["content"] = text
        return value

    return apply


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., LlamaForCausalLM]:
    """Build a two-layer Llama with random weights, the same at each call."""

    def build(**changes: Any) -> LlamaForCausalLM:
        settings: dict[str, Any] = {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
        }
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()

    return build


class Bigram(nn.Module):
    """A prior that knows one token of context: `table` [V, V] has the logits after each token."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids])


@pytest.fixture(scope="session")
def counting(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Bigram]:
    """Build a prior that counts: after 3 comes 4 with probability p, after 9 comes 0; else another digit.

    After anything that is no digit, all digits are equally likely.
    """
    digits = torch.tensor([tokenizer.get_vocab()[str(digit)] for digit in range(10)])

    def build(p: float = 0.995, module: type[Bigram] = Bigram) -> Bigram:
        table = torch.zeros((VOCABULARY, VOCABULARY))
        table[:, digits] = 0.1
        table[digits[:, None], digits] = (1 - p) / 9
        table[digits, digits.roll(-1)] = p
        return module(table.log())

    return build
