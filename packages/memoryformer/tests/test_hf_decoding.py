"""`compile_decode`: what `generate` gives, token for token, by one lean step a token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import GenerationConfig, TextStreamer
from transformers.cache_utils import DynamicCache

from memoryformer import backends
from memoryformer.convert import replace_linear
from memoryformer.errors import MemoryFormerError
from memoryformer.hf import MemoryFormerConfig, MemoryFormerForCausalLM, decoding
from memoryformer.quantization import quantize_tables_

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "official": {"norm": "rmsnorm", "expand": "tables", "bias": False},
    "text": {"score": "softmax", "temperature": 2.0, "activation": "gelu"},
    "all rotated": {"rope_parameters": {"partial_rotary_factor": 1.0, "rope_theta": 500.0}},
    "tied": {"tie_word_embeddings": True},
}


def build(variant: str = "plain", **changes: Any) -> MemoryFormerForCausalLM:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "tau": 4,
        "max_position_embeddings": 96,
        "initializer_range": 0.3,  # so that the text is not one token over and over
        "table_initializer_range": 0.3,
    }
    return MemoryFormerForCausalLM(MemoryFormerConfig(**settings | VARIANTS[variant] | changes)).eval()


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(1, 97, (batch, length), generator=torch.Generator().manual_seed(1))


def with_and_without(
    model: MemoryFormerForCausalLM, monkeypatch: pytest.MonkeyPatch, ids: torch.Tensor, **settings: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    steps = []
    original = decoding.Step.__call__

    def counted(self: Any, *arguments: Any) -> torch.Tensor:
        steps.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(decoding.Step, "__call__", counted)
    torch.manual_seed(7)
    usual = model.compile_decode(False).generate(ids, **settings)
    assert not steps
    torch.manual_seed(7)
    lean = model.compile_decode().generate(ids, **settings)
    assert len(steps) == lean.shape[1] - ids.shape[1] - 1  # the first token comes from the prompt's pass
    return usual, lean


@pytest.mark.parametrize(
    ("variant", "tables"),
    [*((variant, None) for variant in VARIANTS), ("plain", "int8"), ("official", "bfloat16")],
)
def test_greedy_decoding_gives_the_tokens_of_generate(
    variant: str, tables: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(variant)
    if tables is not None:
        quantize_tables_(model, tables)
    usual, lean = with_and_without(model, monkeypatch, tokens(1, 9), max_new_tokens=40, do_sample=False)
    assert torch.equal(usual, lean)
    assert len(set(usual[0, 9:].tolist())) > 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_logits_of_each_step_are_those_of_the_modules_bit_for_bit(dtype: torch.dtype) -> None:
    model, ids = build().to(dtype), tokens(2, 30)
    with torch.no_grad():
        usual = DynamicCache(config=model.config)
        model(ids[:, :5], past_key_values=usual, use_cache=True)
        filled = DynamicCache(config=model.config)
        model(ids[:, :5], past_key_values=filled, use_cache=True)
        step = decoding.Step(model, filled, 30)
        for position in range(5, 30):
            expected = model(ids[:, position : position + 1], past_key_values=usual, use_cache=True).logits
            assert torch.equal(step(ids[:, position]), expected[:, 0]), position


def test_sampling_draws_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, lean = with_and_without(
        build(),
        monkeypatch,
        tokens(3, 9),
        max_new_tokens=40,
        do_sample=True,
        top_k=20,
        temperature=1.5,
        repetition_penalty=1.2,
    )
    assert torch.equal(usual, lean)
    assert not torch.equal(usual[0, 9:], usual[1, 9:])


def test_left_padding_and_an_end_token_are_those_of_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = build(), tokens(3, 9)
    mask = torch.ones_like(ids)
    mask[0, :4] = mask[2, :7] = 0
    free = model.generate(ids, attention_mask=mask, max_new_tokens=30, do_sample=False, pad_token_id=0)
    end = int(free[1, 15])  # the second sequence ends early, at the latest there
    usual, lean = with_and_without(
        model,
        monkeypatch,
        ids,
        attention_mask=mask,
        max_new_tokens=30,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=end,
    )
    assert torch.equal(usual, lean)
    assert usual[1, -1] == 0
    assert torch.equal(usual[0, :12], free[0, :12])


@pytest.mark.parametrize("padding", [0, 4])
def test_positions_of_the_caller_s_own_are_kept(padding: int) -> None:
    """Spread by 3: a model with rotary positions then sees other distances."""
    model, ids = build(), tokens(2, 9)
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    settings = {"attention_mask": mask, "max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    spread = 3 * torch.arange(9).expand(2, -1)
    usual, lean = (
        model.compile_decode(lean).generate(ids, **settings, position_ids=spread) for lean in (False, True)
    )
    assert torch.equal(usual, lean)
    assert not torch.equal(usual, model.generate(ids, **settings))  # they do matter


def test_changed_weights_are_seen_by_the_next_call() -> None:
    model, ids = build().compile_decode(), tokens(1, 9)
    before = model.generate(ids, max_new_tokens=20, do_sample=False)
    with torch.no_grad():
        model.model.layers[1].mlp.layer1.tables.neg_()
    after = model.generate(ids, max_new_tokens=20, do_sample=False)
    assert not torch.equal(before, after)
    assert torch.equal(after, model.compile_decode(False).generate(ids, max_new_tokens=20, do_sample=False))


class Adapter(nn.Module):
    """As PEFT wraps a layer: its weight is not all it does."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.weight, self.bias = base, base.weight, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x).flip(-1)


