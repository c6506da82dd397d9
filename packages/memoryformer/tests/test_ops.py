from __future__ import annotations

import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from memoryformer import MemoryFormerError, MemoryFormerWarning, MemoryLayer, backends, ops
from memoryformer import functional as MF

CPU_BACKENDS = ["torch"] + (["cpu"] if backends.name_for("cpu") == "cpu" else [])


@pytest.fixture(params=CPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with backends.use(request.param):
        yield request.param


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """z [7, 3, 4], tables [3, 16, 6] and bias [6], far enough from 0 for finite differences."""
    generator = torch.Generator().manual_seed(0)
    z, tables, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((7, 3, 4), (3, 16, 6), (6,))
    )
    z += 0.1 * z.sign()
    return z.to(dtype).requires_grad_(), tables.to(dtype).requires_grad_(), bias.to(dtype).requires_grad_()


@pytest.mark.parametrize("score", ["scaled", "softmax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("with_bias", [True, False])
def test_opcheck_of_the_look_up(backend: str, score: str, dtype: torch.dtype, with_bias: bool) -> None:
    z, tables, bias = problem(dtype)
    torch.library.opcheck(ops.lookup, (z, tables, bias if with_bias else None, None, score, 0.5))


def test_opcheck_with_int8_tables(backend: str) -> None:
    z = problem(torch.float32)[0].detach()
    tables = torch.randint(-127, 128, (3, 16, 6), dtype=torch.int8)
    torch.library.opcheck(ops.lookup, (z, tables, None, torch.rand(3, 16), "scaled", 1.0))


@pytest.mark.parametrize("needs", itertools.product([True, False], repeat=3))
def test_opcheck_of_the_backward_pass(backend: str, needs: tuple[bool, bool, bool]) -> None:
    z, tables, bias = (x.detach() for x in problem(torch.float32))
    y, codes, weights = ops.lookup(z, tables, bias, None, "scaled", 1.0)
    torch.library.opcheck(
        ops.lookup_backward, (torch.randn_like(y), z, tables, codes, weights, "scaled", 1.0, list(needs))
    )


@pytest.mark.parametrize("score", ["scaled", "softmax"])
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_gradcheck(backend: str, score: str, temperature: float) -> None:
    def lookup(z: Tensor, tables: Tensor, bias: Tensor) -> Tensor:
        return MF.memory_lookup(z, tables, bias, score=score, temperature=temperature)

    assert torch.autograd.gradcheck(lookup, problem())


def test_a_second_derivative_is_refused(backend: str) -> None:
    z, tables, _ = problem()
    (first,) = torch.autograd.grad(MF.memory_lookup(z, tables).sum(), z, create_graph=True)
    with pytest.raises(MemoryFormerError, match="a look-up has no second derivative"):
        torch.autograd.grad(first.sum(), tables)


def by_dual(lookup: Callable[[Tensor], Tensor], z: Tensor) -> None:
    with forward_ad.dual_level():
        lookup(forward_ad.make_dual(z, torch.ones_like(z)))


def by_dual_in_reverse(lookup: Callable[[Tensor], Tensor], z: Tensor) -> None:
    y = lookup(z.requires_grad_())
    with forward_ad.dual_level():
        torch.autograd.grad(y, z, forward_ad.make_dual(y.detach(), y.detach()))


FORWARD_MODES: dict[str, Callable[[Any, Tensor], object]] = {
    "jvp": lambda lookup, z: torch.func.jvp(lookup, (z,), (z,)),
    "jvp of vmap": lambda lookup, z: torch.func.jvp(torch.vmap(lambda one: lookup(one[None])), (z,), (z,)),
    "jacfwd": lambda lookup, z: torch.func.jacfwd(lookup)(z),
    "dual": by_dual,
    "dual in reverse": by_dual_in_reverse,
}


@pytest.mark.parametrize("mode", FORWARD_MODES)
@pytest.mark.parametrize("of", ["function", "layer"])
def test_forward_mode_is_refused_and_not_zero(backend: str, mode: str, of: str) -> None:
    z, tables, bias = (x.detach() for x in problem(torch.float32))
    layer = MemoryLayer(12, 6, 4).requires_grad_(False)
    lookup = {
        "function": lambda z: MF.memory_lookup(z, tables, bias),
        "layer": lambda z: layer(z.flatten(-2)),
    }
    message = "a look-up has no forward-mode derivative .* differentiate in reverse"
    with pytest.raises(MemoryFormerError, match=message):
        FORWARD_MODES[mode](lookup[of], z)


def test_forward_mode_passes_by_a_look_up_that_has_no_part_in_it(backend: str) -> None:
    z, tables, bias = (x.detach() for x in problem(torch.float32))
    y = MF.memory_lookup(z, tables, bias)
    one = torch.ones(6)
    _, tangent = torch.func.jvp(lambda w: MF.memory_lookup(z, tables, bias) * w, (one,), (one,))
    assert torch.equal(tangent, y)
    mapped = torch.vmap(lambda one: MF.memory_lookup(one[None], tables, bias)[0])
    torch.testing.assert_close(torch.func.jvp(lambda w: mapped(z) * w, (one,), (one,))[1], y)


def test_compiled_whole_it_gives_the_same_for_any_number_of_tokens(backend: str) -> None:
    z, tables, bias = problem(torch.float32)
    compiled = torch.compile(
        lambda *x: MF.memory_lookup(*x, score="softmax"), fullgraph=True, backend="aot_eager", dynamic=True
    )
    for tokens in (7, 5, 2):
        part = z[:tokens].detach().requires_grad_()
        ours, theirs = compiled(part, tables, bias), MF.memory_lookup(part, tables, bias, score="softmax")
        assert torch.equal(ours, theirs)
        g = torch.ones_like(ours)
        for a, b in zip(
            torch.autograd.grad(ours, (part, tables, bias), g),
            torch.autograd.grad(theirs, (part, tables, bias), g),
            strict=True,
        ):
            assert torch.equal(a, b)


def test_inductor_compiles_a_layer_for_inference_and_training(backend: str) -> None:
    layer = MemoryLayer(12, 6, 4)
    x = torch.randn(5, 12)
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))


