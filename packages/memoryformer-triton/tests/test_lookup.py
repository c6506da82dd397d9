"""The look-up: kernels against PyTorch in float64, gradients, bad input."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

import memoryformer_triton as mt
from memoryformer_triton import backend, gather, hashing, ops, reference

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
# On a GPU the same tests run compiled, by `make gpu`; elsewhere in Triton's interpreter.
pytestmark = [pytest.mark.gpu] if ON_GPU else []
# Of the largest number; the interpreter cuts bfloat16 off where GPUs round.
TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 2e-6, torch.float64: 1e-13}
FLOATS = list(TOLERANCE)


def arguments(
    tokens: int = 5,
    chunks: int = 3,
    tau: int = 3,
    width: int = 33,
    dtype: torch.dtype = torch.float32,
    tables: torch.dtype | None = None,
    bias: bool = True,
    score: str = "scaled",
    temperature: float = 1.0,
    strided: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Arguments of `memory_lookup`; where `strided`, z and the tables have gaps in memory."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype) -> Tensor:
        x = torch.randn(*shape[:-1], shape[-1] + 2 * strided, generator=generator).to(DEVICE, dtype)
        return x[..., : shape[-1]]

    tables = tables or dtype
    return {
        "z": normal(tokens, chunks, tau, dtype=dtype),
        "tables": normal(chunks, 2**tau, width, dtype=tables),
        "bias": normal(width, dtype=tables) if bias else None,
        "score": score,
        "temperature": temperature,
    }


def learning(given_: dict[str, Any], dtype: torch.dtype | None = None) -> dict[str, Any]:
    """The same with leaves that take gradients, in another dtype where one is given."""
    return {
        name: x.detach().to(dtype or x.dtype).requires_grad_() if isinstance(x, Tensor) else x
        for name, x in given_.items()
    }


def expected(given_: dict[str, Any]) -> Tensor:
    return reference.lookup(**({"scales": None} | given_))


def leaves(given_: dict[str, Any]) -> list[Tensor]:
    return [given_[name] for name in ("z", "tables", "bias") if given_[name] is not None]


def assert_close(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    """To a part of the largest number; both empty is equal."""
    assert got.shape == wanted.shape
    if wanted.numel():
        largest = float(wanted.abs().max())
        torch.testing.assert_close(got.double(), wanted.double(), atol=tolerance * largest, rtol=0)


def test_figure_3_by_hand() -> None:
    """Bits 001, 100, 111. p = Π 1/(1 + e^(-2|z|)): for the first chunk 0.900250 · 0.995504 · 0.768525."""
    z = torch.tensor([[-1.1, -2.7, 0.6], [3.4, -1.9, -2.3], [3.1, 0.6, 0.1]], device=DEVICE)
    p = torch.tensor([0.688753, 0.967307, 0.421705], device=DEVICE)
    codes, weights = mt.hash(z, score="softmax")
    assert codes.tolist() == [1, 4, 7]
    assert codes.dtype == torch.uint8
    torch.testing.assert_close(weights, p, atol=1e-6, rtol=0)
    _, scaled = mt.hash(z)
    torch.testing.assert_close(scaled, p * torch.tensor([4.4, 7.6, 3.8], device=DEVICE), atol=1e-5, rtol=0)


@pytest.mark.parametrize("tau", range(1, 7))
def test_the_weight_is_the_softmax_over_all_sign_patterns(tau: int) -> None:
    """Eq. 9: exp<z, sign z>/t over the sum of exp<z, u>/t for the 2^tau patterns u."""
    z = torch.randn(4, tau, dtype=torch.float64, generator=torch.Generator().manual_seed(tau))
    patterns = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=tau)), dtype=torch.float64)
    every = torch.softmax(z @ patterns.T / 0.5, dim=1)
    codes, weights = mt.hash(z.to(DEVICE), score="softmax", temperature=0.5)
    torch.testing.assert_close(weights.cpu(), every.max(1).values, atol=0, rtol=1e-12)
    assert codes.tolist() == every.argmax(1).tolist()  # patterns are in the order of their codes


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("tau", [8, 9, 16])
def test_codes_are_exact_in_every_dtype(dtype: torch.dtype, tau: int) -> None:
    """Summed in bfloat16, codes above 256 would be rounded."""
    rows = torch.tensor([0, 1, 257, 2**tau - 1, 2**tau // 3]) % 2**tau
    bits = rows[:, None] >> torch.arange(tau - 1, -1, -1) & 1
    codes, _ = mt.hash((bits * 2 - 1).to(DEVICE, dtype))
    assert codes.tolist() == rows.tolist()
    assert codes.dtype == (torch.uint8 if tau == 8 else torch.int32)


def test_zero_nan_and_large_numbers() -> None:
    """±0 are 1, NaN is 0 and makes its weight NaN; exp(-2|z|) of a large z is 0, of 0 is 1."""
    nan, inf = float("nan"), float("inf")
    z = torch.tensor([[0.0, -0.0], [nan, 1.0], [-1e30, 1e30], [inf, -inf]], device=DEVICE)
    codes, weights = mt.hash(z, score="softmax")
    assert codes.tolist() == [3, 1, 1, 2]
    torch.testing.assert_close(weights, torch.tensor([0.25, nan, 1, 1], device=DEVICE), equal_nan=True)


@pytest.mark.parametrize("tokens", [2, gather.FEW_TOKENS + 1])
def test_nan_makes_its_own_token_nan(tokens: int) -> None:
    given_ = arguments(tokens=tokens)
    given_["z"][1, 0, 2] = float("nan")
    y = mt.memory_lookup(**given_)
    assert y[1].isnan().all()
    assert y[torch.arange(tokens) != 1].isfinite().all()


@settings(max_examples=15, deadline=None)
@given(
    tokens=st.sampled_from([0, 1, 3, 65, 81]),
    chunks=st.sampled_from([1, 3, 17]),
    tau=st.integers(1, 5),
    width=st.sampled_from([1, 16, 33, 130]),
    dtype=st.sampled_from(FLOATS),
    tables=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    bias=st.booleans(),
    score=st.sampled_from(["scaled", "softmax"]),
    temperature=st.sampled_from([0.5, 0.7, 1.0, 4.0]),
    strided=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_look_up_is_the_definition(**shape: Any) -> None:
    given_ = arguments(**shape)
    got = mt.memory_lookup(**given_)
    assert got.dtype == shape["dtype"]
    precise = {name: x.double() if isinstance(x, Tensor) else x for name, x in given_.items()}
    assert_close(got, expected(precise), TOLERANCE[shape["dtype"]])


@settings(max_examples=12, deadline=None)
@given(
    tokens=st.sampled_from([0, 1, 7, 40]),
    chunks=st.sampled_from([1, 3]),
    tau=st.integers(1, 4),
    width=st.sampled_from([1, 33, 300]),
    dtype=st.sampled_from(FLOATS),
    tables=st.sampled_from([torch.bfloat16, torch.float32]),
    bias=st.booleans(),
    score=st.sampled_from(["scaled", "softmax"]),
    temperature=st.sampled_from([0.5, 0.7, 1.0]),
    strided=st.booleans(),
    deterministic=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_gradients_are_the_definition_s(deterministic: bool, **shape: Any) -> None:
    given_ = learning(arguments(**shape))
    precise = learning(given_, torch.float64)
    g = torch.randn(shape["tokens"], shape["width"]).to(DEVICE, shape["dtype"])
    y = mt.memory_lookup(**given_, deterministic=deterministic)
    got = torch.autograd.grad(y, leaves(given_), g)
    wanted = torch.autograd.grad(expected(precise), leaves(precise), g.double())
    for x, a, b in zip(leaves(given_), got, wanted, strict=True):
        assert a.dtype == x.dtype
        assert_close(a, b, 2 * max(TOLERANCE[x.dtype], TOLERANCE[shape["dtype"]]))


class AsCompiled:
    """A kernel whose numbers of Python's become float32, as in a compiled one; the interpreter keeps them."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*given_: Any, **known: Any) -> None:
            rounded = [float(np.float32(x)) if isinstance(x, float) else x for x in given_]
            self.kernel[grid](*rounded, **known)

        return launch


