"""Log-probs and their gradients: kernels against PyTorch in float64, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from implicit_prm_triton import linear_log_probs, ops, reference
from implicit_prm_triton.backend import runs_kernels

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
# On a GPU the same tests run compiled, by `make gpu`; elsewhere in Triton's interpreter.
pytestmark = [pytest.mark.gpu] if ON_GPU else []


def arguments(
    rows: int = 5, width: int = 24, words: int = 70, bias: bool = True, dtype: torch.dtype = torch.float32
) -> list[Any]:
    """Hidden states, weight, targets and bias; hidden states have gaps in memory."""
    generator = torch.Generator().manual_seed(rows + words)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

    targets = torch.randint(words, (rows,), generator=generator).to(DEVICE)
    return [
        normal(rows, width + 3)[:, :width],
        normal(words, width),
        targets,
        normal(words) if bias else None,
    ]


def exact(given_: list[Any]) -> list[Any]:
    """The same in float64."""
    return [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in given_]


@settings(max_examples=12)
@given(st.integers(0, 70), st.integers(1, 70), st.sampled_from([1, 2, 63, 64, 65, 300]), st.booleans())
def test_any_shape_gives_the_definition(rows: int, width: int, words: int, bias: bool) -> None:
    given_ = arguments(rows, width, words, bias)
    assert runs_kernels(given_[0])
    expected = reference.linear_log_probs(*exact(given_))
    torch.testing.assert_close(linear_log_probs(*given_).double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype, bound: float) -> None:
    given_ = arguments(words=200, bias=False, dtype=dtype)
    found = linear_log_probs(*given_)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), reference.linear_log_probs(*exact(given_)), rtol=0, atol=bound)


def test_words_that_are_taken_out_and_huge_logits_leave_no_nan() -> None:
    hidden, weight, targets, bias = arguments(words=200)
    bias[:130] = float("-inf")  # two whole tiles and a part of the third
    targets[:] = 150
    given_ = [hidden * 1e3, weight, targets, bias]
    expected = reference.linear_log_probs(*exact(given_))
    torch.testing.assert_close(linear_log_probs(*given_).double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("chunk_size", [1, 2, 100])
def test_gradients_are_those_of_the_definition(chunk_size: int) -> None:
    given_ = arguments()
    leaves = [given_[place].detach().clone().requires_grad_() for place in (0, 1, 3)]
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    scale = torch.linspace(-1, 2, 5, device=DEVICE)
    found = linear_log_probs(leaves[0], leaves[1], given_[2], leaves[2], chunk_size=chunk_size)
    (found * scale).sum().backward()
    (reference.linear_log_probs(wide[0], wide[1], given_[2], wide[2]) * scale).sum().backward()
    for leaf, expected in zip(leaves, wide, strict=True):
        torch.testing.assert_close(leaf.grad.double(), expected.grad, rtol=0, atol=1e-5)


def sure_of(probability: float, dtype: torch.dtype) -> list[Any]:
    """Hidden states along their targets' words, so far that these have this probability; and the rest."""
    _, weight, targets, _ = arguments(rows=8, width=64, words=300, bias=False, dtype=dtype)
    direction, wide = weight[targets].double(), weight.double()
    low, high = torch.zeros(8, 1, device=DEVICE).double(), torch.ones(8, 1, device=DEVICE).double()
    for _ in range(50):
        middle = (low + high) / 2
        found = (middle * direction @ wide.T).softmax(1).gather(1, targets[:, None])
        low = torch.where(found < probability, middle, low)
        high = torch.where(found < probability, high, middle)
    return [(middle * direction).to(dtype), weight, targets]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("probability", [0.5, 0.98, 1 - 1e-6])
def test_gradients_in_half_precision_are_right_however_sure_the_model_is(
    probability: float, dtype: torch.dtype
) -> None:
    hidden, weight, targets = sure_of(probability, dtype)
    leaves = [x.detach().clone().requires_grad_() for x in (hidden, weight)]
    wide = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    expected = reference.linear_log_probs(*wide, targets)
    assert (1 - expected.exp()).log().mean().item() == pytest.approx(math.log(1 - probability), abs=0.2)
    scale = 2.0**10  # as float16 is trained, since slopes of 1e-6 are hardly numbers of it
    (linear_log_probs(*leaves, targets) * scale).sum().backward()
    (expected * scale).sum().backward()
    # A logit that is wrong by e makes p wrong by the factor exp(e).
    of_logits = torch.finfo(dtype).eps / 2 * (wide[0] @ wide[1].T).max().item()
    for leaf, exact_one in zip(leaves, wide, strict=True):
        wrong = (leaf.grad.double() - exact_one.grad).norm() / exact_one.grad.norm()
        assert wrong < of_logits + torch.finfo(dtype).eps


def test_no_gradient_is_worked_out_that_nobody_needs() -> None:
    hidden, weight, targets, bias = arguments()
    hidden = hidden.detach().clone().requires_grad_()
    linear_log_probs(hidden, weight, targets, bias).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None
    assert bias.grad is None


def test_the_same_inputs_give_the_same_bits() -> None:
    given_ = arguments(rows=40, words=300)
    assert torch.equal(linear_log_probs(*given_), linear_log_probs(*given_))


@pytest.mark.parametrize("bias", [False, True])
def test_the_operator_is_sound(bias: bool) -> None:
    hidden, weight, targets, found = arguments(rows=3, words=9, bias=bias)
    hidden, weight = hidden.detach().clone().requires_grad_(), weight.requires_grad_()
    torch.library.opcheck(ops.log_probs_op, (hidden, weight, targets, found, 2))


def test_float64_is_pytorch_s_and_passes_gradcheck() -> None:
    hidden, weight, targets, bias = exact(arguments(rows=3, width=4, words=5))
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]
    assert torch.autograd.gradcheck(lambda h, w, b: linear_log_probs(h, w, targets, b), leaves)


@pytest.mark.parametrize("place", [0, 1, 3, 4], ids=["hidden", "weight", "bias", "the gradient"])
def test_forward_mode_is_refused_and_not_zero(place: int) -> None:
    given_ = [*arguments(rows=3), torch.ones(3, device=DEVICE)]
    with forward_ad.dual_level():
        given_[place] = forward_ad.make_dual(given_[place], torch.ones_like(given_[place]))
        hidden = given_[0].requires_grad_()
        with pytest.raises(ValueError, match=r"no forward-mode derivative .* in reverse"):
            torch.autograd.grad(linear_log_probs(*given_[:4]), hidden, given_[4])


def test_bad_input_is_named() -> None:
    hidden, weight, targets, bias = arguments()
    for changed, message in (
        ((hidden[0], weight, targets), r"must be \[N, d\] and \[V, d\]"),
        ((hidden, weight[:, 1:], targets), r"must be \[N, d\] and \[V, d\]"),
        ((hidden.half(), weight, targets), "of one float dtype"),
        ((hidden, weight, targets[1:]), r"needed: int64 \[5\], one a row"),
        ((hidden, weight, targets.int()), r"needed: int64 \[5\], one a row"),
        ((hidden, weight, targets, bias[1:]), r"bias \(69,\) must be \[70\]"),
    ):
        with pytest.raises(ValueError, match=message):
            linear_log_probs(*changed)
    with pytest.raises(ValueError, match="chunk_size is 0"):
        linear_log_probs(hidden, weight, targets, chunk_size=0)
