"""The module: positions, tables kept between calls, dtypes and devices, checkpoints, mistakes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

import fope.embedding
from fope import FopeConfig, FopeError, FourierPositionEmbedding, fope_basis, fope_tables
from fope.frequencies import Yarn, yarn
from fope.functional import factored_basis


def built(seed: int = 0, **changes: object) -> FourierPositionEmbedding:
    settings = {"head_dim": 16, "num_heads": 2, "train_length": 100} | changes
    return FourierPositionEmbedding(FopeConfig(**settings), generator=torch.Generator().manual_seed(seed))


def queries_and_keys(T: int = 12, group: int = 2, head_dim: int = 16, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, heads, T, head_dim, generator=generator) for heads in (2 * group, 2)]


def test_gain_zero_without_clipping_is_rope() -> None:
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, head_dim=16)
    q, k = queries_and_keys(T=300)
    cos, sin = LlamaRotaryEmbedding(config)(q, torch.arange(300)[None])
    theirs = apply_rotary_pos_emb(q, k, cos, sin)
    ours = built(init_gain=0.0, clip=False, angle_dtype="float32")(q, k)
    assert all(torch.allclose(a, b, atol=5e-7, rtol=0) for a, b in zip(ours, theirs, strict=True))
    table, _ = built(init_gain=0.0, clip=False, angle_dtype="float32").cos_sin(300)
    assert torch.equal(table[0], cos[0, :, :8])  # to the bit
    exact = built(init_gain=0.0, clip=False)(q, k)
    assert torch.allclose(exact[0], theirs[0], atol=2e-4)


def test_tables_are_the_formula() -> None:
    for changes in ({}, {"oversample": 3}, {"zero_sin": 0.0}, {"max_pairs": 2}, {"rotary_dim": 8}):
        embedding = built(**changes)
        positions = torch.tensor([0, 3, 77, 12])
        expected = fope_tables(positions, embedding.config.bank(), embedding.cos_coef, embedding.sin_coef)
        for ours, table in zip(embedding.cos_sin(positions), expected, strict=True):
            assert ours.dtype == torch.float32
            assert torch.allclose(ours, table, atol=1e-6)


@given(
    pairs=st.integers(2, 20),
    group=st.integers(1, 3),
    length=st.integers(7, 3000),
    gain=st.sampled_from([0.0, 0.3, 1.0]),
    zero_sin=st.sampled_from([0.0, 1.0]),
    start=st.integers(0, 3000),
)
@settings(max_examples=25, deadline=None)
def test_scores_depend_on_distance_only_without_the_series(
    pairs: int, group: int, length: int, gain: float, zero_sin: float, start: int
) -> None:
    embedding = built(head_dim=2 * pairs, train_length=length, init_gain=gain, zero_sin=zero_sin)
    q, k = queries_and_keys(T=6, group=group, head_dim=2 * pairs)

    def scores(start: int) -> torch.Tensor:
        a, b = embedding(q, k, torch.arange(start, start + 6))
        return a @ b.repeat_interleave(group, dim=1).transpose(-1, -2)

    change = (scores(start + 1) - scores(start)).abs().max()
    if gain == 0:
        assert change < 1e-4
    else:
        assert change > 1e-4


def test_zero_phase_doubles_the_content_of_its_channels() -> None:
    q, k = queries_and_keys(group=1)
    with_one, with_none = built(zero_sin=1.0), built(zero_sin=0.0)
    R, P = with_one.config.num_kept, with_one.config.num_pairs
    assert R < P
    scores = [a @ b.transpose(-1, -2) for a, b in (with_one(q, k), with_none(q, k))]
    channels = [*range(R, P), *range(P + R, 2 * P)]
    content = q[..., channels] @ k[..., channels].transpose(-1, -2)
    assert torch.allclose(scores[0] - scores[1], content, atol=1e-5)


def test_positions_in_pieces_in_other_orders_and_in_batches() -> None:
    embedding = built()
    q, k = queries_and_keys()
    full = embedding(q, k)
    pieces = [embedding(q[:, :, a:b], k[:, :, a:b], torch.arange(a, b)) for a, b in ((0, 5), (5, 6), (6, 12))]
    assert torch.allclose(torch.cat([piece[0] for piece in pieces], dim=2), full[0], atol=1e-6)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = embedding(q[:, :, order], k[:, :, order], order)
    assert torch.allclose(shuffled[1], full[1][:, :, order], atol=1e-6)
    batched = embedding(q, k, torch.stack([torch.arange(12), order]))
    assert torch.allclose(batched[0][0], full[0][0], atol=1e-6)
    assert torch.allclose(batched[0][1], embedding(q, k, order)[0][1], atol=1e-6)
    assert torch.equal(embedding(q, k, torch.arange(12)[None].expand(2, -1))[0], full[0])


def test_tables_are_built_once_and_again_when_coefficients_change() -> None:
    embedding = built()
    first, _ = embedding.cos_sin(10)
    assert embedding.cos_sin(torch.arange(3, 9))[0].data_ptr() == first[:, 3:].data_ptr()  # a view
    with torch.no_grad():
        embedding.cos_coef.mul_(2)
    assert torch.allclose(embedding.cos_sin(10)[0], 2 * first)
    embedding.cos_coef = embedding.cos_coef / 2
    assert torch.allclose(embedding.cos_sin(10)[0], first)
    assert embedding.cos_sin(10)[0].transpose(0, 1).is_contiguous()  # [T, H, R], as heads lie in memory


def test_tables_built_in_inference_mode_serve_training() -> None:
    embedding = built()
    q, k = queries_and_keys()
    with torch.inference_mode():
        embedding(q, k)
    q.requires_grad_()
    embedding(q, k)[0].sum().backward()
    assert q.grad is not None


def test_long_positions_use_the_factored_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = built()
    positions = torch.tensor([2**20 - 1, 5, 2**19])
    expected = fope_tables(positions, embedding.inv_freq, embedding.cos_coef, embedding.sin_coef)
    monkeypatch.setattr(fope.embedding, "fope_basis", None)
    ours = embedding.cos_sin(positions)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, expected, strict=True))
    assert embedding._tables is None


def test_on_a_device_the_basis_is_made_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """From float32 factors, and anew where the positions are others or were written to."""
    made: list[torch.Tensor] = []

    def factored(positions: torch.Tensor, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        made.append(factors)
        return factored_basis(positions, factors)

    monkeypatch.setattr(fope.embedding, "factored_basis", factored)
    monkeypatch.setattr(fope.embedding, "fope_basis", None)
    layers = [built(seed).to("meta") for seed in range(3)]
    positions = torch.arange(7, device="meta")[None]

    def forward() -> None:
        for layer in layers:
            assert layer.cos_sin(positions)[0].shape == (1, 2, 7, layer.config.num_kept)

    forward()
    assert len(made) == 1
    assert (made[0].dtype, made[0].device.type) == (torch.float32, "meta")
    positions.add_(1)
    forward()
    assert len(made) == 2
    layers[0].set_inv_freq(layers[0].inv_freq / 2)
    forward()
    assert len(made) == 4  # two banks, in turn
    with torch.inference_mode():
        positions = torch.arange(7, device="meta")
        layers[0].cos_sin(positions)
        layers[0].cos_sin(positions)
    assert len(made) == 6  # written to without a trace


def test_device_factors_give_the_basis_of_any_position() -> None:
    embedding = built()
    positions = torch.tensor([0, 5, 2**16, 2**20 - 1, 2**31 - 1])
    ours = fope.embedding._basis_on_device(positions, embedding.frequencies, "float64")
    for part, exact in zip(ours, fope_basis(positions, embedding.inv_freq), strict=True):
        assert torch.allclose(part, exact, atol=1e-6)
    plain = fope.embedding._basis_on_device(positions, embedding.frequencies, "float32")
    assert torch.equal(plain[0], fope_basis(positions, embedding.inv_freq.float())[0])


def test_positions_on_the_cpu_and_coefficients_elsewhere() -> None:
    """Short, longer than tables are kept for, and trained."""
    for embedding in (built(), built(learnable=True)):
        embedding.to("meta")
        for positions in (torch.tensor([5, 2]), torch.tensor([[0, 5, 2**20]])):
            cos, _ = embedding.cos_sin(positions)
            assert cos.device.type == "meta"


def test_kernels_get_the_factored_basis_and_the_coefficients() -> None:
    embedding = built(separate_heads=False)
    assert embedding.factors(2**12).shape == (2, 64, embedding.config.num_frequencies, 2)
    assert embedding.coef.shape == (2, 2, embedding.config.num_frequencies, embedding.config.num_kept)
    assert torch.equal(embedding.coef[1, 1], embedding.sin_coef[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"separate_heads": False},
        {"normalize": True},
        {"direction": -1},
        {"interleaved": True},
        {"rotary_dim": 8},
        {"learnable": True},
        {"angle_dtype": "float32"},
        {"separate_basis": False, "learnable": True},
    ],
)
def test_compiled_whole_it_gives_the_same(changes: dict[str, object]) -> None:
    torch.compiler.reset()
    embedding = built(**changes)
    q, k = queries_and_keys()
    expected = embedding(q, k)
    compiled = torch.compile(embedding, fullgraph=True, backend="aot_eager")
    for positions in (None, torch.arange(12), torch.arange(12).expand(2, -1)):
        for ours, theirs in zip(compiled(q, k, positions), expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
def test_compiled_by_inductor_it_trains() -> None:
    embedding = built(learnable=True)
    q, k = queries_and_keys()
    gradients = []
    for module in (embedding, torch.compile(embedding, fullgraph=True)):
        embedding.zero_grad()
        sum(x.square().sum() for x in module(q, k)).backward()
        gradients.append(embedding.cos_coef.grad.clone())
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-4)


def test_the_other_direction_is_the_transpose() -> None:
    q, k = queries_and_keys()
    x = q.clone().requires_grad_()
    forward, _ = built()(x, k)
    forward.backward(k.repeat_interleave(2, dim=1))
    backward, _ = built(direction=-1)(k.repeat_interleave(2, dim=1), k)
    assert torch.allclose(x.grad, backward, atol=1e-6)


def test_shared_heads_have_one_table() -> None:
    cos, _ = built(separate_heads=False).cos_sin(5)
    assert cos.shape[0] == 2
    assert torch.equal(cos[0], cos[1])
    assert cos.stride(0) == 0


def test_trained_coefficients_get_gradients() -> None:
    embedding = built(learnable=True)
    q, k = queries_and_keys()
    a, b = embedding(q, k)
    (a[:, ::2] @ b.transpose(-1, -2)).square().sum().backward()
    assert embedding.cos_coef.grad.abs().min() > 0
    assert embedding.sin_coef.grad.shape == (2, embedding.config.num_frequencies, embedding.config.num_kept)
    tied = built(learnable=True, separate_basis=False)
    assert tied.cos_coef is tied.sin_coef
    assert len(list(tied.parameters())) == 1


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.double()])
def test_coefficients_stay_float32(cast: object) -> None:
    embedding = built()
    before = embedding.cos_coef.clone()
    model = cast(torch.nn.Sequential(torch.nn.Linear(2, 2), embedding))
    assert model[0].weight.dtype != torch.float32
    assert torch.equal(model[1].cos_coef, before)
    assert model.state_dict()["1.sin_coef"].dtype == torch.float32
    q, k = (x.bfloat16() for x in queries_and_keys())
    assert model[1](q, k)[0].dtype == torch.bfloat16


def test_autocast_does_not_touch_the_rotation() -> None:
    q, k = queries_and_keys()
    for embedding in (built(), built(learnable=True)):
        expected = embedding(q, k)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(embedding(q, k)[0], expected[0])
            assert embedding.cos_sin(4)[0].dtype == torch.float32


def test_made_on_the_meta_device_it_has_the_same_values_later() -> None:
    with torch.device("meta"):
        waiting = built(seed=7)
    assert waiting.cos_coef.is_meta
    assert torch.equal(waiting.to_empty(device="cpu").cos_coef, built(seed=7).cos_coef)
    torch.manual_seed(0)
    one, two = (FourierPositionEmbedding(FopeConfig(16, 2, 100)) for _ in range(2))
    assert not torch.equal(one.cos_coef, two.cos_coef)


def test_copies_pickles_and_checkpoints_are_the_same_embedding() -> None:
    embedding = built()
    table, _ = embedding.cos_sin(5)
    for other in (copy.deepcopy(embedding), pickle.loads(pickle.dumps(embedding))):
        assert torch.equal(other.cos_sin(5)[0], table)
    fresh = built(seed=1)
    assert not torch.equal(fresh.cos_sin(5)[0], table)
    fresh.load_state_dict(embedding.state_dict())
    assert torch.equal(fresh.cos_sin(5)[0], table)
    assert list(embedding.state_dict()) == ["cos_coef", "sin_coef"]


def test_a_rescaled_bank() -> None:
    embedding = built()
    embedding.cos_sin(5)
    embedding.set_inv_freq(yarn(embedding.inv_freq, 16, 1e4, Yarn(original_length=100)))
    expected = fope_tables(torch.arange(5), embedding.inv_freq, embedding.cos_coef, embedding.sin_coef)
    assert torch.allclose(embedding.cos_sin(5)[0], expected[0], atol=1e-6)
    with pytest.raises(FopeError, match=r"expected \d+ frequencies"):
        embedding.set_inv_freq(torch.ones(99))


def test_checkpoints_that_do_not_fit_are_refused() -> None:
    embedding = built()
    state = embedding.state_dict()
    with pytest.raises(FopeError, match="sin_coef is missing in the checkpoint"):
        embedding.load_state_dict({"cos_coef": state["cos_coef"]}, strict=False)
    assert embedding.load_state_dict({}, strict=False).missing_keys == ["cos_coef", "sin_coef"]
    with pytest.raises(RuntimeError, match="Missing key"):
        embedding.load_state_dict({})
    other = FourierPositionEmbedding(FopeConfig(16, 2, 400))
    with pytest.raises(FopeError, match=r"keep R=3 pairs and the checkpoint has R=4"):
        embedding.load_state_dict(other.state_dict())
    state["cos_coef"] = state["cos_coef"].clone()
    state["cos_coef"][1, 0, 2] = float("nan")
    with pytest.raises(FopeError, match=r"cos_coef\[1, 0, 2\] is nan"):
        embedding.load_state_dict(state)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (torch.tensor([0, 1, -3]), r"position_ids\[2\] is -3"),
        (torch.tensor([[0, 1, 2], [0, 2**31, 2]]), r"position_ids\[1, 1\] is 2147483648"),
        (torch.tensor([0.0, 1.0, 2.0]), "whole numbers, got torch.float32"),
        (torch.zeros(1, 1, 3, dtype=torch.long), r"\[T\] or \[B, T\], got \[1, 1, 3\]"),
    ],
)
def test_impossible_positions_are_named(positions: torch.Tensor, message: str) -> None:
    with pytest.raises(FopeError, match=message):
        built()(*queries_and_keys(T=3), positions)


def test_heads_that_do_not_fit_are_named() -> None:
    q, k = torch.zeros(1, 32, 3, 16), torch.zeros(1, 8, 3, 16)
    with pytest.raises(FopeError, match="coefficients are per KV head: got 32, k has 8 heads"):
        built(num_heads=32)(q, k)
    with pytest.raises(FopeError, match="q has 3 heads, which 2"):
        built()(q[:, :3], k[:, :2])
    with pytest.raises(FopeError, match="expected head_dim 16"):
        built()(q[:, :2, :, :8], k[:, :2, :, :8])
    with pytest.raises(FopeError, match=r"q is \[3, 16\]; expected \[B, heads, T, 16\]"):
        built()(q[0, 0], k[0, 0])
    with pytest.raises(FopeError, match=r"x is torch\.int64; queries and keys must be floating point"):
        built()(q[:, :2].long(), k[:, :2].long())
    with pytest.raises(FopeError, match="too close to zero"):
        built(normalize=True, init="eye_normal", init_gain=5.0, num_heads=64).cos_sin(3)
    if torch.cuda.is_available():
        with pytest.raises(FopeError, match="generator is on cuda"):
            FourierPositionEmbedding(FopeConfig(16, 2, 100), generator=torch.Generator("cuda"))


def test_a_position_for_each_of_the_same_tokens() -> None:
    q, k = queries_and_keys(T=3)
    with pytest.raises(FopeError, match=r"q has 1 tokens, k 3, position_ids are None: .* is rotated already"):
        built()(q[:, :, -1:], k)
    with pytest.raises(FopeError, match=r"q has 3 tokens, k 3, position_ids are \[5\]"):
        built()(q, k, torch.arange(5))


def test_in_place_and_an_empty_sequence() -> None:
    q, k = queries_and_keys()
    expected = built(zero_sin=0.0)(q, k)
    ours = built(zero_sin=0.0)(q, k, inplace=True)
    assert torch.allclose(ours[0], expected[0])
    assert ours[0] is not None
    assert torch.equal(q, ours[0])
    assert built()(*queries_and_keys(T=0))[0].shape == (2, 4, 0, 16)
