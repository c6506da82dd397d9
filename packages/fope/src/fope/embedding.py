"""The module: coefficients, tables that are built once per length, rotation of queries and keys."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from fope import coefficients
from fope.config import FopeConfig
from fope.errors import FopeError
from fope.functional import apply_fope, factor_basis, factored_basis, fope_basis, series_tables

CACHE_BYTES = 2**25  # tables longer than this are made for the positions asked for, and not kept
POSITIONS = 2**31


class FourierPositionEmbedding(nn.Module):
    """Fourier position embedding of one attention layer.

    `emb(q, k, position_ids)` rotates q [B, H_q, T, head_dim] and k [B, H, T, head_dim];
    `emb.cos_sin(positions)` is what kernels take. Coefficients `cos_coef`, `sin_coef` [H, D, R] are float32
    and stay so under `.to(bfloat16)`. They are drawn from a seed that `generator` (on the CPU; torch's own
    by default) gives, and drawn when the module gets memory: one made on the meta device has, after
    `to_empty`, the values it would have had.
    """

    cos_coef: Tensor
    sin_coef: Tensor

    def __init__(
        self,
        config: FopeConfig,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if generator is not None and generator.device.type != "cpu":
            raise FopeError(
                f"the generator is on {generator.device}; coefficients are drawn on the CPU so that "
                "all ranks get equal ones: use torch.Generator()"
            )
        self.config = config
        self.seed = int(torch.randint(2**62, (), dtype=torch.int64, device="cpu", generator=generator))
        self.set_bank(config.bank())
        shape = (config.num_table_heads, config.num_frequencies, config.num_kept)
        for name in ("cos_coef", "sin_coef"):
            empty = torch.empty(shape, dtype=torch.float32, device=device)
            if config.learnable:
                self.register_parameter(name, nn.Parameter(empty))
            else:
                self.register_buffer(name, empty)
        if config.learnable and not config.separate_basis:
            self.sin_coef = self.cos_coef
        self._tables: tuple[Any, Tensor, Tensor] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the coefficients of `seed`; on the meta device, wait until there is memory."""
        if self.cos_coef.is_meta:
            return
        drawn = coefficients.draw(self.config, torch.Generator().manual_seed(self.seed))
        with torch.no_grad():
            for coef, values in zip((self.cos_coef, self.sin_coef), drawn, strict=True):
                coef.copy_(values)

    def forward(
        self, q: Tensor, k: Tensor, position_ids: Tensor | None = None, *, inplace: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Rotate q [B, H_q, T, head_dim] and k [B, H, T, head_dim]; positions [T] or [B, T], 0 … T−1 by
        default.

        `inplace` writes into q and k. Raises `FopeError` for heads or widths that are not the config's, and
        for positions that are negative, no whole numbers, or 2^31 and more.
        """
        self.check_heads(q, k)
        tokens, given = q.shape[-2:-1], None if position_ids is None else position_ids.shape
        if k.shape[-2:-1] != tokens or (given is not None and given[-1:] != tokens):
            raise FopeError(
                f"q has {q.shape[-2]} tokens, k {k.shape[-2]}, position_ids are "
                f"{given and list(given)}: rotate the same tokens of both, with a position for each; what is "
                "in a cache is rotated already"
            )
        positions = q.shape[-2] if position_ids is None else position_ids
        cos, sin = self.cos_sin(positions, device=q.device)
        return self.rotate(q, cos, sin, inplace=inplace), self.rotate(k, cos, sin, inplace=inplace)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, *, inplace: bool = False) -> Tensor:
        """`apply_fope` with this config's layout."""
        config = self.config
        return apply_fope(
            x,
            cos,
            sin,
            config.direction * config.zero_sin,
            interleaved=config.interleaved,
            rotary_dim=config.rotary_dim,
            inplace=inplace,
        )

    def cos_sin(self, positions: Tensor | int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Tables float32 [H, T, R] for positions [T], [B, H, T, R] for [B, T]; an integer T means 0 … T−1.

        `direction` is in the sine. Fixed coefficients have their table kept, up to `CACHE_BYTES`; consecutive
        positions are then a view of it.
        """
        device = self.cos_coef.device if device is None else device
        if isinstance(positions, int):
            if self._kept(positions):
                return self._slice(0, positions, device)
            positions = torch.arange(positions, device=device)
        if positions.device.type != "cpu" or torch.compiler.is_compiling() or not positions.numel():
            _check_kind(positions)  # and no look at values, so no waiting for them
            return self._tables_at(self._basis_unseen(positions), device)
        if positions.dim() == 2 and len(positions) == 1:
            cos, sin = self.cos_sin(positions[0], device)
            return cos[None], sin[None]
        start = _start_of_range(positions)
        if start is not None and self._kept(start + len(positions)):
            return self._slice(start, len(positions), device)
        longest = _check_values(positions) + 1
        if not self._kept(longest):
            return self._tables_at(self._basis_at(positions, longest), device)
        at = positions.flatten().to(device)
        cos, sin = (table.index_select(0, at) for table in self._rows(longest, device))
        shape = (*positions.shape, *cos.shape[-2:])
        return self._by_head(cos.view(shape), sin.view(shape))

    def factors(self, max_positions: int) -> Tensor:
        """The factored basis below `max_positions`, float32 [2, B, D, 2]: see `factor_basis`. For kernels."""
        return factor_basis(self.inv_freq.to(self.cos_coef.device), max_positions)

    @property
    def coef(self) -> Tensor:
        """C and S as one tensor [2, H, D, R], as kernels with a factored basis take it."""
        cos, sin = self._effective()
        return torch.stack(
            [cos.expand(self.config.num_heads, -1, -1), sin.expand(self.config.num_heads, -1, -1)]
        )

    def set_inv_freq(self, inv_freq: Tensor) -> None:
        """Replace the bank by a rescaled one of the same length [D] (`frequencies.yarn`, `interpolate`)."""
        if inv_freq.shape != self.inv_freq.shape:
            raise FopeError(
                f"expected {len(self.inv_freq)} frequencies, one a row of the coefficients, "
                f"got {list(inv_freq.shape)}"
            )
        self.set_bank(inv_freq.detach().to(self.inv_freq))
        self._tables = None

    def set_bank(self, inv_freq: Tensor) -> None:
        """Keep the bank [D], and its numbers on the host, where looking at them does not wait."""
        self.inv_freq = inv_freq
        self.frequencies = tuple(inv_freq.tolist())

    def _effective(self) -> tuple[Tensor, Tensor]:
        """The coefficients as they enter the tables: normalized if asked for, the sine with its sign."""
        cos, sin = self.cos_coef, self.sin_coef
        if self.config.normalize:
            cos, sin = coefficients.normalize(cos), coefficients.normalize(sin)
        return cos, sin if self.config.direction == 1 else -sin

    def _tables_at(self, basis: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
        cos, sin = series_tables(*(part.to(device) for part in (*basis, *self._effective())))
        if not self.config.separate_heads:
            shape = (*cos.shape[:-3], self.config.num_heads, *cos.shape[-2:])
            cos, sin = cos.expand(shape), sin.expand(shape)
        return cos, sin

    def _basis_at(self, positions: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """The basis at positions whose table is not kept."""
        if self.config.angle_dtype == "float64":
            return factored_basis(positions, _shared_factors(self.frequencies, longest))
        return fope_basis(positions, self.inv_freq)

    def _basis_unseen(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The basis at positions whose values are not looked at: on a device, or while compiling."""
        if torch.compiler.is_compiling() or not positions.numel():
            return fope_basis(positions, self.inv_freq)
        return _basis_once(positions, self.frequencies, self.config.angle_dtype)

    def _kept(self, length: int) -> bool:
        """Whether the table of so many positions is kept between calls."""
        row = 8 * self.config.num_table_heads * self.config.num_kept
        fits = 0 < length * row <= CACHE_BYTES
        return fits and not self.config.learnable and not torch.compiler.is_compiling()

    def _slice(self, start: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        cos, sin = self._rows(start + length, device)
        return self._by_head(cos[start : start + length], sin[start : start + length])

    def _by_head(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = cos.transpose(-3, -2), sin.transpose(-3, -2)
        if not self.config.separate_heads:
            shape = (*cos.shape[:-3], self.config.num_heads, *cos.shape[-2:])
            cos, sin = cos.expand(shape), sin.expand(shape)
        return cos, sin

    def _rows(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The kept tables, contiguous [N, H, R] with N ≥ length; rebuilt when coefficients change."""
        key = (device, _version(self.cos_coef), _version(self.sin_coef))
        if self._tables is None or self._tables[0] != key or len(self._tables[1]) < length:
            rows = 1 << (length - 1).bit_length()
            if not self._kept(rows):
                rows = length
            with torch.inference_mode(False), torch.no_grad():
                basis = _shared_basis(self.frequencies, self.config.angle_dtype, rows, device)
                cos, sin = series_tables(*basis, *(coef.to(device) for coef in self._effective()))
            self._tables = (key, cos.transpose(0, 1).contiguous(), sin.transpose(0, 1).contiguous())
        return self._tables[1], self._tables[2]

    def check_heads(self, q: Tensor, k: Tensor) -> None:
        """Raise `FopeError` unless q and k [B, heads, T, d] have the config's heads and width."""
        config = self.config
        for name, x in (("q", q), ("k", k)):
            if x.dim() < 3:
                raise FopeError(f"{name} is {list(x.shape)}; expected [B, heads, T, {config.head_dim}]")
        if k.shape[-3] != config.num_heads:
            raise FopeError(
                f"coefficients are per KV head: got {config.num_heads}, k has {k.shape[-3]} heads; "
                "FopeConfig(num_heads=...) is the number of key-value heads"
            )
        if q.shape[-3] % config.num_heads:
            raise FopeError(
                f"q has {q.shape[-3]} heads, which {config.num_heads} key-value heads do not divide"
            )
        for name, x in (("q", q), ("k", k)):
            if x.shape[-1] != config.head_dim:
                raise FopeError(
                    f"{name} is {list(x.shape)}; expected head_dim {config.head_dim} in the last place"
                )

    def _apply(self, fn: Any, recurse: bool = True) -> FourierPositionEmbedding:
        """Move the coefficients, never cast them; draw them when they leave the meta device."""

        def move(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        waiting = self.cos_coef.is_meta
        super()._apply(move, recurse)
        if waiting:
            self.reset_parameters()
        self._tables = None
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        names = [prefix + name for name in ("cos_coef", "sin_coef")]
        if found := [name for name in names if name in state_dict]:  # else torch says that they are missing
            for name in names:
                check_present(name, found)
                check_coefficients(name, state_dict[name], self.config)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tables": None}

    def extra_repr(self) -> str:
        """Show what the module is when a model is printed."""
        c = self.config
        return (
            f"head_dim={c.head_dim}, num_heads={c.num_heads}, train_length={c.train_length}, "
            f"theta={c.theta:g}, "
            f"{c.num_kept} of {c.num_pairs} pairs kept, {c.num_frequencies} frequencies, "
            f"zero_sin={c.zero_sin:g}"
        )


def check_present(name: str, found: Collection[str]) -> None:
    """Raise `FopeError` if the coefficients of that name are not among those of a checkpoint."""
    if name not in found:
        raise FopeError(
            f"{name} is missing in the checkpoint. Coefficients are random and not trained: new ones would "
            "be another model. To convert a RoPE checkpoint, load it first and convert then."
        )


def check_coefficients(name: str, coef: Tensor, config: FopeConfig) -> None:
    """Raise `FopeError` if the coefficients of a checkpoint do not fit the config or are not finite."""
    expected = [config.num_table_heads, config.num_frequencies, config.num_kept]
    if list(coef.shape) != expected:
        raise FopeError(
            f"{name} is {list(coef.shape)}, but the config gives {expected} ([heads, D, R]): train_length "
            f"{config.train_length} and theta {config.theta:g} keep R={config.num_kept} pairs and the "
            f"checkpoint has R={coef.shape[-1]}. train_length is the length it was trained at, "
            "not max_position_embeddings."
        )
    if not coef.is_meta:
        coefficients.check_finite(name, coef)


def _check_kind(positions: Tensor) -> None:
    if positions.is_floating_point() or positions.is_complex() or positions.dtype == torch.bool:
        raise FopeError(f"positions must be whole numbers, got {positions.dtype}")
    if positions.dim() not in (1, 2):
        raise FopeError(f"positions must be [T] or [B, T], got {list(positions.shape)}")


def _check_values(positions: Tensor) -> int:
    """The largest position. Raises `FopeError` that names one that is impossible."""
    _check_kind(positions)
    smallest, largest = map(int, positions.aminmax())
    if smallest < 0 or largest >= POSITIONS:
        wrong = (positions < 0) | (positions >= POSITIONS)
        place = wrong.nonzero()[0].tolist()
        raise FopeError(
            f"position_ids{place} is {positions[tuple(place)].item()}; positions go from 0 to 2^31 − 1"
        )
    return largest


def _start_of_range(positions: Tensor) -> int | None:
    """s if positions [T] are s … s+T−1, else None."""
    if positions.dim() != 1 or positions.dtype != torch.int64:
        return None
    start, last = int(positions[0]), int(positions[-1])
    if start < 0 or last - start != len(positions) - 1:
        return None
    return start if torch.equal(positions, torch.arange(start, last + 1)) else None


def _version(coef: Tensor) -> tuple[int, int]:
    """What changes when a tensor is replaced or written to."""
    return id(coef), 0 if coef.is_inference() else coef._version


@lru_cache(maxsize=4)
def _shared_basis(
    frequencies: tuple[float, ...], angle_dtype: str, rows: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The basis of the positions below `rows`: the same for all layers and heads."""
    inv_freq = torch.tensor(frequencies, dtype=getattr(torch, angle_dtype), device="cpu")
    cos, sin = fope_basis(torch.arange(rows, device="cpu"), inv_freq)
    return cos.to(device), sin.to(device)


_bases = WeakTensorKeyDictionary()  # of positions on a device, while they live


def _basis_once(positions: Tensor, frequencies: tuple[float, ...], angle_dtype: str) -> tuple[Tensor, Tensor]:
    """The basis at positions on a device, made once for all the layers that are given the same tensor."""
    if positions.is_inference() or (positions.is_cuda and torch.cuda.is_current_stream_capturing()):
        return _basis_on_device(positions, frequencies, angle_dtype)  # overwritten without a new version
    key = (positions._version, frequencies, angle_dtype)
    if (kept := _bases.get(positions)) is None or kept[0] != key:
        with torch.inference_mode(False), torch.no_grad():
            kept = _bases[positions] = (key, _basis_on_device(positions, frequencies, angle_dtype))
    basis: tuple[Tensor, Tensor] = kept[1]
    return basis


def _basis_on_device(
    positions: Tensor, frequencies: tuple[float, ...], angle_dtype: str
) -> tuple[Tensor, Tensor]:
    """From factors that the host made: a GPU is slow in float64, and some devices have none."""
    if angle_dtype == "float64":
        return factored_basis(positions, _device_factors(frequencies, positions.device))
    return fope_basis(positions, torch.tensor(frequencies, dtype=torch.float32, device=positions.device))


@lru_cache(maxsize=4)
def _device_factors(frequencies: tuple[float, ...], device: torch.device) -> Tensor:
    """The factors of all positions, D MiB: how far positions go is not known without waiting for them."""
    with torch.inference_mode(False):
        return _factors_up_to(frequencies, POSITIONS).to(device)


def _shared_factors(frequencies: tuple[float, ...], longest: int) -> Tensor:
    return _factors_up_to(frequencies, 1 << (longest - 1).bit_length())


@lru_cache(maxsize=4)
def _factors_up_to(frequencies: tuple[float, ...], max_positions: int) -> Tensor:
    return factor_basis(torch.tensor(frequencies, dtype=torch.float64, device="cpu"), max_positions)
