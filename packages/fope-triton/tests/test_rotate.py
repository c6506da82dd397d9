"""Rotation: kernels against PyTorch in float64, gradients, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

import fope_triton
from fope import FopeConfig, FourierPositionEmbedding
from fope_triton import backend, rotate_ops

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
# On a GPU the same tests run compiled, by `make gpu`; elsewhere in Triton's interpreter.
pytestmark = [pytest.mark.gpu] if ON_GPU else []
ROWS = 40
TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 2e-6}


def rotation(
    tokens: int = 19,
    group: int = 3,
    heads: int = 2,
    head_dim: int = 32,
    dtype: torch.dtype = torch.float32,
    factored: bool = False,
    strided: bool = False,
    zero_sin: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Arguments of `fope_rotate`; where `strided`, as [heads, N, channels] with gaps lies in memory."""
    generator = torch.Generator().manual_seed(seed)

    def normal(count: int) -> Tensor:
        shape = (count, tokens, head_dim + 3) if strided else (tokens, count, head_dim)
        x = torch.randn(*shape, generator=generator).to(DEVICE, dtype)
        return x[..., :head_dim].transpose(0, 1) if strided else x

    config = FopeConfig(head_dim=head_dim, num_heads=heads, train_length=100)
    emb = FourierPositionEmbedding(config, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    tables = (emb.factors(4096), emb.coef) if factored else emb.cos_sin(torch.arange(ROWS, device=DEVICE))
    return {
        "q": normal(heads * group),
        "k": normal(heads),
        "cos": tables[0],
        "sin": tables[1],
        "positions": torch.randint(0, ROWS, (tokens,), generator=generator).to(DEVICE),
        "zero_sin": zero_sin,
    }


def in_float64(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: x.detach().double().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x
        for name, x in arguments.items()
    }


def expected(arguments: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return rotate_ops.rotate_by_torch(**arguments, inplace=False)


@settings(max_examples=10, deadline=None)
@given(
    tokens=st.sampled_from([0, 1, 16, 19, 33]),
    group=st.sampled_from([1, 3]),
    heads=st.integers(1, 2),
    head_dim=st.sampled_from([32, 64, 256]),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    factored=st.booleans(),
    strided=st.booleans(),
    zero_sin=st.sampled_from([0.0, 1.0]),
    inplace=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_rotation_is_the_definition(inplace: bool, **shape: Any) -> None:
    arguments = rotation(**shape)
    wanted = expected(in_float64(arguments))
    got = fope_triton.fope_rotate(**arguments, inplace=inplace)
    assert not inplace or (got[0] is arguments["q"] and got[1] is arguments["k"])
    tolerance = TOLERANCE[shape["dtype"]]
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("factored", [False, True], ids=["tables", "factors"])
def test_gradients_are_the_definition_s(factored: bool) -> None:
    """Of queries, keys, and of tables or coefficients, where positions come again."""
    arguments = rotation(factored=factored)
    learn = ["q", "k", "sin"] if factored else ["q", "k", "cos", "sin"]
    for name in learn:
        arguments[name] = arguments[name].detach().clone().requires_grad_()
    precise = in_float64(arguments)
    grads = [torch.randn(arguments[name].shape, device=DEVICE) for name in ("q", "k")]
    got = torch.autograd.grad(fope_triton.fope_rotate(**arguments), [arguments[n] for n in learn], grads)
    wanted = torch.autograd.grad(
        expected(precise), [precise[n] for n in learn], [x.double() for x in grads]
    )  # fmt: skip
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, atol=2e-5, rtol=1e-5)
    again = torch.autograd.grad(fope_triton.fope_rotate(**arguments), [arguments[n] for n in learn], grads)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


@pytest.mark.filterwarnings("ignore:Input #")
def test_gradcheck() -> None:
    """Twice: the backward pass is a rotation too. Linear in each input, so steps may be large in float32."""
    a = rotation(tokens=2, group=1, heads=1)
    positions = a["positions"]
    inputs = [a[name].detach().clone().requires_grad_() for name in ("q", "k", "cos", "sin")]

    def rotate(*x: Tensor) -> tuple[Tensor, Tensor]:
        return fope_triton.fope_rotate(*x, positions, 0.5)

    tolerances = {"eps": 0.5, "atol": 2e-3, "rtol": 1e-3}
    torch.autograd.gradcheck(rotate, inputs, **tolerances, fast_mode=True)
    tables = [x.detach() for x in inputs[2:]]
    torch.autograd.gradgradcheck(lambda q, k: rotate(q, k, *tables), inputs[:2], **tolerances, fast_mode=True)


@pytest.mark.parametrize("operand", ["q", "k", "cos", "sin", "the gradient"])
def test_forward_mode_is_refused_and_not_zero(operand: str) -> None:
    a = rotation(tokens=3)
    given = {name: x for name, x in a.items() if name in ("q", "k", "cos", "sin")}
    given["the gradient"] = torch.ones_like(a["q"])
    with forward_ad.dual_level():
        given[operand] = forward_ad.make_dual(given[operand], torch.ones_like(given[operand]))
        q, dq = given["q"].requires_grad_(), given.pop("the gradient")
        with pytest.raises(ValueError, match=r"no forward-mode derivative .* in reverse"):
            torch.autograd.grad(fope_triton.fope_rotate(**(a | given))[0], q, dq)


@pytest.mark.parametrize("factored", [False, True], ids=["tables", "factors"])
def test_opcheck(factored: bool) -> None:
    a = rotation(tokens=3, factored=factored)
    q, k = (a[name].transpose(0, 1)[None] for name in "qk")
    rest = (a["cos"].detach(), a["sin"].detach().clone().requires_grad_(), a["positions"], 1.0)
    torch.library.opcheck(
        rotate_ops.rotate_op, (q.clone().requires_grad_(), k.clone().requires_grad_(), *rest, False, factored)
    )
    torch.library.opcheck(
        rotate_ops.rotate_inplace_op, (q, k, rest[0], rest[1].detach(), *rest[2:], factored)
    )
    torch.library.opcheck(rotate_ops.table_grads_op, (q, k, q.clone(), k.clone(), 2, 9, False))


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["not interpreted", "bfloat16"])
@pytest.mark.parametrize("inplace", [False, True], ids=["new", "in place"])
def test_without_a_gpu_pytorch_computes_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, inplace: bool
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    backend.warn_once.cache_clear()
    twice = [rotation(dtype=dtype) for _ in range(2)]
    wanted = expected(in_float64(twice[0]))
    with pytest.warns(UserWarning, match="computes on cpu with PyTorch") as said:
        got = [fope_triton.fope_rotate(**arguments, inplace=inplace) for arguments in twice]
    assert len(said) == 1
    torch.testing.assert_close(got[0][0].double(), wanted[0], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [32, 64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("factored", [False, True], ids=["tables", "factors"])
def test_every_shipped_tile_compiled(head_dim: int, dtype: torch.dtype, factored: bool) -> None:
    arguments = rotation(tokens=300, head_dim=head_dim, dtype=dtype, factored=factored)
    got, wanted = fope_triton.fope_rotate(**arguments), expected(in_float64(arguments))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, atol=max(TOLERANCE[dtype], 1e-5), rtol=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(3, 7, 32)}, "q has 7 heads, which 2 KV heads do not divide"),
        ({"q": torch.zeros(3, 6, 64)}, r"expected q \[N, Hq, head_dim\] and k \[N, H, head_dim\], got"),
        ({"q": torch.zeros(3, 6, 32).half()}, "dtype or device differ"),
        (
            {"q": torch.zeros(3, 6, 48), "k": torch.zeros(3, 2, 48)},
            "head_dim is 48; there are kernels for 32",
        ),
        ({"q": torch.zeros(3, 6, 32).double(), "k": torch.zeros(3, 2, 32).double()}, "must be bfloat16"),
        ({"positions": torch.tensor([0, 1, 40])}, "positions go from 0 to 40; the tables have 40 rows"),
        ({"positions": torch.tensor([0, -1, 4])}, "positions go from -1 to 4"),
        ({"positions": torch.tensor([0.5, 1, 2])}, "positions is torch.float32; it must be int32 or int64"),
        ({"cos": torch.zeros(6, 40, 9)}, r"a table a KV head, got \[6, 40, 9\]"),
        ({"q": torch.zeros(3, 6, 32, requires_grad=True), "inplace": True}, "inplace=True is for inference"),
        ({"q": torch.zeros(3, 32, 6).mT, "inplace": True}, "needs channels side by side"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    arguments = {name: x.cpu() if isinstance(x, Tensor) else x for name, x in rotation(tokens=3).items()}
    with pytest.raises(ValueError, match=message):
        fope_triton.fope_rotate(**(arguments | change))
