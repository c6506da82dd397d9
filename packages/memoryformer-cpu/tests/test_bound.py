"""A look-up bound to its tensors, for loops."""

from __future__ import annotations

import pytest
import torch

from memoryformer_cpu import raw


@pytest.mark.parametrize("int8", [False, True])
def test_a_bound_look_up_computes_what_z_then_holds(int8: bool) -> None:
    z, tables, bias = torch.randn(2, 3, 4), torch.randn(3, 16, 10), torch.randn(10)
    scales = None
    if int8:
        tables, scales = torch.randint(-127, 128, (3, 16, 10), dtype=torch.int8), torch.rand(3, 16)
    y, look_up = raw.bound(z, tables, bias, scales, "softmax", 0.5)
    for _ in range(3):
        z.normal_()
        look_up()
        assert torch.equal(y, raw.output(z, tables, bias, scales, "softmax", 0.5))


def test_the_tensors_of_a_bound_look_up_stay_alive() -> None:
    z = torch.randn(1, 3, 4)
    tables = torch.randn(3, 16, 10)
    expected = raw.output(z, tables)
    y, look_up = raw.bound(z, tables.clone())
    junk = [torch.full((3, 16, 10), 7.0) for _ in range(20)]
    look_up()
    assert torch.equal(y, expected)
    assert len(junk) == 20


def test_a_z_that_would_be_copied_is_refused() -> None:
    with pytest.raises(ValueError, match="z must be contiguous"):
        raw.bound(torch.randn(1, 4, 3).transpose(1, 2), torch.randn(3, 16, 10))
