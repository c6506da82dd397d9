"""Outside data sets and models by name: found on this machine or fetched, and never used unchecked.

A data set is looked for, in this order, in the folder `$TENFOLD_DATA`, in the cache, and at its sources. The
SHA-256 of every file is compared wherever it comes from. What cannot be had is a `DataUnavailableError` that
names the ways to get it; there is no substitute.

`available` and `path` look at this machine only, so they are quick and work offline; `get` fetches.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

import platformdirs
from filelock import FileLock
from rich.console import Console

from tenfold.checksums import sha256
from tenfold.errors import TenfoldError, UsageError
from tenfold.sources import URL, Hub, PyPI, Source, SourceError, check_relative

__all__ = [
    "URL",
    "DataUnavailableError",
    "Dataset",
    "Hub",
    "PyPI",
    "cache_directory",
    "datasets",
    "get",
    "path",
]

GROUP = "tenfold.datasets"

# Without a logging set-up of the user's, warnings are written to stderr.
_log = logging.getLogger(__name__)


class DataUnavailableError(TenfoldError):
    """A data set is not on this machine and could not be fetched; the message names the ways to get it."""


@dataclass(frozen=True)
class Dataset:
    """Files from elsewhere under one name.

    `files` maps each file's name to its SHA-256, `sources` say where one can be fetched from (several for one
    file are tried in turn; none at all means that only `$TENFOLD_DATA` has it), and `folder` is where the
    files are in `$TENFOLD_DATA`, by default `name`. Entry point: group `tenfold.datasets`, an iterable of
    these.

    Raises `ValueError` for a name, file name or sum that cannot be one, and for sources that do not give
    exactly the files.
    """

    name: str
    files: Mapping[str, str] = field(hash=False)
    licence: str
    citation: str
    sources: Sequence[Source] = ()
    kind: Literal["data", "model"] = "data"
    description: str = ""
    folder: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", dict(self.files))
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "folder", self.folder or self.name)
        _check(self)

    def available(self) -> bool:
        """Say whether all files are on this machine, with the right sums; nothing is fetched."""
        return self.path() is not None

    def path(self) -> Path | None:
        """The folder that has all files, or None if this machine does not have them; nothing is fetched."""
        return self._look()[0]

    def get(self) -> Path:
        """The folder that has all files; they are fetched if need be.

        Any number of processes may ask at once: one fetches, the others wait.
        Raises `DataUnavailableError`, which names the ways to get it, if that does not work.
        """
        found, problems = self._look()
        if found:
            return found
        try:
            return self._fetch(problems)
        except OSError as error:  # a cache that cannot be written, a full disk
            raise self._unavailable([*problems, f"it could not be fetched: {error}"]) from error

    def _look(self) -> tuple[Path | None, list[str]]:
        """The folder, or why each of the places is not it."""
        problems = []
        root = os.environ.get("TENFOLD_DATA")
        if root:
            folder = Path(root).expanduser().absolute() / self.folder
            problem = self._problem(folder)
            if not problem:
                return folder, []
            problems.append(f"TENFOLD_DATA: {problem}")
            if any((folder / file).exists() for file in self.files):  # it is not merely elsewhere
                _warn_once(f"data {self.name}: {problem}; the folder in TENFOLD_DATA is not used")
        else:
            problems.append("TENFOLD_DATA: is not set")
        problem = self._problem(self._cache)
        if not problem:
            return self._cache, []
        return None, [*problems, f"cache: {problem}"]

    def _problem(self, folder: Path) -> str:
        """What is wrong with the files in the folder, or nothing."""
        lacking = [file for file in self.files if not (folder / file).is_file()]
        if lacking:
            return f"{folder} has no {', '.join(lacking)}"
        wrong = {file: self._mismatch(file, folder / file) for file in self.files}
        return "; ".join(f"{folder / file}: {problem}" for file, problem in wrong.items() if problem)

    def _mismatch(self, file: str, where: Path) -> str:
        """How the sum of the file at `where` is not that of `file`, or nothing."""
        try:
            actual, expected = sha256(where, cache_directory() / "checked"), self.files[file]
        except OSError as error:
            return f"it cannot be read: {error}"
        return "" if actual == expected else f"the SHA-256 is {actual} instead of {expected}"

    @property
    def _cache(self) -> Path:
        """Other files are another folder: two versions of a package may share the cache."""
        sums = "".join(f"{file}\n{self.files[file]}\n" for file in sorted(self.files))
        return cache_directory() / f"{self.name}-{hashlib.sha256(sums.encode()).hexdigest()[:16]}"

    def _fetch(self, problems: list[str]) -> Path:
        if not self.sources:
            raise self._unavailable(problems)
        folder = self._cache
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            workspace = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(workspace, ignore_errors=True)  # left by a process that was killed
            workspace.mkdir()
            try:
                for file in self.files:
                    self._fetch_file(file, folder / file, workspace, problems)
            finally:
                shutil.rmtree(workspace, ignore_errors=True)
        return folder

    def _fetch_file(self, file: str, target: Path, workspace: Path, problems: list[str]) -> None:
        """Bring one file into the cache, unless another process has done so by now."""
        if target.is_file():
            problem = self._mismatch(file, target)
            if not problem:
                return
            _log.warning("data %s: %s: %s; moved to %s", self.name, target, problem, _aside(target, target))
        target.parent.mkdir(parents=True, exist_ok=True)
        for source in self.sources:
            if source.file != file:
                continue
            try:
                with Console(stderr=True).status(f"fetching {file} of {self.name} from {source}"):
                    fetched = source.fetch(workspace)
            except SourceError as error:
                problems.append(f"{source}: {error}")
                continue
            problem = self._mismatch(file, fetched)
            if not problem:
                os.replace(fetched, target)
                return
            problems.append(f"{source}: {file}: {problem}; moved to {_aside(fetched, target)}")
        raise self._unavailable(problems)

    def _unavailable(self, problems: list[str]) -> DataUnavailableError:
        files = ", ".join(f"{self.folder}/{file}" for file in self.files)
        ways = [f"set TENFOLD_DATA to a folder with {files}"]
        if self.sources:
            ways.insert(0, f"with a network: tenfold data get {self.name}")
        else:
            problems = [*problems, "sources: none, these files are published nowhere"]
        about = f"data {self.name}" + (f" ({self.description})" if self.description else "")
        listed = "".join(f"\n  {problem}" for problem in problems)
        return DataUnavailableError(f"{about} is not to be had:{listed}\nTo get it:\n  " + "\n  ".join(ways))


def cache_directory() -> Path:
    """The folder `data` in `$TENFOLD_CACHE`, or else in the user's cache folder for tenfold."""
    root = os.environ.get("TENFOLD_CACHE") or platformdirs.user_cache_dir("tenfold", appauthor=False)
    return Path(root).expanduser().absolute() / "data"


