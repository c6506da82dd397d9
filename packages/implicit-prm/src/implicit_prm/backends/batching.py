"""Which rows go through a model together: little padding, and the prompt of many responses only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from implicit_prm.errors import RowError

# What a pass through a model costs beyond its tokens, counted in tokens. A pass more, to feed a prompt once
# for its responses or to pad a batch less, has to save more than that: a few tokens on a CPU, hundreds on a
# GPU; between 64 and 256 the plans differ by at most 7% in the positions computed.
_PASS = 128
# Rows of a block, in batches: the more rows to sort, the less padding, and the more prompts kept in memory.
_BATCHES_PER_BLOCK = 16


@dataclass(frozen=True, slots=True)
class Row:
    """One row to score: `ids` up to its last marked token, and the marks; `first` is the first marked one."""

    ids: tuple[int, ...]
    marks: tuple[bool, ...]
    first: int

    @property
    def prompt(self) -> tuple[int, ...]:
        """What may be computed once for all rows that begin alike.

        The last token before the first marked one stays with the response: its output is needed.
        """
        return self.ids[: self.first - 1]


@dataclass(frozen=True, slots=True)
class Piece:
    """A row in a batch. In a block with prompts it follows number `prompt`, which is not fed again."""

    row: Row
    prompt: int = -1

    @property
    def past(self) -> int:
        """How many of the row's tokens the prompt already covers."""
        return 0 if self.prompt < 0 else len(self.row.prompt)

    @property
    def fed(self) -> tuple[int, ...]:
        """The tokens that go through the model; the last marked one is only predicted."""
        return self.row.ids[self.past : -1]

    @property
    def targets(self) -> tuple[int, ...]:
        """What each fed token is followed by, -100 where that is not marked."""
        ids, marks, start = self.row.ids, self.row.marks, self.past + 1
        return tuple(token if mark else -100 for token, mark in zip(ids[start:], marks[start:], strict=True))


@dataclass(frozen=True, slots=True)
class Block:
    """Prompts to keep in memory, in batches, and the batches of rows that follow them."""

    prompts: list[tuple[int, ...]]
    batches: list[list[Piece]] = field(default_factory=list)


def read_row(ids: Sequence[int], marks: Sequence[bool], where: int) -> Row | None:
    """The row as it has to be scored, None where no token is marked.

    Raises `RowError` for marks that do not fit the tokens, and a marked first token.
    """
    if len(ids) != len(marks):
        raise RowError(where, f"has {len(ids)} tokens and a mask of {len(marks)}: they must agree")
    marked = [at for at, mark in enumerate(marks) if mark]
    if not marked:
        return None
    if marked[0] == 0:
        raise RowError(
            where, "asks for its first token, which nothing precedes: give it a prompt, or a BOS token"
        )
    stop = marked[-1] + 1
    return Row(tuple(ids[:stop]), tuple(map(bool, marks[:stop])), marked[0])


def plan(rows: Iterable[Row], batch_size: int, share: bool = True) -> Iterator[Block]:
    """Blocks of at most `batch_size` rows a batch that score every row once, the longest first.

    Rows with one prompt share it where that pays, unless `share` is False.
    """
    families: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        families.setdefault(row.prompt, []).append(row)
    shared = {prompt: family for prompt, family in families.items() if share and _pays(prompt, family)}
    alone = [row for prompt, family in families.items() if prompt not in shared for row in family]
    if alone:
        yield Block([], _by_length((Piece(row) for row in alone), batch_size))
    for prompts in _blocks(shared, batch_size * _BATCHES_PER_BLOCK):
        pieces = (Piece(row, number) for number, prompt in enumerate(prompts) for row in shared[prompt])
        yield Block(prompts, _by_length(pieces, batch_size))


def _pays(prompt: tuple[int, ...], family: list[Row]) -> bool:
    return len(prompt) * (len(family) - 1) > _PASS


def _blocks(shared: dict[tuple[int, ...], list[Row]], rows: int) -> Iterator[list[tuple[int, ...]]]:
    """Prompts of like length, so many together that about `rows` rows follow them."""
    block: list[tuple[int, ...]] = []
    held = 0
    for prompt in sorted(shared, key=len, reverse=True):
        block.append(prompt)
        held += len(shared[prompt])
        if held >= rows:
            yield block
            block, held = [], 0
    if block:
        yield block


def _by_length(pieces: Iterable[Piece], batch_size: int) -> list[list[Piece]]:
    longest_first = sorted(pieces, key=lambda piece: len(piece.fed), reverse=True)
    return [longest_first[part] for part in cheapest_cuts([len(p.fed) for p in longest_first], batch_size)]


def cheapest_cuts(lengths: Sequence[int], batch_size: int) -> list[slice]:
    """Cut rows of falling lengths into batches of at most `batch_size` that cost the least together.

    A batch costs its rows times its longest, padding included, and one pass.
    """
    longest = np.asarray(lengths, dtype=np.int64)
    best = np.zeros(len(longest) + 1, dtype=np.int64)  # of the first n rows
    cut = np.zeros(len(longest) + 1, dtype=np.int64)  # where their last batch begins
    for stop in range(1, len(longest) + 1):
        starts = np.arange(max(0, stop - batch_size), stop)
        costs = best[starts] + (stop - starts) * longest[starts]
        at = int(costs.argmin())
        best[stop], cut[stop] = costs[at] + _PASS, starts[at]
    parts, stop = [], len(longest)
    while stop:
        parts.append(slice(int(cut[stop]), stop))
        stop = int(cut[stop])
    return parts[::-1]
