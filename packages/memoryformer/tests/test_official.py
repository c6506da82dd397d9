"""The authors' checkpoints: no published ones exist, so their model is written down again here, tiny.

Key names, shapes and arithmetic are those of github.com/C0-Design/MemoryFormer: memory_module/memory.py,
compute_code_score_torch, megatron/model/{transformer,norms,gpt2_model}.py.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from memoryformer.convert import reverse_bits
from memoryformer.convert.official import convert_official, load_official_state_dict, official_config
from memoryformer.errors import MemoryFormerError
from memoryformer.hf import MemoryFormerConfig, MemoryFormerForCausalLM
from memoryformer.layers import MemoryLayer
from memoryformer.quantization import quantize_tables_

D, TAU, K, LAYERS, HEADS, VOCAB = 32, 4, 8, 2, 4, 96


class OfficialLayer(nn.Module):
    def __init__(self, tables: int, bits: int, out: int) -> None:
        super().__init__()
        self.number, self.bits = tables, bits
        self.tables = nn.Parameter(0.3 * torch.randn(tables * 2**bits, out))
        self.bias = nn.Parameter(0.1 * torch.randn(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = x.reshape(*x.shape[:-1], self.number, self.bits)
        mask = 2 ** torch.arange(self.bits - 1, -1, -1)
        code = ((z >= 0) * mask).sum(-1)
        score = z.abs().sum(-1) / torch.prod(1 + torch.exp(-2 * z.abs()), dim=-1)
        rows = self.tables[code + torch.arange(self.number) * 2**self.bits]
        return (rows * score[..., None]).sum(-2) + self.bias


class OfficialRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(D))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * (x / (x.norm(2, dim=-1, keepdim=True) * D**-0.5 + 1e-8))


def official_norm(kind: str) -> nn.Module:
    return OfficialRMSNorm() if kind == "rmsnorm" else nn.LayerNorm(D)


class OfficialAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query_proj, self.key_proj, self.value_proj = (OfficialLayer(K, TAU, D) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = *x.shape[:2], D // HEADS
        q, k, v = (
            layer(x).view(batch, length, HEADS, width)
            for layer in (self.query_proj, self.key_proj, self.value_proj)
        )
        turned = width // 4
        angles = torch.arange(length)[:, None] * 10_000.0 ** (-torch.arange(0, turned, 2) / turned)
        cos, sin = (f(torch.cat([angles, angles], -1))[:, None].double() for f in (torch.cos, torch.sin))

        def rotate(y: torch.Tensor) -> torch.Tensor:
            head, rest = y[..., :turned], y[..., turned:]
            half = torch.cat([-head[..., turned // 2 :], head[..., : turned // 2]], -1)
            return torch.cat([head * cos + half * sin, rest], -1)

        scores = torch.einsum("bqhd,bkhd->bhqk", rotate(q), rotate(k)) / math.sqrt(width)
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(causal, -10_000.0).softmax(-1)
        return torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, D)


class OfficialTransformerLayer(nn.Module):
    def __init__(self, expand: str, norm: str) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = official_norm(norm), official_norm(norm)
        self.attention = OfficialAttention()
        if expand == "extra_bit":
            middle, second = K * (TAU + 2), OfficialLayer(K, TAU + 2, D)
        else:
            middle, second = 2 * D, OfficialLayer(2 * K, TAU, D)
        self.mlp = nn.Sequential(OfficialLayer(K, TAU, middle), nn.LayerNorm(middle), second)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Named(nn.Module):
    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return next(self.children())(x)


class Official(nn.Module):
    """`SequentialWrapper`: the embedding is number 0, two numbers are functions without weights."""

    def __init__(self, expand: str = "extra_bit", norm: str = "rmsnorm") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sequential = nn.Sequential(
            Named(word_embeddings=nn.Embedding(VOCAB, D)),
            nn.Identity(),
            *(OfficialTransformerLayer(expand, norm) for _ in range(LAYERS)),
            nn.Identity(),
            Named(norm=official_norm(norm)),
            Named(final_linear=nn.Linear(D, VOCAB, bias=False)),
        )
        self.double()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.sequential(ids)


def yml(expand: str = "extra_bit", norm: str = "rmsnorm", **changes: Any) -> dict[str, Any]:
    """The released yml, with the sizes of this test."""
    table = {"remove_projection": True, "ffn_num_table": K, "code_length": TAU, "projection_type": "dense"}
    return {
        "pipe-parallel-size": 0,
        "num-layers": LAYERS,
        "hidden-size": D,
        "num-attention-heads": HEADS,
        "max-position-embeddings": 64,
        "pos-emb": "rotary",
        "rotary-pct": 0.25,
        "no-weight-tying": True,
        "gpt-j-residual": False,
        "norm": norm,
        "attn_memory_config": {
            "fc_qkv": False,
            "value_size": D,
            "shared_projection": False,
            "del_dense": True,
            **table,
        },
        "mlp_type": "MemoryBlock",
        "double_mlp_table": True,
        "mlp_expand_type": expand,
        "memory_config": {"hidden_size": D, "output_size": D, "act_pos": "none", **table},
    } | changes


def write(model: nn.Module, settings: dict[str, Any], folder: Path) -> Path:
    """As DeepSpeed writes it, with the random states that stand in it, and the yml with its comments."""
    step = folder / "global_step20"
    (step / "configs").mkdir(parents=True)
    state = {
        "module": model.state_dict(),
        "iteration": 20,
        "random_rng_state": random.getstate(),
        "np_rng_state": np.random.get_state(),
        "args": {"num_layers": LAYERS},
    }
    torch.save(state, step / "mp_rank_00_model_states.pt")
    text = json.dumps(settings, indent=1).replace('"norm"', '# the norm\n "norm"')
    (step / "configs" / "memoryformer_tiny.yml").write_text(text)
    return step


def ids() -> torch.Tensor:
    return torch.randint(0, VOCAB, (2, 11), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("expand", ["extra_bit", "extra_table"])
def test_a_converted_checkpoint_computes_what_the_authors_model_does(
    tmp_path: Path, expand: str, norm: str
) -> None:
    official = Official(expand, norm)
    write(official, yml(expand, norm), tmp_path)
    (tmp_path / "global_step3").mkdir()  # an older one
    (tmp_path / "global_step100_bak").mkdir()  # somebody's copy
    model = convert_official(tmp_path)
    torch.testing.assert_close(model(ids()).logits, official(ids()), rtol=0, atol=1e-6)  # see below
    assert model.config.expand == {"extra_bit": "bits", "extra_table": "tables"}[expand]
    model.save_pretrained(tmp_path / "hf")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    for name, values in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], values), name


def test_the_difference_that_is_left_is_that_of_float32_angles(tmp_path: Path) -> None:
    # transformers takes the rotary angles in float32, also in a float64 model; without a rotation it is 1e-9
    official = Official()
    model = convert_official(write(official, yml(), tmp_path))
    first = ids()[:, :1]  # the angles of position 0 are 0
    torch.testing.assert_close(model(first).logits, official(first), rtol=0, atol=1e-9)


def test_a_checkpoint_by_layers_is_read_as_well(tmp_path: Path) -> None:
    official = Official()
    step = write(official, yml(), tmp_path)
    whole = convert_official(step)
    (step / "mp_rank_00_model_states.pt").unlink()
    for number, module in enumerate(official.sequential):
        if states := module.state_dict():
            torch.save(states, step / f"layer_{number:02d}-model_00-model_states.pt")
    assert torch.equal(convert_official(step)(ids()).logits, whole(ids()).logits)


def test_the_dtype_of_the_checkpoint_is_kept_and_saved_frequencies_are_passed_over(tmp_path: Path) -> None:
    official = Official().half()
    for layer in official.sequential[2:4]:
        layer.attention.register_module("rotary_emb", nn.Module())
        layer.attention.rotary_emb.register_buffer("inv_freq", torch.ones(1))
    model = convert_official(write(official, yml(), tmp_path))
    assert {values.dtype for values in model.parameters()} == {torch.float16}
    fused = model.model.layers[1].self_attn.qkv_proj.tables.flatten(0, 1)
    key = official.sequential[3].attention.key_proj.tables
    assert torch.equal(fused[:, D : 2 * D], key)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tau": 8},
            r"qkv_proj.tables is \[128, 96\] in the checkpoint and \[1024, 96\] by the config.*tau 8",
        ),
        ({"expand": "tables"}, r"mlp\.layer1\..* expand 'tables'"),
        ({"expand_bits": 1}, r"expand_bits 1"),
        ({"num_hidden_layers": 1}, r"not one of this config \(1 layers.*unknown"),
        ({"num_hidden_layers": 3}, r"not one of this config \(3 layers.*missing"),
        ({"norm": "layernorm"}, r"norm 'layernorm'\): missing model\.layers\.0\.input_layernorm\.bias"),
        ({"vocab_size": 100}, r"embed_tokens\.weight is \[96, 32\] in the checkpoint and \[100, 32\]"),
    ],
)
def test_a_config_of_another_model_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    step = write(Official(), yml(), tmp_path)
    config = official_config(yml(), VOCAB)
    other = MemoryFormerConfig(**{**config.to_diff_dict(), **changes})
    with pytest.raises(MemoryFormerError, match=message):
        convert_official(step, other)


def test_a_state_dict_that_does_not_fit_leaves_the_model_as_it_was() -> None:
    model = MemoryFormerForCausalLM(official_config(yml(), VOCAB)).double()
    before = model(ids()).logits
    states = Official("extra_table").state_dict()
    with pytest.raises(MemoryFormerError, match="convert it with the config it was trained with"):
        load_official_state_dict(model, states)
    assert torch.equal(model(ids()).logits, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpt-j-residual": True}, r"gpt_j_residual is True in the yml; only False"),
        ({"pos-emb": "alibi"}, r"pos_emb is 'alibi' in the yml; only 'rotary'"),
        ({"mlp_type": "llama"}, r"mlp_type is 'llama'"),
        ({"hidden-size": 64}, r"ffn_num_table 8; with hidden_size 64 .* must be 4 and 16"),
        (
            {"attn_memory_config": {**yml()["attn_memory_config"], "del_dense": False}},
            r"attn_memory_config\.del_dense is False",
        ),
        (
            {"attn_memory_config": {**yml()["attn_memory_config"], "value_size": 64}},
            r"value_size is 64",
        ),
        ({"mlp_expand_type": "none"}, r"mlp_expand_type is 'none' in the yml; only 'extra_bit' or 'extra_t"),
        ({"memory_config": None}, r"memory_config is None in the yml; it must be a section"),
        ({"num-layers": "2"}, r"num_layers is '2' in the yml; it must be a whole number"),
        (
            {"memory_config": {**yml()["memory_config"], "code_length": 0}},
            r"memory_config\.code_length is 0 in the yml; it must be a whole number, at least 1",
        ),
        ({"rotary-emb-base": "much"}, r"rotary_emb_base is 'much' in the yml; it must be a number"),
    ],
)
def test_an_option_that_cannot_be_converted_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MemoryFormerError, match=message):
        official_config(yml() | changes, VOCAB)


@pytest.mark.parametrize("key", ["num-layers", "hidden-size", "num-attention-heads"])
def test_an_option_that_is_missing_is_named_with_its_place(key: str, tmp_path: Path) -> None:
    settings = yml()
    del settings[key]
    step = write(Official(), settings, tmp_path)
    with pytest.raises(MemoryFormerError, match=rf"configs: the yml has no {key.replace('-', '_')}, without"):
        convert_official(step)


@pytest.mark.parametrize("section", ["attn_memory_config", "memory_config"])
@pytest.mark.parametrize("key", ["code_length", "ffn_num_table"])
def test_an_option_that_is_missing_in_a_section_is_named(section: str, key: str) -> None:
    settings = yml()
    del settings[section][key]
    with pytest.raises(MemoryFormerError, match=rf"the yml has no {section}\.{key}, without"):
        official_config(settings, VOCAB)


def test_a_number_that_yaml_reads_as_text_is_one() -> None:
    assert official_config(yml(**{"rms-norm-epsilon": "1e-6"}), VOCAB).rms_norm_eps == 1e-6


def test_a_yml_that_is_none_is_named(tmp_path: Path) -> None:
    step = write(Official(), yml(), tmp_path)
    file = step / "configs" / "memoryformer_tiny.yml"
    for content, message in (
        (b"{", "is no yml"),
        (b"\xff\xfe\xff", "is no yml"),
        (b"- a\n", "is a list, not"),
    ):
        file.write_bytes(content)
        with pytest.raises(MemoryFormerError, match=f"memoryformer_tiny.yml {message}"):
            convert_official(step)


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(MemoryFormerError, match=r"has no checkpoint: neither mp_rank_\*_model_states\.pt"):
        convert_official(tmp_path)
    step = write(Official(), yml(), tmp_path)
    (step / "configs" / "memoryformer_tiny.yml").unlink()
    with pytest.raises(MemoryFormerError, match=r"has no yml, so the number of heads is not known"):
        convert_official(step)
    (step / "mp_rank_01_model_states.pt").write_bytes(b"")
    with pytest.raises(MemoryFormerError, match="split by tensor parallelism"):
        convert_official(step)
    file = tmp_path / "model.pt"
    file.write_bytes(b"no weights")
    with pytest.raises(MemoryFormerError, match="cannot be read as weights"):
        convert_official(file)
    torch.save({"weight": torch.zeros(1)}, file)
    with pytest.raises(MemoryFormerError, match=r'model\.pt has no "module".*; it has weight'):
        convert_official(file)
    torch.save({"module": [torch.zeros(1)]}, file)
    with pytest.raises(MemoryFormerError, match=r"model\.pt has no tensors by their names"):
        convert_official(file)
    torch.save([1, 2], file)
    with pytest.raises(MemoryFormerError, match=r"model\.pt holds a list, not a dictionary"):
        convert_official(file)


def test_the_official_presets_are_the_released_ymls() -> None:
    # configs/memoryformer_small.yml: hidden-size 768, 6 layers, 8 heads, 96 tables of 8 bits
    small = yml(
        **{"hidden-size": 768, "num-layers": 6, "num-attention-heads": 8, "max-position-embeddings": 2048}
    )
    for section in ("attn_memory_config", "memory_config"):
        small[section] = small[section] | {"code_length": 8, "ffn_num_table": 96}
    small["attn_memory_config"]["value_size"] = 768
    preset = MemoryFormerConfig.preset("small", "official")
    assert official_config(small, 50_304).to_dict() == preset.to_dict()


@pytest.mark.parametrize("int8", [False, True])
def test_reversed_bits_make_an_lsb_first_checkpoint_ours(int8: bool) -> None:
    layer = MemoryLayer(12, 5, tau=4)
    x = torch.randn(7, 12)
    z = x.view(7, 3, 4)
    lowest_first = ((z >= 0) * 2 ** torch.arange(4)).sum(-1)
    rows = layer.tables[torch.arange(3), lowest_first]
    expected = (rows * layer.hash(x)[1][..., None]).sum(1) + layer.bias
    model = nn.Sequential(layer)
    if int8:
        quantize_tables_(model).eval()
    stored = model[0].tables.clone()
    assert reverse_bits(model) is model
    torch.testing.assert_close(
        model(x), expected, rtol=0, atol=2e-2 * expected.abs().max().item() if int8 else 1e-6
    )
    assert torch.equal(reverse_bits(model[0].tables.detach()), stored)  # twice is nothing


def test_reversing_needs_tables() -> None:
    with pytest.raises(MemoryFormerError, match=r"tables are \[3, 12, 5\]; expected \[K, 2\^tau, h\]"):
        reverse_bits(torch.zeros(3, 12, 5))
    with pytest.raises(MemoryFormerError, match="Linear has no Memory Layer"):
        reverse_bits(nn.Linear(2, 2))