def datasets() -> dict[str, Dataset]:
    """The data sets that the installed packages name, by name.

    A package whose entry point cannot be read is named in a warning and hides only its own. Raises
    `TenfoldError` if two packages mean different things by one name.
    """
    known: dict[str, Dataset] = {}
    owners: dict[str, str] = {}
    for entry in metadata.entry_points(group=GROUP):
        owner = f"{entry.value} of {entry.dist.name}" if entry.dist is not None else entry.value
        for dataset in _load(entry, owner):
            first = known.setdefault(dataset.name, dataset)
            if first != dataset:
                raise TenfoldError(
                    f"two data sets are named {dataset.name} and differ: {owners[dataset.name]} has one, "
                    f"{owner} the other; one of them needs another name"
                )
            owners.setdefault(dataset.name, owner)
    return known


def get(name: str) -> Path:
    """The folder that has all files of the named data set, fetched if need be.

    Raises `UsageError` if no installed package names it (listing those there are), `DataUnavailableError` if
    it cannot be had.
    """
    return _find(name).get()


def path(name: str) -> Path | None:
    """The folder that has all files of the named data set, or None if they are not on this machine.

    Raises `UsageError` if no installed package names it (listing those there are).
    """
    return _find(name).path()


def _find(name: str) -> Dataset:
    known = datasets()
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise UsageError(f"there is no data set named {name!r}; there are: {names}")
    return known[name]


def _load(entry: metadata.EntryPoint, owner: str) -> list[Dataset]:
    try:
        found = list(entry.load())
        strange = [item for item in found if not isinstance(item, Dataset)]
        if strange:
            raise TypeError(f"it holds {strange[0]!r}, which is not a Dataset")
    except Exception as error:  # whatever another package does wrong must not hide the others
        _warn_once(f"the data sets of {owner} cannot be read: {error!r}")
        return []
    return found


@functools.cache  # a run asks for the same data set many times
def _warn_once(message: str) -> None:
    _log.warning(message)


def _aside(wrong: Path, target: Path) -> Path:
    """Move a file that is not what it should be out of the way; only the last such file is kept."""
    aside = target.with_name(f"{target.name}.damaged")
    os.replace(wrong, aside)
    return aside


def _check(dataset: Dataset) -> None:
    where = f"data set {dataset.name!r}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", dataset.name):
        raise ValueError(f"{where}: a name is made of lower-case letters, digits, '.', '_' and '-'")
    if dataset.kind not in ("data", "model"):
        raise ValueError(f"{where}: kind is {dataset.kind!r}; it may be 'data' or 'model'")
    if not dataset.files:
        raise ValueError(f"{where} has no files")
    check_relative(dataset.folder, f"{where}, folder")
    for file, digest in dataset.files.items():
        check_relative(file, f"{where}, file")
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ValueError(f"{where}: {digest!r} is not the SHA-256 of {file} in 64 hexadecimal digits")
    given = {source.file for source in dataset.sources}
    if dataset.sources and given != set(dataset.files):
        raise ValueError(
            f"{where}: its sources give {', '.join(sorted(given))}; its files are {', '.join(dataset.files)}"
        )
