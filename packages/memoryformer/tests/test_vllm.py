"""vLLM serves a saved model, and says what transformers says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from memoryformer.hf import MemoryFormerConfig, MemoryFormerForCausalLM

PROMPTS = [[1, 17, 5, 80, 33, 2, 9], [4, 4, 8, 21], [120, 7, 64, 64, 3, 50, 11, 90, 12, 77]]
NEW_TOKENS = 12
KINDS: dict[str, dict[str, Any]] = {
    "paper": {},
    # With an eps this large, an RMSNorm that has it inside the root would be seen.
    "official": {"norm": "rmsnorm", "rms_norm_eps": 0.1, "expand": "tables"},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[list[int]]]]:
    """Each kind's model in a folder, and what transformers writes with it.

    All before any engine: in its process vLLM changes the class, and plain models are no more to be had.
    """
    found = {}
    for kind, changes in KINDS.items():
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
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        written = [
            model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW_TOKENS)[0]
            for prompt in PROMPTS
        ]
        tokens = [ids[len(prompt) :].tolist() for ids, prompt in zip(written, PROMPTS, strict=True)]
        found[kind] = folder, tokens
    return found


@pytest.mark.vllm
@pytest.mark.parametrize("kind", KINDS)
def test_vllm_generates_the_same_tokens_as_transformers(
    kind: str, saved: dict[str, tuple[Path, list[list[int]]]]
) -> None:
    from vllm import LLM, SamplingParams

    folder, expected = saved[kind]
    llm = LLM(
        str(folder),
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
