"""The images of questions: read on demand out of a ZIP, never unpacked, their type told by their content.

By content 2,304 of the test set's images are JPEG and 548 PNG, but only 161 names end in .png; a provider
that checks rejects an image sent under the wrong type, so names are never asked.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from medxpertqa.errors import DataError
from medxpertqa.hub import download
from medxpertqa.questions import Question

LARGEST = 64 * 2**20
"""No image may be larger: a ZIP says how large a member will be before it is read."""

_KINDS = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF8", "image/gif"))


def sniff(data: bytes, name: str = "the image") -> str:
    """The MIME type that the first bytes tell: JPEG, PNG, GIF or WebP; `DataError` for anything else."""
    for start, kind in _KINDS:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise DataError(f"{name} is no JPEG, PNG, GIF or WebP image: it begins with {data[:8]!r}")


class ImageStore:
    """Images by file name, from a ZIP, a folder, or a mapping of names to bytes.

    Calling it gives an image's MIME type and bytes. A ZIP's folders say nothing, only the last part of a
    member's path. Raises `DataError` for a ZIP that is none or is cut off, for a member that leads out of the
    archive or is larger than `LARGEST`, and for two members of one name.
    """

    def __init__(self, source: str | os.PathLike[str] | Mapping[str, bytes]) -> None:
        self._given = dict(source) if isinstance(source, Mapping) else None
        self._source = "the images given" if isinstance(source, Mapping) else str(source)
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._folder: Path | None = None
        if isinstance(source, Mapping):
            return
        path = Path(source)
        if path.is_dir():
            self._folder = path
            return
        if not path.exists():
            raise DataError(f"there is no ZIP or folder {path} to take images from")
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise self._damaged(error) from error
        for member in self._archive.infolist():
            self._add(member)

    @classmethod
    def from_hub(cls) -> ImageStore:
        """The test set's images.zip (517 MB) of the pinned revision, fetched if it is not in the cache."""
        return cls(download("images.zip"))

    def __call__(self, name: str) -> tuple[str, bytes]:
        """The MIME type and the bytes of an image. Raises `DataError`."""
        data = self.read(name)
        return sniff(data, name), data

    def __contains__(self, name: str) -> bool:
        if self._given is not None:
            return name in self._given
        if self._folder is not None:
            return self._file(name).is_file()
        return name in self._members

    def __len__(self) -> int:
        if self._given is not None:
            return len(self._given)
        if self._folder is not None:
            return sum(file.is_file() for file in self._folder.iterdir())
        return len(self._members)

    def read(self, name: str) -> bytes:
        """The bytes of an image. Raises `DataError` if there is none of that name, or it cannot be read."""
        if name not in self:
            raise DataError(f"there is no image {name} in {self._source}")
        if self._given is not None:
            return self._given[name]
        try:
            if self._archive is None:
                return self._file(name).read_bytes()
            return self._archive.read(self._members[name])
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise self._damaged(error) from error

    def check(
        self, questions: Iterable[Question], *, max_bytes: int = LARGEST, max_images: int = 100
    ) -> None:
        """Make sure before a run that every image is there, is one, and is within a provider's limits.

        Only the first bytes are read. Raises `DataError`, naming the first question and image that is not.
        """
        for question in questions:
            if len(question.images) > max_images:
                raise DataError(f"{question.id} has {len(question.images)} images; the limit is {max_images}")
            for name in question.images:
                if name not in self:
                    raise DataError(
                        f"{question.id}: there is no image {name} in {self._source}; give the images with "
                        "--images, or leave them out with --ablate images"
                    )
                if self._size(name) > max_bytes:
                    size = f"{self._size(name):,} bytes"
                    raise DataError(f"{question.id}: image {name} has {size}; the limit is {max_bytes:,}")
                sniff(self._start(name), f"{question.id}: image {name}")

    def same(self, names: Iterable[str]) -> dict[str, Hashable]:
        """A key for each image, equal for equal bytes; only images that may be equal are read."""
        keys: dict[str, Hashable] = {name: self._rough(name) for name in names}
        seen: dict[Hashable, int] = {}
        for key in keys.values():
            seen[key] = seen.get(key, 0) + 1
        return {
            name: hashlib.sha256(self.read(name)).hexdigest() if seen[key] > 1 else key
            for name, key in keys.items()
        }

    def _rough(self, name: str) -> Hashable:
        """What equal images have in common and can be had without reading them."""
        if self._archive is not None and name in self._members:
            return self._size(name), self._members[name].CRC
        return self._size(name)

    def _size(self, name: str) -> int:
        if self._archive is not None and name in self._members:
            return self._members[name].file_size
        if self._folder is not None and name in self:
            return self._file(name).stat().st_size
        return len(self.read(name))

    def _start(self, name: str) -> bytes:
        """The bytes that tell the type."""
        try:
            if self._archive is not None:
                with self._archive.open(self._members[name]) as member:
                    return member.read(16)
            if self._folder is not None:
                with self._file(name).open("rb") as file:
                    return file.read(16)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise self._damaged(error) from error
        return self.read(name)[:16]

    def _file(self, name: str) -> Path:
        if self._folder is None or PurePosixPath(name).name != name:
            raise DataError(f"{name!r} is no file name of an image")
        return self._folder / name

    def _add(self, member: zipfile.ZipInfo) -> None:
        path = PurePosixPath(member.filename)
        if member.is_dir() or path.parts[0] == "__MACOSX":
            return
        if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"{self._source}: the member {member.filename!r} leads out of the archive")
        if member.file_size > LARGEST:
            raise DataError(f"{self._source}: {member.filename} would be {member.file_size:,} bytes large")
        if path.name in self._members:
            raise DataError(f"{self._source} has two images named {path.name}")
        self._members[path.name] = member

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            f"{self._source} cannot be read ({error}); if it was fetched, it was cut off: delete it and run "
            f"`medxpertqa download --images` again"
        )


def image_clusters(questions: Iterable[Question], images: ImageStore) -> dict[str, str]:
    """The cluster of every question: the first id among those that are linked by sharing an image's bytes."""
    found = list(questions)
    keys = images.same(dict.fromkeys(name for question in found for name in question.images))
    parent = {question.id: question.id for question in found}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    place = {question.id: number for number, question in enumerate(found)}
    owner: dict[Hashable, str] = {}
    for question in found:
        for name in question.images:
            first, second = root(owner.setdefault(keys[name], question.id)), root(question.id)
            # The earlier question is the root, so that a cluster is named after its first.
            early, late = sorted((first, second), key=place.__getitem__)
            parent[late] = early
    return {question.id: root(question.id) for question in found}
