"""The look-up in one call of the library: the same bits as the longer way, and what it leaves to that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from memoryformer_cpu import native, raw

pytestmark = pytest.mark.skipif(native.direct() is None, reason="this torch shows no tensors to C")

X, TABLES, BIAS = torch.randn(2, 3, 12), torch.randn(3, 16, 10), torch.randn(10)


def longer_way(x: Tensor, tables: Tensor, *rest: Any) -> Tensor:
    z = x.reshape(-1, tables.shape[0], tables.shape[1].bit_length() - 1)
    y, _, _ = raw.forward(z, tables, *rest)
    return y.view(*x.shape[:-1], tables.shape[2])


@pytest.mark.parametrize("z_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("table_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("score", ["scaled", "softmax"])
def test_one_call_gives_the_bits_of_the_longer_way(
    z_dtype: torch.dtype, table_dtype: torch.dtype, score: str, instruction_set: str
) -> None:
    x, tables, bias = X.to(z_dtype), TABLES.to(table_dtype), BIAS.to(table_dtype)
    for b in (bias, None):
        y = raw.direct(x, tables, b, None, score, 0.7)
        assert y is not None
        assert y.dtype == z_dtype
        assert torch.equal(y, longer_way(x, tables, b, None, score, 0.7))


@pytest.mark.parametrize("columns", [1, 16])
def test_one_call_takes_a_scale_a_row_or_a_scale_a_table(columns: int) -> None:
    tables, scales = torch.randint(-127, 128, (3, 16, 10), dtype=torch.int8), torch.rand(3, columns)
    y = raw.direct(X, tables, BIAS, scales)
    assert y is not None
    assert torch.equal(y, longer_way(X, tables, BIAS, scales))


def test_one_call_takes_tables_with_rows_apart_one_token_and_none() -> None:
    apart = torch.randn(3, 32, 20)[:, ::2, :10]
    for x in (X, X[0, 0], X[:0]):
        y = raw.direct(x, apart)
        assert y is not None
        assert torch.equal(y, longer_way(x, apart))


def test_nan_makes_a_token_nan_and_no_other() -> None:
    x = X.clone()
    x[0, 1, 5] = torch.nan
    y = raw.direct(x, TABLES)
    assert y is not None
    assert y.isnan().all(2).tolist() == [[False, True, False], [False, False, False]]
    assert y.isnan().sum() == 10


@pytest.mark.parametrize(
    "arguments",
    [
        (X.double(), TABLES),
        (X.int(), TABLES),
        (X.to("meta"), TABLES),
        (X, TABLES.to("meta")),
        (X, TABLES, BIAS.to("meta")),
        (X, TABLES.double()),
        (X, TABLES[0]),
        (X, TABLES[:2]),
        (X, TABLES[:, :15]),
        (X, TABLES[:, :8]),
        (X, TABLES.mT.contiguous().mT),
        (X[..., :11], TABLES),
        (X.transpose(0, 1), TABLES),
        (X, TABLES, BIAS[:9]),
        (X, TABLES, BIAS.double()),
        (X, TABLES, BIAS.repeat(2)[::2]),
        (X, TABLES, BIAS, torch.ones(3, 16)),
        (X, TABLES.to(torch.int8)),
        (X, TABLES.to(torch.int8), None, torch.ones(3, 16, dtype=torch.float64)),
        (X, TABLES.to(torch.int8), None, torch.ones(3, 2)),
        (X, TABLES, BIAS, None, "linear"),
        (X, TABLES, BIAS, None, "scaled", 0.0),
        (X, TABLES, BIAS, None, "scaled", float("inf")),
        (X, TABLES, BIAS, None, "scaled", float("nan")),
    ],
)
def test_what_is_unusual_or_wrong_is_left_to_the_longer_way(arguments: tuple[Any, ...]) -> None:
    assert raw.direct(*arguments) is None


def test_a_large_look_up_does_not_keep_pythons_lock() -> None:
    rows = torch.empty(1, 2, 1 << 20)  # 4 MiB a row
    assert raw.direct(torch.randn(2, 1), rows) is not None
    assert raw.direct(torch.randn(3, 1), rows) is None
    assert raw.output(torch.randn(3, 1, 1), rows).shape == (3, 1 << 20)


def test_a_torch_without_the_functions_goes_the_longer_way(monkeypatch: pytest.MonkeyPatch) -> None:
    z = X.view(6, 3, 4)
    expected = raw.output(z, TABLES, BIAS)
    monkeypatch.setattr(native, "direct", lambda: None)
    assert raw.direct(X, TABLES, BIAS) is None
    assert torch.equal(raw.output(z, TABLES, BIAS), expected)