@pytest.mark.parametrize("score", ["scaled", "softmax"])
@pytest.mark.parametrize("tokens", [5, gather.FEW_TOKENS + 1])
def test_float64_is_divided_by_the_temperature_in_float64(
    tokens: int, score: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((hashing, "hash_chunks"), (hashing, "input_grad"), (gather, "hash_lookup")):
        monkeypatch.setattr(module, name, AsCompiled(getattr(module, name)))
    given_ = learning(arguments(tokens=tokens, dtype=torch.float64, score=score, temperature=0.7))
    y, wanted = mt.memory_lookup(**given_), expected(given_)
    assert_close(y.detach(), wanted.detach(), 1e-13)
    g = torch.randn_like(y)
    pairs = zip(*(torch.autograd.grad(x, leaves(given_), g) for x in (y, wanted)), strict=True)
    for a, b in pairs:
        assert_close(a, b, 1e-13)
    _, weights = mt.hash(given_["z"], score=score, temperature=0.7)
    assert_close(weights, reference.hash_chunks(given_["z"], score, 0.7)[1], 1e-13)


def test_embedding_bag_gives_the_same() -> None:
    """`F.embedding_bag` over the tables one after the other, weighted: forward and gradients."""
    given_ = learning(arguments(tokens=9, bias=False))
    z, tables = given_["z"], given_["tables"]
    codes, weights = mt.hash(z)
    rows = codes + 8 * torch.arange(3, device=DEVICE)
    peer = F.embedding_bag(rows, tables.flatten(0, 1), per_sample_weights=weights, mode="sum")
    y = mt.memory_lookup(z, tables)
    torch.testing.assert_close(y, peer, atol=2e-6, rtol=1e-5)
    g = torch.randn_like(y)
    for a, b in zip(*(torch.autograd.grad(x, (z, tables), g) for x in (y, peer)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("score", ["scaled", "softmax"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_gradcheck(score: str, deterministic: bool) -> None:
    """In float64, at numbers away from 0, where the sign jumps."""
    given_ = arguments(tokens=2, chunks=2, tau=2, width=3, dtype=torch.float64)
    z = given_["z"]
    given_["z"] = z + 0.1 * z.sign()

    def look_up(z: Tensor, tables: Tensor, bias: Tensor) -> Tensor:
        return mt.memory_lookup(z, tables, bias, score=score, temperature=0.5, deterministic=deterministic)

    torch.autograd.gradcheck(look_up, leaves(learning(given_)), fast_mode=True)


def test_gradcheck_of_the_weights() -> None:
    z = torch.tensor([[0.3, -1.2], [-0.2, 0.7]], dtype=torch.float64, device=DEVICE, requires_grad=True)
    torch.autograd.gradcheck(lambda x: mt.hash(x, temperature=2.0)[1], z)


def test_a_second_derivative_is_refused() -> None:
    given_ = learning(arguments(tokens=1))
    y = mt.memory_lookup(**given_)
    (dz,) = torch.autograd.grad(y.sum(), given_["z"], create_graph=True)
    with pytest.raises(RuntimeError, match="lookup_backward"):
        dz.sum().backward()


@pytest.mark.parametrize("operand", ["z", "tables", "bias", "the gradient"])
def test_forward_mode_is_refused_and_not_zero(operand: str) -> None:
    given_ = arguments(tokens=2)
    given_["the gradient"] = torch.ones(2, 33, device=DEVICE)
    with forward_ad.dual_level():
        given_[operand] = forward_ad.make_dual(given_[operand], torch.ones_like(given_[operand]))
        z, dy = given_["z"].requires_grad_(), given_.pop("the gradient")
        with pytest.raises(ValueError, match=r"no forward-mode derivative .* in reverse"):
            torch.autograd.grad(mt.memory_lookup(**given_), z, dy)


def test_forward_mode_of_the_weights_is_refused_unless_they_have_no_part_in_it() -> None:
    z, one = arguments(tokens=2)["z"], torch.ones(2, 3, device=DEVICE)
    with pytest.raises(ValueError, match="no forward-mode derivative"):
        torch.func.jvp(lambda x: mt.hash(x)[1], (z,), (z,))
    assert torch.func.jvp(lambda w: mt.hash(z)[1] * w, (one,), (one,))[1].equal(mt.hash(z)[1])


def test_opcheck() -> None:
    given_ = learning(arguments(tokens=2, chunks=2, tau=2, width=5))
    z, tables, bias = leaves(given_)
    torch.library.opcheck(ops.lookup_op, (z, tables, bias, None, "scaled", 1.0, True))
    torch.library.opcheck(ops.hash_op, (z, "softmax", 0.5))
    z, tables = z.detach(), tables.detach()
    torch.library.opcheck(ops.input_grad_op, (z, torch.randn(2, 2, device=DEVICE), "scaled", 1.0))
    y, codes, weights = ops.lookup_op(z, tables, None, None, "scaled", 1.0, None)
    for needs in ([True, True, True], [False, True, False]):
        rest = (z, tables, codes, weights, "scaled", 1.0, needs, True)
        torch.library.opcheck(ops.lookup_backward_op, (torch.randn_like(y), *rest))


def test_compiled_it_is_one_graph() -> None:
    given_ = arguments(tokens=2, chunks=2, tau=2, width=5)
    compiled = torch.compile(lambda **x: mt.memory_lookup(**x) + 1, backend="eager", fullgraph=True)
    assert torch.equal(compiled(**given_), mt.memory_lookup(**given_) + 1)


def quantized(tables: Tensor, per_row: bool) -> tuple[Tensor, Tensor]:
    """int8 tables, and the scale of each row, or of each table."""
    largest = tables.abs().amax(-1 if per_row else (-2, -1)).view(len(tables), -1)
    scales = largest / 127
    return (tables / scales[..., None]).round().to(torch.int8), scales


@pytest.mark.parametrize("per_row", [True, False], ids=["row", "table"])
@pytest.mark.parametrize("tokens", [5, gather.FEW_TOKENS + 1])
def test_int8_tables_with_scales(per_row: bool, tokens: int) -> None:
    """The definition's result, and within 1% of the tables before (0.7% for Gaussian rows)."""
    given_ = arguments(tokens=tokens, chunks=18, width=130)
    before = expected(given_)
    given_["tables"], scales = quantized(given_["tables"], per_row)
    got = mt.memory_lookup(**given_, scales=scales)
    assert_close(got, expected(given_ | {"scales": scales}), 2e-6)
    if per_row:
        assert float((got - before).norm() / before.norm()) < 0.01


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
def test_without_a_gpu_pytorch_computes_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    backend.warn_once.cache_clear()
    given_ = learning(arguments(dtype=torch.bfloat16))
    precise = learning(given_, torch.float64)
    with pytest.warns(UserWarning, match="computes on cpu with PyTorch") as said:
        got, *_ = mt.memory_lookup(**given_), mt.memory_lookup(**given_), mt.hash(given_["z"])
    assert len(said) == 1
    assert_close(got, expected(precise), 1e-2)
    for a, b in zip(
        torch.autograd.grad(got.sum(), leaves(given_)),
        torch.autograd.grad(expected(precise).sum(), leaves(precise)),
        strict=True,
    ):
        assert_close(a, b, 2e-2)


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
def test_an_interpreter_asked_for_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "INTERPRETED", False)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET was set after memoryformer_triton was imported"):
        mt.memory_lookup(**arguments())


@pytest.mark.gpu
@pytest.mark.parametrize("width", [64, 100, 512, 1024, 1280, 3072])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("tokens", [3, 700])
@pytest.mark.parametrize("deterministic", [False, True])
def test_every_shipped_tile_compiled(
    width: int, dtype: torch.dtype, tokens: int, deterministic: bool
) -> None:
    given_ = learning(arguments(tokens=tokens, chunks=8, tau=8, width=width, dtype=dtype))
    precise = learning(given_, torch.float64)
    got = mt.memory_lookup(**given_, deterministic=deterministic)
    wanted = expected(precise)
    g = torch.randn_like(got)
    pairs = zip(
        (got, *torch.autograd.grad(got, leaves(given_), g)),
        (wanted, *torch.autograd.grad(wanted, leaves(precise), g.double())),
        strict=True,
    )
    for a, b in pairs:
        assert_close(a, b, max(TOLERANCE[dtype], 1e-5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": torch.zeros(5, 3, 4)}, r"z is \[5, 3, 4\] and tables are \[3, 8, 33\]; .*\(2\^4 = 16\)"),
        ({"z": torch.zeros(5, 2, 3)}, r"expected z \[\.\.\., K, tau\] and tables \[K, 2\^tau, h\]"),
        ({"z": torch.zeros(3)}, "expected z"),
        ({"z": torch.zeros(5, 3, 17)}, "tau from 1 to 16"),
        ({"z": torch.zeros(5, 3, 3, dtype=torch.int64)}, "z is int64; it must be bfloat16, float16"),
        ({"tables": torch.zeros(3, 8, 0)}, "none of them empty"),
        ({"tables": torch.zeros(3, 8, 33, dtype=torch.int32)}, "must be floating point or int8"),
        ({"tables": torch.zeros(3, 8, 33, dtype=torch.int8)}, "tables are int8 and scales are missing"),
        ({"scales": torch.ones(3, 8)}, "tables are float32 and scales were given"),
        ({"tables": torch.zeros(3, 8, 33, device="meta")}, "tables are on meta, z is on cpu"),
        ({"bias": torch.zeros(32)}, r"bias is \[32\] float32 on cpu; expected floating point \[33\]"),
        ({"score": "sofmax"}, "unknown score 'sofmax'; there are 'scaled' and 'softmax'"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be positive and finite"),
        ({"temperature": float("inf")}, "temperature is inf"),
        (
            {"tables": torch.zeros(3, 8, 33, dtype=torch.int8), "scales": torch.ones(3, 7)},
            r"scales are \[3, 7\] float32 on cpu; expected float32 \[3, 8\], one a row, or \[3, 1\]",
        ),
        (
            {
                "z": torch.zeros(5, 3, 3, requires_grad=True),
                "tables": torch.zeros(3, 8, 33, dtype=torch.int8),
                "scales": torch.ones(3, 8),
            },
            "quantized tables are for inference: call it under torch.no_grad",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    given_ = {name: x.cpu() if isinstance(x, Tensor) else x for name, x in arguments().items()}
    with pytest.raises(ValueError, match=message):
        mt.memory_lookup(**(given_ | change))