def test_meta_and_fake_tensors_have_shapes_and_dtypes() -> None:
    layer = MemoryLayer(12, 6, 4, device="meta")
    y = layer(torch.empty(2, 5, 12, device="meta", dtype=torch.bfloat16))
    assert (y.shape, y.dtype, y.device.type) == ((2, 5, 6), torch.bfloat16, "meta")
    with torch.no_grad():
        assert layer(torch.empty(2, 12, device="meta")).shape == (2, 6)
    with FakeTensorMode():
        layer = MemoryLayer(12, 6, 4)
        layer(torch.randn(3, 12)).sum().backward()
        assert layer.tables.grad is not None
        assert layer.tables.grad.shape == (3, 16, 6)


def test_autocast_gives_its_dtype_and_casts_no_table_and_no_sign(backend: str) -> None:
    class Casts(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[int] = []

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten._to_copy.default:
                self.sizes.append(args[0].numel())
            return function(*args, **kwargs or {})

    z, tables, bias = problem(torch.float32)
    with torch.no_grad():
        z[0, 0, 0] = -1e-30  # would round to -0.0 in float16, and so become bit 1
    plain = MF.memory_lookup(z, tables, bias)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype), Casts() as casts:
            y = MF.memory_lookup(z, tables, bias)
        assert y.dtype == dtype
        assert torch.equal(y, plain.to(dtype))
        assert casts.sizes == [y.numel()]
        with torch.autocast("cpu", dtype), torch.no_grad():
            assert torch.equal(MF.memory_lookup(z, tables, bias), y)
        y.float().sum().backward()
        assert tables.grad is not None
        assert tables.grad.dtype == torch.float32


def test_autocast_leaves_float64(backend: str) -> None:
    z, tables, _ = problem()
    with torch.autocast("cpu", torch.bfloat16):
        assert MF.memory_lookup(z, tables).dtype == torch.float64


def test_operations_are_two_a_fetched_number_also_without_gradients(backend: str) -> None:
    z, tables, bias = problem(torch.float32)
    forward = 2 * 7 * 3 * 6
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        MF.memory_lookup(z, tables, bias)
    assert counter.get_total_flops() == forward
    for learning, passes in (("z", 2), ("tables", 2), ("both", 3)):
        arguments = (
            z if learning != "tables" else z.detach(),
            tables if learning != "z" else tables.detach(),
        )
        with FlopCounterMode(display=False) as counter:
            MF.memory_lookup(*arguments).sum().backward()
        assert counter.get_total_flops() == passes * forward


