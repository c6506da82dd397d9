"""Compiled ahead of time: what is shipped is in the golden table, and rows are fetched 16 bytes a load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import memoryformer_triton as mt
from memoryformer_triton.report import access_bits

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden_kernels.json"
# The loads of the look-up for one target, width and dtype of the tables.
LOADS = """
import json, sys
from pathlib import Path
import triton
from memoryformer_triton import aot, shipped

texts = []
triton.knobs.compilation.listener = lambda metadata_group, **_: texts.extend(
    Path(path).read_text() for name, path in metadata_group.items() if name.endswith(".ptx")
)
for width, dtype in ((1024, "bf16"), (1000, "bf16"), (1024, "i8"), (1001, "bf16")):
    aot.compile_spec(shipped.lookup_specs("sm_90", dtype, width, 8)[0])
json.dump(texts, sys.stdout)
"""


def run(code: str) -> str:
    """Run Python where kernels are not interpreted, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_tile_is_in_the_golden_table() -> None:
    """What is shipped and what is known to be sound are the same, before anything is compiled."""
    script = (
        "import json; from memoryformer_triton.aot import entries;"
        "print(json.dumps([[s.name, s.dtype, s.head_dim, s.target] for s in entries()]))"
    )
    shipped = [tuple(key) for key in json.loads(run(script))]
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["rows"]
    assert len(shipped) == len(set(shipped))
    assert set(shipped) == {(row["kernel"], row["dtype"], row["head_dim"], row["target"]) for row in golden}
    assert all(row["spill_bytes"] == 0 for row in golden)


def test_every_choice_of_flags_is_compiled() -> None:
    """What only a launcher would ask for could spill unseen. `token_grad` is never asked for nothing."""
    script = (
        "import json; from memoryformer_triton.aot import entries\n"
        "found = {}\n"
        "for s in entries():\n"
        "    flags = {name: value for name, value in s.constexprs.items() if type(value) is bool}\n"
        "    found.setdefault(s.fn.__name__, set()).add(tuple(sorted(flags.items())))\n"
        "print(json.dumps({name: sorted(flags) for name, flags in found.items()}))"
    )
    compiled = json.loads(run(script))
    choices = {
        "lookup": 4,
        "hash_lookup": 8,
        "hash_chunks": 2,
        "input_grad": 2,
        "table_grad": 4,
        "add_pieces": 1,
    }
    assert {name: len(flags) for name, flags in compiled.items()} == choices | {"token_grad": 3}
    for name, count in choices.items():
        assert {2 ** len(flags) for flags in compiled[name]} == {count}


def test_rows_are_fetched_16_bytes_a_load() -> None:
    """16 tokens by 256 columns: 32 numbers a thread, 4 loads in bfloat16; 16 and 1 in int8, with 8 warps.

    A width of 1000 divides by 8 numbers, that is 16 bytes; 1001 does not, and each number is a load. Codes
    are bytes, weights and scales 32 bits. In int8 a thread has one column of the bias, which is one load.
    """
    even, by_8, quantized, odd = (
        Counter(re.findall(r"ld\.global\.(?:v\d\.)?b\d+", text)) for text in json.loads(run(LOADS))
    )
    for loads in (even, by_8):
        assert loads["ld.global.v4.b32"] == 4
        assert loads["ld.global.b16"] == 0
    assert quantized["ld.global.v4.b32"] >= 1
    assert quantized["ld.global.b16"] == 1
    assert quantized["ld.global.b8"] < 16
    assert odd["ld.global.v4.b32"] == 0
    assert odd["ld.global.b16"] >= 32


def test_report_of_every_kernel_with_no_gpu() -> None:
    rows = {row["kernel"]: row for row in mt.aot_report(arch="sm_90", hidden=512, tau=8, dtype="bfloat16")}
    forward, backward = {"lookup", "hash_lookup", "hash"}, {"table_grad", "add_pieces", "input_grad"}
    assert set(rows) == forward | backward | {"token_grad", "token_grad_q"}
    for row in rows.values():
        assert row["spills"] == 0
        assert row["max_access_bits"] == 128
        assert 8 < row["regs"] <= 128
        assert 0 <= row["shared"] <= 16_384


def test_widths_of_loads_and_stores() -> None:
    nvidia = (
        "@%p1 ld.global.L1::evict_last.v4.b32 {..}; st.global.b8 [..]; atom.global.gpu.relaxed.add.v4.f32"
    )
    assert access_bits(nvidia) == [128, 8, 128]
    assert access_bits("global_load_dwordx4 v[0:3]\n global_store_short v1\n buffer_load_ubyte v2") == [
        128,
        16,
        8,
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "sm_89"}, "unknown arch 'sm_89'; there are sm_80, sm_86, sm_90, sm_100, gfx942"),
        ({"dtype": "float64"}, "dtype is float64; it must be one of bfloat16, float16, float32, int8"),
        ({"hidden": 0}, "hidden is 0"),
        ({"tau": 17}, "tau from 1 to 16"),
    ],
)
def test_mistakes_in_a_report(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mt.aot_report(**change)


@pytest.mark.long
def test_what_is_not_in_the_golden_table_does_not_spill_either() -> None:
    """float16, other widths and other tau, on three targets; the check at every commit leaves them out."""
    script = (
        "from memoryformer_triton import aot, shipped\n"
        "cases = [('fp16', 1024, 8), ('bf16', 1280, 8), ('bf16', 64, 4), ('fp32', 99, 16), ('i8', 768, 10)]\n"
        "for target in ('sm_80', 'sm_90', 'gfx942'):\n"
        "    for dtype, width, tau in cases:\n"
        "        for spec in shipped.kernel_specs(target, dtype, width, tau):\n"
        "            found = aot.compile_spec(spec).faults()\n"
        "            assert not found, found\n"
    )
    run(script)
