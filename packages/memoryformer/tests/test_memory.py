"""Where tables lie: in the checkpoint's own file, and in huge pages."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from memoryformer import (
    MemoryBlock,
    MemoryFormerConfig,
    MemoryFormerError,
    MemoryFormerForCausalLM,
    MemoryLayer,
    backends,
    quantize_tables_,
    use_huge_pages_,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of the memory")


def region(x: torch.Tensor) -> str:
    """What Linux tells of the region of memory that x lies in, its first line with the file's name."""
    regions = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    for described in regions[1:]:
        first, last = (int(address, 16) for address in described.split(" ", 1)[0].split("-"))
        if first <= x.data_ptr() < last:
            return described
    raise AssertionError("not in this process")


def resident_kb(x: torch.Tensor) -> int:
    (size,) = re.findall(r"^Rss: +(\d+) kB", region(x), flags=re.MULTILINE)
    return int(size)


def test_a_look_up_in_a_checkpoint_reads_the_rows_it_needs_and_no_more(tmp_path: Path) -> None:
    # 32 tables of 2 MB, of which one token needs 32 rows of 8 KB; Linux reads some 64 KB around each.
    path = tmp_path / "layer.safetensors"
    save_file({"tables": torch.zeros(32, 256, 2048), "bias": torch.zeros(2048)}, path)
    with path.open("rb") as file:  # what was just written is in memory; let it go
        os.fsync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    layer = MemoryLayer(256, 2048, tau=8, device="meta")
    layer.load_state_dict(load_file(path), assign=True)
    assert path.name in region(layer.tables)
    with torch.no_grad():
        layer(torch.randn(1, 256))
    assert resident_kb(layer.tables) < 32 * 2048 / 10


@pytest.mark.parametrize("dtype", [None, "int8"])
def test_from_pretrained_leaves_the_tables_in_the_file(dtype: str | None, tmp_path: Path) -> None:
    config = MemoryFormerConfig(
        vocab_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, tau=8, expand_bits=0
    )
    model = MemoryFormerForCausalLM(config)
    if dtype is not None:
        quantize_tables_(model, dtype)
    model.save_pretrained(tmp_path)
    loaded = MemoryFormerForCausalLM.from_pretrained(tmp_path)
    stored = {name: x for name, x in loaded.state_dict().items() if name.endswith("tables")}
    assert len(stored) == 3
    assert all("model.safetensors" in region(x) for x in stored.values())


@pytest.mark.parametrize("dtype", [None, "int8", "bfloat16"])
def test_huge_pages_change_the_memory_and_no_result(dtype: str | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(MemoryBlock(64, tau=8)).eval()
    if dtype is not None:
        quantize_tables_(model, dtype)
    x = torch.randn(5, 64)
    with backends.use("torch"), torch.no_grad():
        expected = model(x)
        assert use_huge_pages_(model) is model
        assert torch.equal(model(x), expected)
    for layer in (model[0].layer1, model[0].layer2):
        (flags,) = re.findall("^VmFlags: (.*)$", region(layer.tables), flags=re.MULTILINE)
        assert "hg" in flags.split()  # huge pages were asked for


def test_huge_pages_are_refused_where_there_is_nothing_to_put_there() -> None:
    with pytest.raises(MemoryFormerError, match="Linear has no layer with tables"):
        use_huge_pages_(nn.Linear(2, 2))
    with pytest.raises(MemoryFormerError, match=r"the tables of 0 are on meta, not on the CPU"):
        use_huge_pages_(nn.Sequential(MemoryLayer(8, 8, 4, device="meta")))


def test_new_tables_ask_for_huge_pages() -> None:
    layer = MemoryLayer(256, 1024, tau=8)  # tables of 32 MB
    for made in (layer, quantize_tables_(layer), quantize_tables_(MemoryLayer(256, 1024, tau=8), "bfloat16")):
        (flags,) = re.findall("^VmFlags: (.*)$", region(made.tables[16]), flags=re.MULTILINE)
        assert "hg" in flags.split()
