"""vLLM serves a saved model, and says what transformers says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from memoryformer.hf import MemoryFormerConfig, MemoryFormerForCausalLM

PROMPTS = [[1, 17, 5, 80, 33, 2, 9], [4, 4, 8, 21], [120, 7, 64, 64, 3, 50, 11, 90, 12, 77]]
NEW_TOKENS = 12


@pytest.mark.vllm
@pytest.mark.parametrize(
    "changes",
    # With an eps this large, an RMSNorm that has it inside the root would be seen.
    [{}, {"norm": "rmsnorm", "rms_norm_eps": 0.1, "expand": "tables"}],
    ids=["paper", "official"],
)
def test_vllm_generates_the_same_tokens_as_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    from vllm import LLM, SamplingParams

    torch.manual_seed(0)
    config = MemoryFormerConfig(
        vocab_size=128,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        tau=4,
        max_position_embeddings=128,
        initializer_range=0.2,  # so that the most likely token leads by more than rounding
        table_initializer_range=0.2,
        **changes,
    )
    model = MemoryFormerForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    expected = [
        model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW_TOKENS)[
            0, len(prompt) :
        ].tolist()
        for prompt in PROMPTS
    ]
    llm = LLM(
        str(tmp_path),
        dtype="float32",
        enforce_eager=True,
        max_model_len=64,
        max_num_seqs=4,
        skip_tokenizer_init=True,
    )
    greedy = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, detokenize=False)
    answers = llm.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], greedy, use_tqdm=False)
    assert [list(answer.outputs[0].token_ids) for answer in answers] == expected
    assert len(set(expected[0])) > 3  # a text, not one token over and over
