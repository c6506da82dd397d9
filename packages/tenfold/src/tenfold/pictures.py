"""Figure files as data URIs, so that a page needs no other file; damaged ones are moved aside."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tenfold.results import RunFolder
from tenfold.storage import Tell, report_damage

MEDIA_TYPES = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
PIXELS_A_POINT = 96 / 72


@dataclass(frozen=True)
class Picture:
    """A figure inside a page: data URI, size in pixels (None where the file does not say), caption."""

    uri: str
    size: tuple[int, int] | None
    caption: str


def read_pictures(folder: RunFolder, tell: Tell) -> list[Picture]:
    """Return the figures of a run; `tell` is told of those that are missing, damaged or no picture."""
    listed = folder.read_figures(tell)
    found = [] if listed is None else [(folder.figures / f.file, f.caption) for f in listed.figures]
    pictures = [_picture(path, caption, tell) for path, caption in found]
    return [picture for picture in pictures if picture is not None]


def _picture(path: Path, caption: str, tell: Tell) -> Picture | None:
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        tell(f"{path} cannot be shown on a page; a figure is one of: {', '.join(MEDIA_TYPES)}")
        return None
    if not path.is_file():
        tell(f"{path} is missing; to draw the figures again, resume the run with --resume.")
        return None
    content = path.read_bytes()
    try:
        size = _svg_size(content) if media_type == "image/svg+xml" else _raster_size(content, path.suffix)
    except (ElementTree.ParseError, OSError, SyntaxError, ValueError) as error:  # what the decoders raise
        report_damage(path, str(error), tell)
        return None
    return Picture(f"data:{media_type};base64,{base64.b64encode(content).decode()}", size, caption)


def _svg_size(content: bytes) -> tuple[int, int] | None:
    root = ElementTree.fromstring(content)
    lengths = [
        re.fullmatch(r"([\d.]+)(pt|px)?", root.get(side, "").strip(), re.ASCII)
        for side in ("width", "height")
    ]
    pixels = [
        round(float(length[1]) * (PIXELS_A_POINT if length[2] == "pt" else 1)) for length in lengths if length
    ]
    return (pixels[0], pixels[1]) if len(pixels) == 2 else None


def _raster_size(content: bytes, suffix: str) -> tuple[int, int]:
    from matplotlib.image import imread

    # Decodes it all (of a film, the first picture), so that a truncated file is found out.
    height, width, *_ = imread(io.BytesIO(content), format=suffix[1:].lower()).shape
    return width, height
