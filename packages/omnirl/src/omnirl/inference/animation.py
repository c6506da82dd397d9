"""FrozenLake as an animation: the first episodes, with nothing learnt, beside later ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnirl.errors import MissingExtraError, OmniRLError
from omnirl.inference.live import Episode

if TYPE_CHECKING:
    from PIL.Image import Image

_CELL, _EDGE, _HEAD = 48, 12, 34
_COLOURS = {"S": "#d7e7f2", "F": "#eef5fa", "H": "#3b5368", "G": "#f2c14e"}
_AGENT, _TRAIL, _INK = "#d55e00", "#e8a77c", "#1f1e1b"
_HOLD = 5  # frames that the end of an episode stays


def animate_lake(
    before: Sequence[Episode],
    after: Sequence[Episode],
    path: str | Path,
    *,
    lake: Sequence[str] = ("SFFF", "FHFH", "FFFH", "HFFG"),
    milliseconds: int = 160,
) -> Path:
    """Write a GIF with the episodes `before` on the left and `after` on the right, each side in a loop.

    `lake` is the map as Gymnasium's `desc` has it, S start, F ice, H hole, G goal; ids count along
    its rows. Raises `OmniRLError` without an episode on a side, or for one that leaves the map;
    `MissingExtraError` without Pillow.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("animations need the extra: pip install 'omnirl-icrl[plot]'") from error
    if not before or not after:
        raise OmniRLError("an animation needs at least one episode before and one after")
    cells = len(lake) * len(lake[0])
    for episode in (*before, *after):
        if max(episode.observations) >= cells:
            raise OmniRLError(f"episode {episode.number} is in state {max(episode.observations)} of {cells}")
    sides = [_moments(before), _moments(after)]
    frames = [
        _frame(lake, [side[number % len(side)] for side in sides]) for number in range(max(map(len, sides)))
    ]
    path = Path(path)
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, optimize=True
    )
    return path


_Moment = tuple[Episode, int]


def _moments(episodes: Sequence[Episode]) -> list[_Moment]:
    found: list[_Moment] = []
    for episode in episodes:
        found += [(episode, step) for step in range(episode.steps + 1)]
        found += [(episode, episode.steps)] * _HOLD
    return found


def _frame(lake: Sequence[str], moments: Sequence[_Moment]) -> Image:
    from PIL import Image, ImageDraw

    rows, columns = len(lake), len(lake[0])
    side = columns * _CELL + 2 * _EDGE
    image = Image.new("RGB", (len(moments) * side, rows * _CELL + _EDGE + _HEAD), "white")
    draw = ImageDraw.Draw(image)
    for number, (episode, step) in enumerate(moments):
        _draw_side(draw, lake, number * side + _EDGE, episode, step)
    return image.quantize(16)


def _draw_side(draw: Any, lake: Sequence[str], left: int, episode: Episode, step: int) -> None:
    columns = len(lake[0])

    def box(cell: int, margin: int) -> tuple[int, int, int, int]:
        row, column = divmod(cell, columns)
        x, y = left + column * _CELL, _HEAD + row * _CELL
        return x + margin, y + margin, x + _CELL - margin - 1, y + _CELL - margin - 1

    for cell, kind in enumerate("".join(lake)):
        draw.rectangle(box(cell, 1), fill=_COLOURS[kind])
    for cell in set(episode.observations[:step]):
        draw.ellipse(box(cell, 19), fill=_TRAIL)
    draw.ellipse(box(episode.observations[step], 12), fill=_AGENT)
    words = f"episode {episode.number + 1}"
    if step == episode.steps:
        words += ": goal" if episode.raw > 0 else ": no goal"
    draw.text((left, 10), words, fill=_INK)
