"""`probe`: fit errors of every linear layer on given tokens, with the model left alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from memoryformer import MemoryFormerError, MemoryLayer, probing
from memoryformer.convert import gaussian_fit
from memoryformer.probing import guidance, probe


class Embedded(nn.Module):
    """Gives the rows of `table` to a linear layer (and to one that is never called)."""

    def __init__(self, table: Tensor, weight: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(table)
        self.linear = nn.Linear(*weight.shape)
        self.linear.weight = nn.Parameter(weight.t())
        self.unused = nn.Linear(8, 8)
        self.odd = nn.Linear(weight.shape[0], 5)
        self.odder = nn.Linear(5, 3)
        self.silent = nn.Linear(weight.shape[0], 4)
        nn.init.zeros_(self.silent.weight)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        self.odder(self.odd(x))
        self.silent(x)
        return self.linear(x)


def gaussian(tokens: int = 20_000, width: int = 16) -> Embedded:
    torch.manual_seed(0)
    return Embedded(torch.randn(tokens, width), torch.randn(width, 24))


def test_gaussian_input_has_the_error_of_the_closed_form() -> None:
    """Every id is another Gaussian vector; 15,000 tokens determine 2 · 16 rows."""
    ids = torch.arange(20_000).view(100, 200)
    (found,) = probe(gaussian(), ids, match="linear", tau=4)
    expected = math.sqrt(1 - gaussian_fit(4).explained)
    assert (found.in_features, found.out_features, found.reason) == (16, 24, "")
    assert found.gaussian == pytest.approx(expected)
    assert found.held_out == pytest.approx(expected, abs=0.015)
    assert found.fitted == pytest.approx(expected, abs=0.015)


def test_a_layer_that_is_called_by_keyword_sees_the_same() -> None:
    class ByKeyword(Embedded):
        def forward(self, ids: Tensor) -> Tensor:
            return self.linear(input=self.embedding(ids))

    model, ids = gaussian(400), torch.arange(400).view(4, 100)
    expected = probe(model, ids, match="linear", tau=4)
    model.__class__ = ByKeyword
    assert probe(model, ids, match="linear", tau=4) == expected


def test_what_was_learnt_by_heart_shows_on_held_out_tokens() -> None:
    """300 tokens against 2 · 256 rows: the fit is good, the layer is not."""
    ids = torch.arange(400).view(4, 100)
    (found,) = probe(gaussian(), ids, match="linear", tau=8)
    assert found.fitted < 0.6 < found.held_out


def test_few_distinct_inputs_can_be_looked_up_without_error() -> None:
    """Eight ids with eight codes: a table is what this layer is."""
    signs = torch.tensor([[1.0 if code >> i & 1 else -1.0 for i in (2, 1, 0)] for code in range(8)])
    model = Embedded(torch.cat([signs, signs], dim=1), torch.randn(6, 7))
    ids = torch.randint(8, (40, 50), generator=torch.Generator().manual_seed(0))
    (found,) = probe(model, ids, match="linear", tau=3)
    assert found.held_out < 0.01
    assert "swapped as it is for 1 " in guidance([found])


def test_layers_that_cannot_be_fitted_say_why_and_do_not_stop_the_others() -> None:
    found = {fit.name: fit for fit in probe(gaussian(1000), torch.arange(1000).view(10, 100), tau=8)}
    assert list(found) == ["linear", "unused", "odd", "odder", "silent"]
    assert found["unused"].reason == "this text does not reach it"
    assert "in_features is 5, which tau = 8 does not divide" in found["odder"].reason
    assert "zero everywhere" in found["silent"].reason
    assert math.isnan(found["odder"].held_out)
    assert not found["odd"].reason
    assert "Of 2 layers" in guidance(list(found.values()))
    assert guidance([found["unused"]]) == "None of the layers could be fitted."


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


IDS = torch.randint(64, (12, 32), generator=torch.Generator().manual_seed(0))


def test_every_linear_layer_of_a_llama_is_probed_and_the_model_stays(llama: LlamaForCausalLM) -> None:
    before = {name: tensor.clone() for name, tensor in llama.state_dict().items()}
    seen: list[tuple[int, int]] = []
    llama.train()
    found = probe(llama, IDS, on_progress=lambda done, total: seen.append((done, total)))
    assert [fit.name for fit in found] == [
        name for name, module in llama.named_modules() if isinstance(module, nn.Linear)
    ]
    assert seen == [(done, 16) for done in range(1, 17)]  # a batch and 15 layers
    assert llama.training
    assert all(torch.equal(before[name], tensor) for name, tensor in llama.state_dict().items())
    assert not any(isinstance(module, MemoryLayer) for module in llama.modules())
    assert not any(module._forward_pre_hooks for module in llama.modules())


def test_groups_of_layers_give_the_same_as_all_at_once(
    llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = probe(llama, IDS, match="*.mlp.*")
    monkeypatch.setattr(probing, "KEPT_BYTES", 1)
    for alone, fit in zip(probe(llama, IDS, match="*.mlp.*"), together, strict=True):
        assert (alone.name, alone.reason) == (fit.name, "")
        assert alone.held_out == pytest.approx(fit.held_out, rel=1e-4)


def test_steps_are_batches_of_each_group_and_layers(
    llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "KEPT_BYTES", 1)  # a group for each of the six layers
    monkeypatch.setattr(probing, "BATCH_TOKENS", 128)  # three batches of four sequences
    seen: list[tuple[int, int]] = []
    probe(llama, IDS, match="*.mlp.*", on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 24) for done in range(1, 25)]


def test_layers_that_share_their_input_have_it_held_once(llama: LlamaForCausalLM) -> None:
    mlp = llama.model.layers[0].mlp
    layers = {name: getattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj")}
    inputs = probing._inputs(llama, layers, IDS.split(4), lambda: None)
    assert inputs["gate_proj"] is inputs["up_proj"]
    assert inputs["down_proj"].shape == (12 * 32, 48)


def test_parts_of_one_tensor_are_not_taken_for_each_other() -> None:
    """Both begin where the tensor does, and differ in width."""

    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.whole, self.part = nn.Embedding(64, 16), nn.Linear(16, 4), nn.Linear(8, 4)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embedding(ids)
            return self.whole(x) + self.part(x[..., :8])

    model = Halved()
    layers = {"whole": model.whole, "half": model.part}
    inputs = probing._inputs(model, layers, [IDS], lambda: None)
    assert torch.equal(inputs["half"], inputs["whole"][:, :8])


def test_the_fit_s_tolerance_does_not_show_in_the_errors(
    llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = probe(llama, IDS, tau=4)
    monkeypatch.setattr(probing, "TOLERANCE", 1e-7)
    for loose, tight in zip(found, probe(llama, IDS, tau=4), strict=True):
        assert loose.held_out == pytest.approx(tight.held_out, rel=5e-3)


def test_conv1d_of_gpt2_is_probed() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2))
    (found,) = probe(model, IDS, match="*.c_fc")
    assert (found.in_features, found.out_features) == (32, 128)


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (IDS[:1], {}, "of 1 sequences leaves nothing"),
        (IDS, {"held_out": 0.0}, "held_out 0.0 of 12 sequences"),
        (IDS, {"held_out": 1.0}, "held_out 1.0 of 12 sequences"),
        (IDS, {"columns": 0}, "columns is 0"),
        (IDS, {"match": "*.ffn.*"}, "'*.ffn.*'"),
        (IDS, {"tau": 0}, "tau is 0"),
        (IDS, {"score": "cosine"}, "unknown score 'cosine'"),
    ],
)
def test_impossible_settings_are_refused(
    llama: LlamaForCausalLM, ids: Tensor, options: dict[str, object], message: str
) -> None:
    with pytest.raises(MemoryFormerError) as refused:
        probe(llama, ids, **options)
    assert message in str(refused.value)
