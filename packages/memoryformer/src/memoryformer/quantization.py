"""Tables in int8 or bfloat16, for inference."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from memoryformer.errors import MemoryFormerError
from memoryformer.layers import LookupLayer, MemoryLayer
from memoryformer.machine import empty_tables

DTYPES = ("int8", "bfloat16")


class QuantizedMemoryLayer(LookupLayer):
    """A `MemoryLayer` for inference: buffers `tables` int8, `scales` float32 [K, 2^tau] and `bias`.

    Each row has its own scale (finer than one a table), which is folded in the row's weight and so costs
    nothing. Made by `quantize_tables_` or `from_layer`; made directly, its buffers wait for a state dict.
    """

    scales: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        tau: int,
        *,
        score: str = "scaled",
        temperature: float = 1.0,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, tau, score, temperature)
        shape = (self.num_chunks, 2**tau, out_features)
        self.register_buffer("tables", empty_tables(shape, torch.int8, device).zero_())
        self.register_buffer("scales", torch.zeros(shape[:2], dtype=torch.float32, device=device))
        self.register_buffer("bias", torch.zeros(out_features, device=device, dtype=dtype) if bias else None)
        self.eval()

    @classmethod
    def from_layer(cls, layer: MemoryLayer) -> QuantizedMemoryLayer:
        """Quantise a layer: row r of table k becomes round(T[k, r] / s), s = max|T[k, r]| / 127.

        Raises `MemoryFormerError` where a table holds NaN or infinity.
        """
        new = cls(
            layer.in_features,
            layer.out_features,
            layer.tau,
            score=layer.score,
            temperature=layer.temperature,
            bias=layer.bias is not None,
            device="meta",
        )
        new.tables, new.scales = _rows_to_int8(layer.tables.detach())
        if layer.bias is not None:
            new.bias = layer.bias.detach().clone()
        return new

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]. Raises `MemoryFormerError` in training mode."""
        if self.training:
            raise MemoryFormerError(
                "quantized tables are for inference: call model.eval(), or train before quantize_tables_"
            )
        return self._look_up(x, self._buffers)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedMemoryLayer:
        scales: Tensor = self.scales
        super()._apply(fn, recurse)
        if self.scales.dtype != torch.float32:  # model.to(torch.bfloat16) is not meant for the scales
            self.scales = scales.to(self.scales.device)
        return self


def quantize_tables_(model: nn.Module, dtype: str = "int8") -> nn.Module:
    """Store the tables of every `MemoryLayer` in `model` as "int8" (4x less) or "bfloat16" (2x), in place.

    int8 is for inference: the layers become `QuantizedMemoryLayer`, one scale a row. Returns the model; a
    model that is itself a `MemoryLayer` comes back as the new layer. Raises `MemoryFormerError` for another
    dtype, a model without Memory Layers, or tables with NaN or infinity (the layer is named).
    """
    check_dtype(dtype)
    layers: dict[MemoryLayer, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, MemoryLayer):
            layers.setdefault(module, []).append(name)
    if not layers:
        raise MemoryFormerError(f"{type(model).__name__} has no MemoryLayer whose tables could be quantized")
    for layer, names in layers.items():
        if dtype == "bfloat16":
            old = layer.tables.detach()
            tables = empty_tables(old.shape, torch.bfloat16, old.device).copy_(old)
            layer.tables = nn.Parameter(tables, requires_grad=layer.tables.requires_grad)
            continue
        try:
            quantized = QuantizedMemoryLayer.from_layer(layer)
        except MemoryFormerError as error:
            raise MemoryFormerError(f"{names[0] or type(model).__name__}: {error}") from None
        if layer is model:
            return quantized
        for name in names:
            model.set_submodule(name, quantized)
    return model


def check_dtype(dtype: str) -> None:
    """See that tables can be stored so. Raises `MemoryFormerError`."""
    if dtype not in DTYPES:
        raise MemoryFormerError(f"unknown dtype {dtype!r}; tables can be {' or '.join(map(repr, DTYPES))}")


def _rows_to_int8(tables: Tensor) -> tuple[Tensor, Tensor]:
    """Tables [K, R, h] -> int8 [K, R, h] and float32 scales [K, R], a table at a time to spare memory."""
    whole = empty_tables(tables.shape, torch.int8, tables.device)
    scales = torch.empty(tables.shape[:2], dtype=torch.float32, device=tables.device)
    for k, table in enumerate(tables):
        largest = table.abs().amax(1).float()
        scales[k] = largest / 127
        steps = torch.where(largest > 0, scales[k], 1).unsqueeze(1)
        whole[k] = (table.float() / steps).round_().clamp_(-127, 127)
    if not scales.is_meta and not scales.isfinite().all():
        raise MemoryFormerError("the tables hold NaN or infinity, which int8 cannot")
    return whole, scales