def test_what_the_step_does_not_offer_goes_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = build().compile_decode(), tokens(2, 9)

    def refuse(*_: Any) -> None:
        raise AssertionError("the lean step must not be taken")

    monkeypatch.setattr(decoding, "Step", refuse)
    common: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}
    assert model.generate(ids, **common, return_dict_in_generate=True, output_logits=True).logits
    assert model.generate(ids, **common, num_beams=2).shape == (2, 12)
    assert model.generate(ids, **common, use_cache=False).shape == (2, 12)
    own = DynamicCache()
    model.generate(ids, **common, past_key_values=own)
    assert own.get_seq_length() == 11  # the last token was not fed back
    own_positions = torch.arange(9).expand(2, -1) + 30
    assert model.generate(ids, **common, position_ids=own_positions).shape == (2, 12)
    model.set_attn_implementation("eager")
    assert model.generate(ids, **common).shape == (2, 12)
    model.set_attn_implementation("sdpa")
    seen: list[int] = []
    handle = model.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    model.generate(ids, **common)
    handle.remove()
    assert len(seen) == 3  # the hook saw every token
    head = model.lm_head
    model.lm_head = Adapter(head)
    assert model.generate(ids, **common).shape == (2, 12)
    model.lm_head = nn.Sequential(head)
    assert model.generate(ids, **common).shape == (2, 12)
    model.lm_head = head
    first = model.model.layers[0]
    first.mlp, block = nn.Identity(), first.mlp
    assert model.generate(ids, **common).shape == (2, 12)
    first.mlp = block
    with pytest.raises(AssertionError, match="must not be taken"):
        model.generate(ids, **common)


def test_a_head_that_became_a_memory_layer_decodes_as_ever() -> None:
    model, ids = replace_linear(build(), match="lm_head", tau=4), tokens(2, 9)
    usual = model.generate(ids, max_new_tokens=5, do_sample=False)
    assert torch.equal(model.compile_decode().generate(ids, max_new_tokens=5, do_sample=False), usual)


def test_tokens_are_streamed_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    class Tokenizer:
        def decode(self, ids: list[int] | int, **_: Any) -> str:
            return " ".join(f"w{number}" for number in (ids if isinstance(ids, list) else [ids])) + "\n"

    model, ids = build().compile_decode(), tokens(1, 5)
    streamer = TextStreamer(Tokenizer(), skip_prompt=True)
    out = model.generate(ids, max_new_tokens=4, do_sample=False, streamer=streamer)
    words = [f"w{number}" for number in out[0, 5:].tolist()]
    assert [word for line in capsys.readouterr().out.splitlines() for word in line.split()] == words


def test_positions_have_the_same_end() -> None:
    model = build(max_position_embeddings=12).compile_decode()
    assert model.generate(tokens(1, 9), max_new_tokens=4, do_sample=False).shape == (1, 13)
    with pytest.raises(MemoryFormerError, match=r"13 tokens are more than max_position_embeddings 12"):
        model.generate(tokens(1, 9), generation_config=GenerationConfig(max_new_tokens=6))


def test_plain_pytorch_decodes_the_same() -> None:
    model, ids = build().compile_decode(), tokens(2, 9)
    with backends.use("torch"):
        lean = model.generate(ids, max_new_tokens=20, do_sample=False)
        usual = model.compile_decode(False).generate(ids, max_new_tokens=20, do_sample=False)
    assert torch.equal(usual, lean)
