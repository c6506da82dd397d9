"""Messages for wrong arguments, and the choice and loading of the library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad

import memoryformer_cpu
from memoryformer_cpu import memory_lookup, native, raw

Z, TABLES, Q = torch.randn(2, 3, 4), torch.randn(3, 16, 5), torch.zeros(3, 16, 5, dtype=torch.int8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Z[0], TABLES), r"expected z \[N, K, tau\] .* got z \[3, 4\] and tables \[3, 16, 5\]"),
        ((torch.randn(2, 3, 17), TABLES), r"tau 1 to 16"),
        ((Z[:, :0], TABLES[:0]), r"K >= 1"),
        ((Z, TABLES[:2]), r"z \[2, 3, 4\] needs tables \[3, 16, h\]; got \[2, 16, 5\]"),
        ((Z, TABLES[:, :8]), r"needs tables \[3, 16, h\]; got \[3, 8, 5\]"),
        ((Z.int(), TABLES), r"z is torch.int32; it must be float32, bfloat16, float16 or float64"),
        ((Z, TABLES.int()), r"tables are torch.int32 for z of torch.float32"),
        ((Z, TABLES.double()), r"or float64 for z of float64"),
        ((Z, TABLES.to("meta")), r"tables are on meta; this look-up runs on the CPU"),
        ((Z, TABLES, torch.zeros(4)), r"bias is torch.float32 \[4\] on cpu; expected floats \[5\]"),
        ((Z, Q), r"tables are torch.int8 without scales; int8 tables need float32 scales \[K, 2\*\*tau\]"),
        ((Z, TABLES, None, torch.ones(3, 1)), r"tables are torch.float32 with scales"),
        (
            (Z, Q, None, torch.ones(3, 2)),
            r"scales are torch.float32 \[3, 2\] on cpu; expected float32 \[3, 16\]",
        ),
        ((Z, TABLES, None, None, "linear"), r"score is 'linear'; it must be 'scaled' or 'softmax'"),
        ((Z, TABLES, None, None, "scaled", 0.0), r"temperature is 0.0; it must be above 0"),
        ((Z, TABLES, None, None, "scaled", float("nan")), r"temperature is nan"),
    ],
)
def test_forward_says_what_is_wrong(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        raw.forward(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("operand", ["z", "tables", "bias", "grad_y"])
def test_forward_mode_is_refused_and_not_zero(operand: str) -> None:
    given = {"z": Z.clone(), "tables": TABLES, "bias": torch.ones(5), "grad_y": torch.ones(2, 5)}
    with forward_ad.dual_level():
        given[operand] = forward_ad.make_dual(given[operand], torch.ones_like(given[operand]))
        z, grad_y = given["z"].requires_grad_(), given.pop("grad_y")
        with pytest.raises(ValueError, match=r"a look-up has no forward-mode derivative .* in reverse"):
            torch.autograd.grad(memory_lookup(**given), z, grad_y)


def test_jvp_is_refused_unless_the_look_up_has_no_part_in_it() -> None:
    one, mapped = torch.ones(5), torch.vmap(lambda one: memory_lookup(one, TABLES))
    with pytest.raises(ValueError, match="no forward-mode derivative"):
        torch.func.jvp(mapped, (Z,), (Z,))
    assert torch.func.jvp(lambda w: mapped(Z) * w, (one,), (one,))[1].equal(memory_lookup(Z, TABLES))


def test_a_code_that_is_no_row_is_an_error_and_not_a_read_out_of_range() -> None:
    _, codes, weights = raw.forward(Z, TABLES)
    for wrong in (16, -1):
        codes[1, 2] = wrong
        with pytest.raises(ValueError, match="codes has a number that is no row of its table"):
            raw.backward(torch.zeros(2, 5), Z, TABLES, codes, weights)


def test_backward_says_what_is_wrong() -> None:
    _, codes, weights = raw.forward(Z, TABLES)
    g = torch.zeros(2, 5)
    with pytest.raises(ValueError, match=r"grad_y is \[2, 4\] on cpu; expected \[2, 5\]"):
        raw.backward(g[:, :4], Z, TABLES, codes, weights)
    with pytest.raises(ValueError, match=r"codes are torch\.float32; they must be integers"):
        raw.backward(g, Z, TABLES, codes.float(), weights)
    with pytest.raises(ValueError, match=r"weights are torch\.float64; for z of torch\.float32 they are"):
        raw.backward(g, Z, TABLES, codes, weights.double())
    with pytest.raises(ValueError, match="quantized tables are for inference"):
        raw.backward(g, Z, Q, codes, weights)


def test_int8_tables_have_no_gradient_for_the_input_either() -> None:
    with pytest.raises(ValueError, match="quantized tables are for inference"):
        memory_lookup(Z.clone().requires_grad_(), Q, scales=torch.ones(3, 1)).sum().backward()


def test_the_instruction_set_can_be_chosen_and_no_other_than_the_processors() -> None:
    assert memoryformer_cpu.available()
    assert memoryformer_cpu.instruction_set() in native.INSTRUCTION_SETS
    with pytest.raises(ValueError, match=r"instruction set 'sse9': this processor has portable"):
        native.use("sse9")
    with pytest.raises(ValueError, match=r"MEMORYFORMER_CPU_ISA=avx512: this processor has portable, avx2"):
        native.number("avx512", 1, "MEMORYFORMER_CPU_ISA=avx512")


def test_the_environment_chooses_the_instruction_set() -> None:
    code = "import memoryformer_cpu; print(memoryformer_cpu.instruction_set())"
    environment = {**os.environ, "MEMORYFORMER_CPU_ISA": "portable"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (run.stdout.strip(), run.returncode) == ("portable", 0)


def test_a_missing_library_is_said_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memoryformer_cpu, "__path__", [str(tmp_path)])
    with pytest.raises(native.LibraryMissingError, match=r"was not compiled.*pip install --force-reinstall"):
        native.library_path()


def test_huge_pages_change_no_number_and_small_tables_have_none() -> None:
    tables = torch.arange(4 << 20, dtype=torch.int32).view(torch.float32).view(4, 256, -1)
    before = tables.clone()
    memoryformer_cpu.huge_pages(tables)  # the system may refuse
    assert torch.equal(tables.view(torch.int32), before.view(torch.int32))
    assert not memoryformer_cpu.huge_pages(tables[:1, :2].contiguous())
    with pytest.raises(ValueError, match="expected contiguous tables on the CPU"):
        memoryformer_cpu.huge_pages(tables[:, ::2])


@pytest.mark.skipif(sys.platform != "linux", reason="torch's OpenMP library is spoken to on Linux")
def test_the_threads_are_torchs_own() -> None:
    assert native.torch_parallel_region() is not None