def test_without_gradients_the_kernel_is_called_directly_with_the_same_bits(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    z, tables, bias = problem(torch.float32)
    expected = MF.memory_lookup(z, tables, bias)
    monkeypatch.setattr(ops, "lookup", None)
    with torch.no_grad():
        assert torch.equal(MF.memory_lookup(z, tables, bias), expected)
    with torch.inference_mode():
        assert torch.equal(MF.memory_lookup(z, tables, bias), expected)
    assert torch.equal(MF.memory_lookup(z.detach(), tables.detach(), bias.detach()), expected)


def test_a_trace_keeps_the_operator() -> None:
    z, tables, _ = (x.detach() for x in problem(torch.float32))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(lambda z: MF.memory_lookup(z, tables), z)
        assert torch.equal(traced(2 * z), MF.memory_lookup(2 * z, tables))


def test_vmap_over_a_batch_is_the_batch(backend: str) -> None:
    z, tables, bias = problem(torch.float32)
    with torch.no_grad():
        mapped = torch.vmap(lambda one: MF.memory_lookup(one[None], tables, bias)[0])(z)
        torch.testing.assert_close(mapped, MF.memory_lookup(z, tables, bias))


def test_int8_tables_pass_no_gradient(backend: str) -> None:
    z = problem(torch.float32)[0]
    tables = torch.ones(3, 16, 6, dtype=torch.int8)
    y = MF.memory_lookup(z, tables, scales=torch.ones(3, 16))
    with pytest.raises(
        MemoryFormerError, match="quantized tables are for inference: no gradient passes through"
    ):
        y.sum().backward()


def compare_with_torch(device: str) -> None:
    """The Triton kernels behind the operator against PyTorch, with all gradients, and int8."""
    z, tables, bias = (x.detach().to(device).requires_grad_() for x in problem(torch.float32))
    whole = torch.randint(-127, 128, tables.shape, dtype=torch.int8, device=device)
    results = []
    for name in ("torch", "triton"):
        with backends.use(name):
            y = MF.memory_lookup(z, tables, bias)
            grads = torch.autograd.grad(y, (z, tables, bias), torch.ones_like(y))
            with torch.no_grad():
                assert torch.equal(MF.memory_lookup(z, tables, bias), y)
                by_int8 = MF.memory_lookup(z, whole, scales=torch.ones(3, 1, device=device))
            results.append((y, *grads, by_int8))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_the_triton_kernels_on_a_gpu_agree_with_pytorch() -> None:
    compare_with_torch("cuda")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("memoryformer_triton") is None, reason="needs memoryformer-triton")
def test_the_triton_kernels_in_the_interpreter_agree_with_pytorch() -> None:
    code = f"import runpy; runpy.run_path({__file__!r})['compare_with_torch']('cpu')"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # read when triton is imported
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_missing_kernel_package_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_installed", lambda name: name == "torch")
    backends._automatic.cache_clear()
    z, tables, _ = problem()
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(2):
                MF.memory_lookup(z, tables)
        assert [warning.category for warning in told] == [MemoryFormerWarning]
        assert "pip install memoryformer-cpu brings the kernels" in str(told[0].message)
        assert backends.name_for("cpu") == "torch"
    finally:
        backends._automatic.cache_clear()


@pytest.mark.skipif("cpu" not in CPU_BACKENDS, reason="needs memoryformer-cpu")
def test_an_instruction_set_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from memoryformer_cpu import native

    monkeypatch.setattr(native, "library", native.library.__wrapped__)  # as in a process that starts
    monkeypatch.setenv("MEMORYFORMER_CPU_ISA", "avx521")
    caches = (backends._automatic, backends._installed, backends._backend)
    try:
        for cache in caches:
            cache.cache_clear()
        message = "MEMORYFORMER_CPU_ISA=avx521: this processor has portable"
        with pytest.raises(MemoryFormerError, match=message):
            MemoryLayer(8, 4, 4)(torch.zeros(1, 8))
    finally:
        for cache in caches:
            cache.cache_clear()


def test_a_backend_can_be_named_and_a_wrong_name_is_an_error() -> None:
    with backends.use("torch"):
        assert backends.name_for("cpu") == backends.name_for("cuda") == "torch"
    message = "unknown backend 'numba'; there are cpu, triton, torch"
    with pytest.raises(MemoryFormerError, match=message), backends.use("numba"):
        pass


def test_a_named_backend_that_is_not_there_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_installed", lambda name: name == "torch")
    backends._backend.cache_clear()
    with (
        pytest.raises(MemoryFormerError, match="'triton' is not installed: pip install memoryformer-triton"),
        backends.use("triton"),
    ):
        pass
