"""`replace_linear`: what is swapped, what it starts from, and what is refused with nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from memoryformer import MemoryLayer
from memoryformer.convert import gaussian_fit, linear, replace_linear
from memoryformer.errors import MemoryFormerError


class Block(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.attention = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width, bias=False))


class Model(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width) for _ in range(2))


def memory_layers(model: nn.Module) -> dict[str, MemoryLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, MemoryLayer)}


def test_the_linear_layers_of_the_pattern_are_replaced_and_no_others() -> None:
    model = Model()
    assert replace_linear(model, match="*.mlp.*", tau=4) is model
    assert list(memory_layers(model)) == [f"layers.{i}.mlp.{j}" for i in (0, 1) for j in (0, 2)]
    assert type(model.layers[0].attention) is nn.Linear
    assert isinstance(model.layers[0].mlp[1], nn.GELU)
    first, second = model.layers[1].mlp[0], model.layers[1].mlp[2]
    assert first.tables.shape == (4, 16, 24)
    assert first.bias is not None
    assert second.tables.shape == (6, 16, 16)
    assert second.bias is None


def test_device_dtype_mode_and_score_go_over() -> None:
    model = Model().to(torch.bfloat16).eval()
    layer = replace_linear(model, tau=8, score="softmax", temperature=4.0).layers[0].mlp[0]
    assert layer.tables.dtype == torch.bfloat16
    assert (layer.score, layer.temperature, layer.training) == ("softmax", 4.0, False)
    meta = replace_linear(Model().to("meta"), tau=8).layers[0].mlp[2]
    assert meta.tables.is_meta
    assert meta.tables.shape == (3, 256, 16)


def test_tables_start_as_the_best_ones_for_gaussian_input() -> None:
    """T[k, c] = alpha Σ_i s_i W_i by hand for one row: 0b1011 is +, -, +, +."""
    model = Model()
    old = model.layers[0].mlp[0]
    new = replace_linear(model, tau=4).layers[0].mlp[0]
    chunk = old.weight[:, 8:12]
    expected = gaussian_fit(4).alpha * (chunk[:, 0] - chunk[:, 1] + chunk[:, 2] + chunk[:, 3])
    torch.testing.assert_close(new.tables[2, 0b1011], expected)
    assert torch.equal(new.bias, old.bias)


@pytest.mark.parametrize(("score", "temperature"), [("scaled", 1.0), ("softmax", 1.0), ("softmax", 4.0)])
@pytest.mark.parametrize("tau", [1, 4, 8])
def test_what_the_start_explains_of_the_old_output_is_the_closed_form(
    score: str, temperature: float, tau: int
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8))
    x = torch.randn(60_000, 8)
    with torch.no_grad():
        y = model(x)
        replace_linear(model, "0", tau, score=score, temperature=temperature)
        explained = 1 - (model(x) - y).square().sum() / (y - y.mean(0)).square().sum()
    assert explained.item() == pytest.approx(gaussian_fit(tau, score, temperature).explained, abs=0.01)


def test_random_tables_are_those_of_a_new_layer() -> None:
    torch.manual_seed(0)
    model = replace_linear(Model(), tau=8, init="random")
    tables = model.layers[0].mlp[0].tables
    assert tables.std().item() == pytest.approx(0.02, rel=0.03)


def test_a_layer_under_two_names_stays_one() -> None:
    model = Model()
    model.layers[1].mlp = model.layers[0].mlp
    replace_linear(model, tau=4)
    assert model.layers[1].mlp[0] is model.layers[0].mlp[0]


def test_several_patterns() -> None:
    model = replace_linear(Model(), ["layers.0.attention", "layers.1.mlp.0"], tau=4)
    assert list(memory_layers(model)) == ["layers.0.attention", "layers.1.mlp.0"]


def test_a_llama_trains_and_generates_with_memory_layers() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    model = replace_linear(LlamaForCausalLM(config), tau=8)
    assert len(memory_layers(model)) == 6
    tokens = torch.arange(20)[None]
    model(tokens, labels=tokens).loss.backward()
    assert all(layer.tables.grad.any() for layer in memory_layers(model).values())
    assert model.generate(tokens, max_new_tokens=3, do_sample=False).shape == (1, 23)


def test_a_changed_llama_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    model = replace_linear(LlamaForCausalLM(config), tau=8, score="softmax").eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert len(memory_layers(again)) == 6
    tokens = torch.arange(20)[None]
    assert torch.equal(again(tokens).logits, model(tokens).logits)


def test_gpt2_s_conv1d_is_a_linear_layer_with_the_matrix_transposed() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config)
    old = model.transformer.h[0].mlp.c_fc
    new = replace_linear(model, tau=8).transformer.h[0].mlp.c_fc
    assert (new.in_features, new.out_features) == (32, 128)
    all_ones = gaussian_fit(8).alpha * old.weight[:8].sum(0)
    torch.testing.assert_close(new.tables[0, -1], all_ones)


def refusal(model: nn.Module, **arguments: object) -> str:
    before = list(model.named_modules())
    with pytest.raises(MemoryFormerError) as refused:
        replace_linear(model, **{"tau": 4} | arguments)
    assert list(model.named_modules()) == before  # either all or nothing
    return str(refused.value)


def test_a_pattern_that_matches_nothing_names_what_there_is() -> None:
    message = refusal(Model(), match="*.ffn.*")
    assert "'*.ffn.*'" in message
    assert "layers.*.attention, layers.*.mlp.*" in message
    assert "'*.ffn.*'" in refusal(Model(), match=["*.mlp.*", "*.ffn.*"])
    assert "none" in refusal(nn.GELU())


def test_a_width_that_tau_does_not_divide_is_named_with_the_nearest() -> None:
    message = refusal(Model(20), tau=8)
    assert "layers.0.mlp.0 takes 20 numbers" in message
    assert "16 or 24" in message
    assert "tau for 20: 1, 2, 4, 5, 10" in message
    assert "divides: 8; tau" in refusal(Model(4), tau=8)


def test_what_is_not_called_as_a_plain_linear_is_refused() -> None:
    model = Model()
    parametrizations.weight_norm(model.layers[1].mlp[2])
    assert "layers.1.mlp.2 is a ParametrizedLinear" in refusal(model)
    attention = nn.ModuleDict({"mlp": nn.MultiheadAttention(8, 2)})
    assert "NonDynamicallyQuantizableLinear" in refusal(attention, match="*")


def test_a_shared_weight_is_refused() -> None:
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    assert "lm_head shares its weight with model.embed_tokens" in refusal(model, match="lm_head")


def test_tables_beyond_the_free_memory_are_refused_before_they_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear, "free_bytes", lambda _: 2**20)
    message = refusal(nn.ModuleDict({"a": nn.Linear(512, 512)}), match="a", tau=8)
    assert "the tables need 0.0 GiB and 0.0 GiB are free" in message
    assert "32 times the matrix" in message


@pytest.mark.parametrize("width", [512, 1024])
def test_each_device_must_hold_the_tables_of_its_own_layers(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of 32 MiB on the CPU, and of 32 or 64 on meta, which stands here for a GPU; 50 MiB are free."""
    monkeypatch.setattr(linear, "free_bytes", lambda device: 50 * 2**20)
    model = nn.ModuleDict({"a": nn.Linear(512, 512), "b": nn.Linear(512, width, device="meta")})
    if width == 512:
        assert list(memory_layers(replace_linear(model, match=["a", "b"], tau=8))) == ["a", "b"]
    else:
        assert "the tables need 0.1 GiB and 0.0 GiB are free on meta" in refusal(
            model, match=["a", "b"], tau=8
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": 0}, "from 1 to 16"),
        ({"tau": 17}, "from 1 to 16"),
        ({"init": "zeros"}, "'linear' or 'random'"),
        ({"score": "sigmoid"}, "sigmoid"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    assert message in refusal(Model(), **arguments)


def test_the_model_itself_is_refused() -> None:
    assert "the model itself" in refusal(nn.Linear(8, 8), match="*")
