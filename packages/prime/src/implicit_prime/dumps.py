"""A batch on disk, such as one whose update was left out, looked at: its advantages, response by response."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from implicit_prime import core
from implicit_prime.config import PrimeConfig
from implicit_prime.credit import process_weight, token_advantages
from implicit_prime.errors import PrimeError
from implicit_prime.responses import Responses


@dataclass(frozen=True)
class ResponseCredit:
    """What a response got: the advantages of its first and last token, the least and the greatest of all.

    process    sum of the process rewards before weight and normalisation, None without any
    not_finite tokens whose advantage is NaN or infinite
    """

    response: int
    group: int
    tokens: int
    outcome: float
    process: float | None
    first: float
    last: float
    least: float
    greatest: float
    not_finite: int


def inspect_dump(path: str | Path, args: PrimeConfig | None = None) -> list[ResponseCredit]:
    """The credit of every response of a dump: a dict of tensors, saved by `torch.save`.

    mask [B, T], outcomes [B] and groups [B] it must have, process [B, T], values [B, T] and advantages [B, T]
    it may. Without `args` the advantages are those in the dump, where it has them. With `args` they are made
    of the others as a run with these settings makes them, whitened too; process_weight "accuracy" is that of
    the process rewards' sums in this batch.

    Raises `PrimeError` for a file that is no such dump.
    """
    found = _read(Path(path))
    mask = found["mask"].bool()
    process = found.get("process")
    sums = None if process is None else process.masked_fill(~mask, 0).sum(1)
    if args is None and "advantages" in found:
        advantages = found["advantages"]
    else:
        advantages = _advantages(found, sums, args or PrimeConfig(output_dir="."))
    return [
        _credit(row, found, mask[row], advantages[row], None if sums is None else float(sums[row]))
        for row in range(len(mask))
    ]


def _advantages(found: dict[str, Tensor], sums: Tensor | None, args: PrimeConfig) -> Tensor:
    process, mask = found.get("process"), found["mask"].bool()
    if process is None and args.advantage == "implicit_value":
        raise PrimeError("advantage is 'implicit_value', and the dump has no process rewards")
    if "values" not in found and args.advantage == "ppo":
        raise PrimeError("advantage is 'ppo', and the dump has no values")
    weight = 1.0
    if process is not None and sums is not None:
        weight = process_weight(args, core.pair_accuracy(sums, found["outcomes"], found["groups"]))
        process = core.normalize_process(process, mask, args.process_norm)
    batch = cast(Responses, _Batch(mask, found["outcomes"], found["groups"]))
    advantages = token_advantages(args, batch, process, weight, found.get("values"))
    return core.whiten(advantages, mask) if args.whiten else advantages


@dataclass(frozen=True)
class _Batch:
    """As much of `Responses` as advantages are made of."""

    mask: Tensor
    outcomes: Tensor
    groups: Tensor


def _credit(
    row: int, found: dict[str, Tensor], mask: Tensor, advantages: Tensor, process: float | None
) -> ResponseCredit:
    inside = advantages[mask]
    nan = float("nan")
    first, last = (float(inside[0]), float(inside[-1])) if len(inside) else (nan, nan)
    return ResponseCredit(
        response=row,
        group=int(found["groups"][row]),
        tokens=len(inside),
        outcome=float(found["outcomes"][row]),
        process=process,
        first=first,
        last=last,
        least=float(inside.min()) if len(inside) else nan,
        greatest=float(inside.max()) if len(inside) else nan,
        not_finite=int((~inside.isfinite()).sum()),
    )


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise PrimeError(f"there is no file {path}")
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise PrimeError(
            f"{path} is no dump of tensors, or of more than tensors; torch.save a dict of them"
        ) from error
    tensors = {key: x for key, x in found.items() if isinstance(x, Tensor)} if isinstance(found, dict) else {}
    if missing := [key for key in ("mask", "outcomes", "groups") if key not in tensors]:
        raise PrimeError(
            f"{path} lacks {', '.join(missing)}; a dump has mask, outcomes and groups as tensors"
        )
    mask = tensors["mask"]
    shapes = {"outcomes": mask.shape[:1], "groups": mask.shape[:1]}
    shapes |= dict.fromkeys(("process", "values", "advantages"), mask.shape)
    for key, shape in shapes.items():
        if mask.ndim != 2 or (key in tensors and tensors[key].shape != shape):
            raise PrimeError(
                f"{path}: mask is {list(mask.shape)} and must be [B, T]; then {key} must be {list(shape)}"
            )
    return tensors
