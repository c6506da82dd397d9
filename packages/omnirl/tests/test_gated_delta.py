"""The gated delta rule, held to flash-linear-attention's plain PyTorch and to its own recurrence."""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omnirl.errors import MissingExtraError, OmniRLError
from omnirl.inference.agent import ICRLAgent
from omnirl.model import fla_trunk
from omnirl.model.attention import Context
from omnirl.model.config import GPU_MIXERS, OmniRLConfig
from omnirl.model.fla_trunk import _Cache
from omnirl.model.gated_delta import gated_delta, gated_delta_step, unit
from omnirl.model.gated_deltanet import GatedDeltaNet
from omnirl.model.memory import detach
from omnirl.model.modeling import OmniRL


def inputs(batch: int, length: int, heads: int, keys: int, values: int, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    q, k = (unit(torch.randn(batch, length, heads, keys, generator=draw)) for _ in range(2))
    v = torch.randn(batch, length, heads, values, generator=draw)
    g = -torch.rand(batch, length, heads, generator=draw) * 2
    beta = torch.rand(batch, length, heads, generator=draw)
    state = torch.randn(batch, heads, keys, values, generator=draw)
    return [q, k, v, g, beta, state]


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(q.shape[1]):
        out, state = gated_delta_step(q[:, t], k[:, t], v[:, t], g[:, t], beta[:, t], state)
        outputs.append(out)
    return torch.stack(outputs, 1), state


@pytest.fixture(scope="module")
def naive() -> ModuleType:
    """fla's reference, loaded as a file: importing the package takes many seconds."""
    package = importlib.util.find_spec("fla")
    if package is None or not package.submodule_search_locations:
        pytest.skip("flash-linear-attention is not installed")
    path = Path(package.submodule_search_locations[0]) / "ops" / "gated_delta_rule" / "naive.py"
    spec = importlib.util.spec_from_file_location("fla_naive_gated_delta_rule", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("length", [1, 63, 130])
def test_both_forms_agree_with_the_reference_of_flash_linear_attention(
    naive: ModuleType, length: int
) -> None:
    q, k, v, g, beta, state = inputs(2, length, 3, 8, 16)
    expected = naive.naive_recurrent_gated_delta_rule(
        q, k, v, beta, g, initial_state=state, output_final_state=True
    )
    for ours in (gated_delta(q, k, v, g, beta, state), recurrent(q, k, v, g, beta, state)):
        for mine, theirs in zip(ours, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([1, 4, 16]), st.integers(0, 10**6))
def test_any_chunk_size_gives_the_recurrence_and_its_gradients(
    length: int, keys: int, chunk: int, seed: int
) -> None:
    arrays = [array.requires_grad_() for array in inputs(1, length, 2, keys, 3, seed)]
    pull = torch.randn(1, length, 2, 3, generator=torch.Generator().manual_seed(seed))
    out, state = gated_delta(*arrays, chunk_size=chunk)
    expected, expected_state = recurrent(*arrays)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(state, expected_state, atol=1e-4, rtol=1e-4)
    ours = torch.autograd.grad((out * pull).sum() + state.sum(), arrays)
    theirs = torch.autograd.grad((expected * pull).sum() + expected_state.sum(), arrays)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_strong_decay_forgets_without_overflow() -> None:
    q, k, v, _, beta, state = inputs(1, 64, 2, 4, 4)
    g = torch.full((1, 64, 2), -200.0, requires_grad=True)
    out, _ = gated_delta(q, k, v, g, beta, state)
    alone = beta[..., None] * v * (q * k).sum(-1, keepdim=True) / 2  # only the token itself is left
    torch.testing.assert_close(out, alone, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(out.sum(), g)
    assert torch.isfinite(gradient).all()


@pytest.mark.slow
def test_the_layer_has_the_parameters_of_flash_linear_attention() -> None:
    layers = pytest.importorskip("fla.layers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = layers.GatedDeltaNet(hidden_size=64, num_heads=4, head_dim=12, layer_idx=0).state_dict()
    ours = GatedDeltaNet(OmniRLConfig(4, 2, 64, 1, 4, mixer="gated_deltanet")).state_dict()
    assert {name: tuple(value.shape) for name, value in ours.items()} == {
        name: tuple(value.shape) for name, value in theirs.items()
    }


@pytest.mark.parametrize("mixer", GPU_MIXERS)
def test_a_mixer_for_gpus_says_so_and_names_those_for_cpus(mixer: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((OmniRLError, MissingExtraError), match="attention and gated_deltanet run anywhere"):
        OmniRL(OmniRLConfig(4, 2, 64, 2, 1, mixer=mixer))


def test_a_state_of_flash_linear_attention_survives_as_a_plain_dict() -> None:
    cache = _Cache({})
    assert len(cache) == 0
    a, b = torch.zeros(2, 3), torch.ones(2)
    cache.update(layer_idx=3, offset=5, recurrent_state=(a, b), conv_state=b, ffn_state=None)
    memory = cache.memory()
    assert set(memory) == {"recurrent_state.0", "recurrent_state.1", "conv_state"}
    again = _Cache(memory)[3]
    assert again is not None
    for found, kept in ((again["recurrent_state"][0], a), (again["conv_state"], b)):
        assert torch.equal(found, kept)
        assert found.data_ptr() != kept.data_ptr()  # the layers write into what they are given
    assert again["attn_state"] is None


def test_autocast_changes_nothing() -> None:
    q, k, v, g, beta, state = inputs(2, 70, 3, 8, 16)
    first = (q[:, 0], k[:, 0], v[:, 0], g[:, 0], beta[:, 0], state)
    plain = *gated_delta(q, k, v, g, beta, state), *gated_delta_step(*first)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = *gated_delta(q, k, v, g, beta, state), *gated_delta_step(*first)
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one, other)


class OneByOne(torch.nn.Module):
    """As Mamba-2 of flash-linear-attention 0.6: with a state one token at a time, written into in place."""

    def __init__(self, width: int, differentiable: bool = True) -> None:
        super().__init__()
        self.proj = torch.nn.Linear(width, width)
        self.differentiable = differentiable

    def forward(self, x: Tensor, past_key_values: _Cache, use_cache: bool) -> tuple[Tensor, None, _Cache]:
        last = past_key_values[0]
        if last is None:
            sums = x.cumsum(1)
            past_key_values.update(recurrent_state=sums[:, -1].clone(), conv_state=x[:, -1].clone())
            return self.proj(sums), None, past_key_values
        if x.shape[1] != 1:
            raise ValueError("cached decoding only supports a single new token per step.")
        state = last["recurrent_state"]
        state = state.add_(x[:, 0]) if self.differentiable else state.add_(x[:, 0].detach())
        last["conv_state"].copy_(x[:, 0].detach())
        past_key_values.update(recurrent_state=state, conv_state=last["conv_state"])
        return self.proj(state)[:, None], None, past_key_values


def mamba2_s_layer(config: OmniRLConfig, index: int) -> torch.nn.Module:
    layers = pytest.importorskip("fla.layers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = layers.Mamba2(num_heads=2, head_dim=32, hidden_size=32, layer_idx=index, chunk_size=16)
    # Theirs of these two are kernels for GPUs; all else has a form in PyTorch.
    layer.norm, layer.act = Gated(64), torch.nn.SiLU()
    return layer


class Gated(torch.nn.Module):
    """RMSNorm(x SiLU(gate))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = torch.nn.RMSNorm(width)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return self.norm(x * torch.nn.functional.silu(gate))


@pytest.mark.parametrize(
    "layer",
    [lambda config, index: OneByOne(32), pytest.param(mamba2_s_layer, marks=pytest.mark.slow)],
    ids=["stub", "fla"],
)
@pytest.mark.parametrize("layout", ["fused", "star"])
def test_mamba2_goes_on_token_by_token_and_leaves_the_memory_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch, layout: str, layer: Callable[[OmniRLConfig, int], torch.nn.Module]
) -> None:
    monkeypatch.setattr(fla_trunk, "_layer", layer)
    torch.manual_seed(0)
    model = OmniRL(OmniRLConfig(7, 3, 32, 2, 2, layout=layout, mixer="mamba2")).eval()
    steps = [torch.randint(n, (2, 12)) for n in (7, 8, 4)] + [torch.randn(2, 12)]
    whole = model(*steps)
    memory, logits = None, []
    for cut in (slice(0, 5), slice(5, 9)):  # a segment goes on from a memory
        output = model(*(array[:, cut] for array in steps), memory=memory)
        memory, logits = output.memory, [*logits, output.policy_logits]
    for t in range(9, 12):
        model.policy(torch.zeros(2, dtype=torch.int64), memory)  # asked for nothing, twice
        model.policy(steps[0][:, t], memory)
        output = model.step(*(array[:, t] for array in steps), memory=memory)
        memory, logits = output.memory, [*logits, output.policy_logits[:, None]]
    torch.testing.assert_close(torch.cat(logits, 1), whole.policy_logits, atol=1e-5, rtol=1e-4)
    agent = ICRLAgent(model)
    agent.reset(2)
    agent.commit(*(array[:, :5].numpy() for array in steps))
    first = agent.policy([1, 2])
    agent.act([0, 0])
    np.testing.assert_array_equal(agent.policy([1, 2]), first)


def test_mamba2_does_not_learn_through_a_memory_without_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fla_trunk, "_layer", lambda config, index: OneByOne(32, differentiable=False))
    model = OmniRL(OmniRLConfig(7, 3, 32, 1, 2, layout="fused", mixer="mamba2"))
    steps = [torch.zeros(2, 4, dtype=torch.int64) for _ in range(3)] + [torch.zeros(2, 4)]
    memory = detach(model(*steps).memory)
    with pytest.raises(OmniRLError, match="leave out `segment`"):
        model(*steps, memory=memory)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_are_given_queries_keys_and_values_of_one_type(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    given: list[torch.dtype] = []

    def mix(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        given.extend(part.dtype for part in (q, k, v))
        return gated_delta(q, k, v, *rest)

    monkeypatch.setattr(GatedDeltaNet, "_mix", staticmethod(mix))
    layer = GatedDeltaNet(OmniRLConfig(4, 2, 64, 1, 4, mixer="gated_deltanet"))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        layer(torch.randn(2, 5, 64), layer.empty_memory(2), Context(0, None, torch.arange(5), False))
    assert given == [dtype] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_the_kernel_gives_what_the_pytorch_form_gives(dtype: torch.dtype) -> None:
    q, k, v, g, beta, state = (array.cuda() for array in inputs(2, 130, 3, 32, 64))
    q, k, v, beta = (array.to(dtype) for array in (q, k, v, beta))
    ours, theirs = gated_delta(q, k, v, g, beta, state), GatedDeltaNet._mix(q, k, v, g, beta, state)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.float(), other.float(), atol=3e-2, rtol=3e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("mixer", [*GPU_MIXERS, "gated_deltanet"])
@pytest.mark.parametrize("layout", ["fused", "star"])
def test_on_a_gpu_segments_and_steps_give_the_logits_of_one_pass(mixer: str, layout: str) -> None:
    torch.manual_seed(0)
    model = OmniRL(OmniRLConfig(7, 3, 128, 2, 2, layout=layout, mixer=mixer)).eval().cuda()
    steps = [torch.randint(n, (2, 128)).cuda() for n in (7, 8, 4)] + [torch.randn(2, 128).cuda()]
    whole = model(*steps).policy_logits
    memory, pieces = None, []
    for cut in (slice(0, 64), slice(64, 120)):
        output = model(*(array[:, cut] for array in steps), memory=memory)
        memory, pieces = output.memory, [*pieces, output.policy_logits]
    for t in range(120, 128):
        model.policy(torch.zeros_like(steps[0][:, t]), memory)  # asked for nothing: the memory stays
        output = model.step(*(array[:, t] for array in steps), memory=memory)
        memory, pieces = output.memory, [*pieces, output.policy_logits[:, None]]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=2e-2, rtol=2e-2)
