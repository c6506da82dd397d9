from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from memoryformer import MemoryBlock, MemoryFormerError, MemoryLayer, machine
from memoryformer import functional as MF


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_tables_and_bias_have_the_sizes_and_the_spread_of_the_authors_code() -> None:
    layer = MemoryLayer(64, 96, tau=8)
    assert layer.tables.shape == (8, 256, 96)
    assert layer.bias is not None
    assert layer.bias.shape == (96,)
    assert layer.tables.dtype == torch.float32
    # 196,608 draws: the standard error of the deviation is 0.02 / sqrt(2 · 196,608) = 0.00003.
    assert layer.tables.std().item() == pytest.approx(0.02, abs=2e-4)
    assert layer.bias.std().item() == pytest.approx(0.001, rel=0.4)
    assert MemoryLayer(64, 96, 8, init_std=0.1).tables.std().item() == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 0, 24), (2, 3, 4, 24)])
def test_the_layer_is_the_look_up_of_its_chunks(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    layer = MemoryLayer(24, 10, tau=6, score="softmax", temperature=0.5)
    x = torch.randn(shape).to(dtype)
    y = layer(x)
    assert y.shape == (*shape[:-1], 10)
    assert y.dtype == dtype
    z = x.view(*shape[:-1], 4, 6)
    expected = MF.memory_lookup(z, layer.tables, layer.bias, score="softmax", temperature=0.5)
    assert torch.equal(y, expected)


@pytest.mark.parametrize(
    ("dtype", "weights"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]
)
def test_hash_gives_the_rows_and_weights_that_make_up_y(dtype: torch.dtype, weights: torch.dtype) -> None:
    layer = MemoryLayer(24, 10, tau=6, dtype=torch.float64 if dtype == torch.float64 else None)
    x = torch.randn(2, 5, 24).to(dtype)
    codes, w = layer.hash(x)
    assert (codes.shape, codes.dtype) == ((2, 5, 4), torch.int64)
    assert (w.shape, w.dtype) == ((2, 5, 4), weights)
    rows = layer.tables[torch.arange(4), codes].to(w.dtype)
    assert layer.bias is not None
    expected = (w[..., None] * rows).sum(2) + layer.bias
    torch.testing.assert_close(
        layer(x).to(w.dtype), expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-12, atol=1e-5
    )


def test_a_layer_without_bias_has_none() -> None:
    layer = MemoryLayer(8, 4, 4, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["tables"]
    assert "bias=False" in repr(layer)


@pytest.mark.parametrize("name", ["tables", "bias"])
def test_tables_and_bias_can_be_computed_by_a_parametrization(name: str) -> None:
    class Double(torch.nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return 2 * values

    layer = MemoryLayer(24, 10, tau=6).requires_grad_(False)
    before = copy.deepcopy(layer)
    torch.nn.utils.parametrize.register_parametrization(layer, name, Double())
    x = torch.randn(3, 24)
    assert not torch.equal(layer(x), before(x))
    assert torch.equal(layer(x), MF.memory_lookup(x.view(3, 4, 6), layer.tables, layer.bias))


def test_it_learns_what_no_linear_layer_can() -> None:
    # The parity of three signs: linear least squares explains nothing of it, one table of 8 rows all.
    x = torch.randn(2000, 3)
    y = x.sign().prod(1, keepdim=True)
    layer = MemoryLayer(3, 1, tau=3, score="softmax")
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        F.mse_loss(layer(x), y).backward()
        optimizer.step()
    signs = layer(x).detach().sign()
    assert (signs == y).all()


def test_the_authors_layout_loads_row_by_row() -> None:
    layer = MemoryLayer(12, 5, tau=4)
    official = torch.randn(3 * 16, 5)
    layer.load_state_dict({"tables": official, "bias": torch.zeros(5)})
    for k, row in ((0, 0), (1, 15), (2, 7)):
        assert torch.equal(layer.tables[k, row], official[16 * k + row])
    block = MemoryBlock(12, tau=4)
    state = {
        name: x.flatten(0, 1) if name.endswith("tables") else x for name, x in block.state_dict().items()
    }
    MemoryBlock(12, tau=4).load_state_dict(state)
    meta = MemoryLayer(12, 5, tau=4, device="meta")
    meta.load_state_dict({"tables": official, "bias": torch.zeros(5)}, assign=True)
    assert meta.tables.data_ptr() == official.data_ptr()


def test_the_authors_layout_of_another_tau_is_refused() -> None:
    with pytest.raises(
        MemoryFormerError,
        match=re.escape(
            "layer1.tables is [48, 15]; with 4 chunks of tau = 3 and 20 outputs it must be [32, 20]"
        ),
    ):
        MemoryBlock(12, tau=3).load_state_dict({"layer1.tables": torch.zeros(48, 15)})


def test_state_goes_round_and_copies_are_independent() -> None:
    layer, other = MemoryLayer(24, 10, 6), MemoryLayer(24, 10, 6)
    x = torch.randn(3, 24)
    other.load_state_dict(layer.state_dict())
    copied = copy.deepcopy(layer)
    assert torch.equal(other(x), layer(x))
    torch.nn.init.zeros_(layer.tables)
    assert torch.equal(copied(x), other(x))


def test_tables_beyond_the_free_memory_are_refused_before_they_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """4 tables of 256 rows of 64 numbers: 262,144 bytes in float32, half in bfloat16, none on meta."""
    monkeypatch.setattr(machine, "free_bytes", lambda device: 200_000 if device.type == "cpu" else None)
    message = (
        r"4 tables of 256 rows of 64 numbers need 0\.0 GB in float32, and cpu has 0\.0 GB free: choose a sma"
    )
    with pytest.raises(MemoryFormerError, match=message):
        MemoryLayer(32, 64, 8)
    with pytest.raises(MemoryFormerError, match="of 1,024 rows of 32 numbers"):
        MemoryBlock(32, 8, dtype=torch.bfloat16)
    assert MemoryLayer(32, 64, 8, dtype=torch.bfloat16).tables.shape == (4, 256, 64)
    with torch.device("meta"):
        assert MemoryLayer(4096, 4096, 16).tables.nbytes == 274_877_906_944
    with FakeTensorMode():
        assert MemoryLayer(32, 64, 8).tables.shape == (4, 256, 64)


def test_what_torch_has_reserved_on_a_gpu_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 2500)
    assert machine.free_bytes(torch.device("cuda:0")) == 1500


def test_a_layer_on_meta_becomes_real_by_to_empty_and_reset() -> None:
    layer = MemoryLayer(64, 64, 8, device="meta").to_empty(device="cpu")
    layer.reset_parameters()
    assert layer.tables.std().item() == pytest.approx(0.02, abs=5e-4)


@pytest.mark.parametrize(
    ("settings", "middle", "second"),
    [
        ({"tau": 8, "expand_bits": 2}, 80, (8, 1024, 64)),
        ({"tau": 8, "expand_bits": 0}, 64, (8, 256, 64)),
        ({"tau": 4, "expand_bits": 3}, 112, (16, 128, 64)),
        ({"tau": 8, "expand": "tables"}, 128, (16, 256, 64)),
    ],
)
def test_widths_of_the_block(settings: dict[str, Any], middle: int, second: tuple[int, int, int]) -> None:
    block = MemoryBlock(64, **settings)
    assert block.layer1.out_features == block.layer2.in_features == middle
    assert block.norm.normalized_shape == (middle,)
    assert block.layer2.tables.shape == second
    assert block(torch.randn(2, 3, 64)).shape == (2, 3, 64)


@pytest.mark.parametrize("activation", [None, "gelu"])
def test_the_block_is_layer_norm_layer(activation: str | None) -> None:
    block = MemoryBlock(32, 4, 2, "softmax", 2.0, activation=activation)
    x = torch.randn(7, 32)
    middle = F.layer_norm(block.layer1(x), (48,), block.norm.weight, block.norm.bias, eps=1e-5)
    expected = block.layer2(F.gelu(middle) if activation else middle)
    assert torch.equal(block(x), expected)
    assert {(layer.score, layer.temperature) for layer in (block.layer1, block.layer2)} == {("softmax", 2.0)}


def test_the_middle_of_a_fresh_block_fetches_many_rows_of_each_table() -> None:
    # Zero mean within the block: without the norm, a shared offset would fix the signs of all tokens.
    block = MemoryBlock(64, tau=8)
    codes, _ = block.layer2.hash(block.norm(block.layer1(torch.randn(500, 64))))
    assert min(len(codes[:, k].unique()) for k in range(8)) > 200


LAYER = {"in_features": 512, "out_features": 512, "tau": 8}
WRONG_LAYERS = [
    (
        {"in_features": 510},
        "in_features is 510, which tau = 8 does not divide; the nearest widths are 504 and 512",
    ),
    ({"in_features": 5}, "in_features is 5, which tau = 8 does not divide; the nearest width is 8"),
    ({"in_features": 0}, "in_features is 0; it must be an integer, at least 1"),
    ({"out_features": -1}, "out_features is -1; it must be an integer, at least 1"),
    ({"tau": 0}, "tau is 0; it must be an integer from 1 to 16"),
    ({"tau": 8.0}, "tau is 8.0; it must be an integer from 1 to 16"),
    # 25 tables of 2^20 rows and 512 columns in float32: 53.7 GB.
    ({"tau": 20}, "tables of 2^20 rows and 12,800 columns would take 53,687,091,200 bytes"),
    ({"score": "relu"}, "unknown score 'relu'; it must be 'scaled' or 'softmax'"),
    ({"temperature": 0}, "temperature is 0; it must be positive and finite"),
    ({"temperature": -1.0}, "temperature is -1.0; it must be positive and finite"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_LAYERS, ids=[message for _, message in WRONG_LAYERS])
def test_impossible_layers_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MemoryFormerError, match=re.escape(message)):
        MemoryLayer(**(LAYER | changes))


WRONG_BLOCKS = [
    ({"expand_bits": 9}, "tau + expand_bits is 17; it must be an integer from 1 to 16"),
    ({"expand_bits": -1}, "expand_bits is -1; it must be an integer, 0 or more"),
    ({"expand": "rows"}, "unknown expand 'rows'; it must be 'bits' or 'tables'"),
    ({"activation": "relu"}, "unknown activation 'relu'; it must be None or 'gelu'"),
    (
        {"hidden_size": 100},
        "in_features is 100, which tau = 8 does not divide; the nearest widths are 96 and 104",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_BLOCKS, ids=[message for _, message in WRONG_BLOCKS])
def test_impossible_blocks_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MemoryFormerError, match=re.escape(message)):
        MemoryBlock(**({"hidden_size": 64} | changes))


WRONG_INPUTS = [
    (torch.zeros(3, 500), "expected an input [..., 512], got [3, 500], for MemoryLayer(512, 512, tau=8"),
    (torch.tensor(1.0), "expected an input [..., 512], got [], for MemoryLayer"),
    (torch.zeros(3, 512, dtype=torch.int64), "the input is int64; a Memory Layer hashes the signs of"),
    (torch.zeros(3, 512, device="meta"), "the input is on meta, tables on cpu: move the layer or the input"),
    (torch.zeros(3, 512, dtype=torch.complex64), "the input is complex64"),
]


@pytest.mark.parametrize(("x", "message"), WRONG_INPUTS, ids=[message for _, message in WRONG_INPUTS])
def test_inputs_that_do_not_fit_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(MemoryFormerError, match=re.escape(message)):
        MemoryLayer(**LAYER)(x)
