"""A merged model is an ordinary one: vLLM serves it, and says what transformers says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import lpa

PROMPTS = [[1, 17, 5, 80, 33, 2, 9], [4, 4, 8, 21], [120, 7, 64, 64, 3, 50, 11, 90, 12, 77]]
NEW_TOKENS = 16


def merged_model(folder: Path) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,  # so that the most likely token leads by more than rounding
    )
    model = lpa.apply_lpa(LlamaForCausalLM(config), lpa.LPAConfig(rank=34, init="matched")).eval()
    dense = lpa.merge(model)
    dense.save_pretrained(folder)
    words = {f"w{number}": number for number in range(config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    return model


@pytest.mark.vllm
def test_vllm_generates_the_same_tokens_as_transformers(tmp_path: Path) -> None:
    from vllm import LLM, SamplingParams

    model = merged_model(tmp_path)
    expected = [
        model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=None)[
            0, len(prompt) :
        ].tolist()
        for prompt in PROMPTS
    ]
    llm = LLM(str(tmp_path), dtype="float32", enforce_eager=True, max_model_len=64, max_num_seqs=4)
    greedy = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    answers = llm.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], greedy, use_tqdm=False)
    assert [list(answer.outputs[0].token_ids) for answer in answers] == expected
    assert len(set(expected[0])) > 3  # a text, not one token over and over
