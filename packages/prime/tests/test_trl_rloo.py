"""On the rollouts of a TRL trainer, our leave-one-out advantages are TRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from implicit_prime.core import rloo_advantage

pytestmark = pytest.mark.slow
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

WORDS = ["<pad>", "<eos>", *"abcdefgh"]


def test_advantages_of_outcomes_alone_are_trls(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    class Watched(trl.RLOOTrainer):  # type: ignore[misc,name-defined]
        def _calculate_rewards(self, *args: Any) -> Any:
            seen["rewards"] = super()._calculate_rewards(*args)
            return seen["rewards"]

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            seen["prompts"] = [row["prompt"] for row in inputs]
            seen["out"] = super()._generate_and_score_completions(inputs)
            return seen["out"]

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    trainer = Watched(
        model=LlamaForCausalLM(config),
        # Fractions, as tests passed would give, that depend on what was sampled.
        reward_funcs=lambda completions, **_: [
            text.count("b") / 4 + text.count("c") / 8 for text in completions
        ],
        args=trl.RLOOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=16,
            num_generations=4,
            max_completion_length=8,
            beta=0.0,
            max_steps=1,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a b", "c d", "e f", "g h"]}),
        processing_class=tokenizer,
    )
    trainer.train()

    rewards, mask = seen["rewards"][:, 0], seen["out"]["completion_mask"]
    ours = rloo_advantage(None, rewards, mask, seen["prompts"])
    assert rewards.unique().numel() > 3
    torch.testing.assert_close(ours, seen["out"]["advantages"][:, None] * mask, atol=1e-6, rtol=0)
