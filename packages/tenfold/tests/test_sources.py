from __future__ import annotations

import ensurepip
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tenfold import sources
from tenfold.sources import URL, Hub, PyPI, SourceError

if TYPE_CHECKING:
    from conftest import Site

OF_THE_WORKSPACE = Path(__file__).parents[3] / ".venv-uv" / "bin"
"""Where tools/uv installs uv, if there is none."""
FILES = {"tinydata/words.txt": b"some words\n", "tinydata/more/numbers.txt": b"1 2 3\n"}


def wheel(folder: Path, files: dict[str, bytes]) -> Path:
    """A wheel of tinydata 1.0, as pip and uv accept it."""
    info = "tinydata-1.0.dist-info"
    about = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\nRequires-Dist: absent\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tinydata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | about).items():
            archive.writestr(name, content)
        record = "".join(f"{name},,\n" for name in (*files, *about, f"{info}/RECORD"))
        archive.writestr(f"{info}/RECORD", record)
    return path


def own_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this Python the pip that comes with it, as an environment made by `python -m venv` has it."""
    bundled = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"), None)
    if bundled is None:
        pytest.skip("this Python comes without pip")
    monkeypatch.setenv("PYTHONPATH", str(bundled))
    monkeypatch.setattr(sources, "find_spec", lambda name: name)


def only_on_path(monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    """Let this Python be without pip, and `tool` the only one that is installed."""
    found = shutil.which(tool) or shutil.which(tool, path=OF_THE_WORKSPACE)
    if tool != "none" and found is None:
        pytest.skip(f"needs {tool}")
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: found if name == tool else None)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the only place where pip and uv look for packages."""
    folder = tmp_path / "index"
    folder.mkdir()
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return folder


@pytest.mark.parametrize("tool", ["own pip", "pip", "uv"])
def test_a_member_of_a_package(
    tool: str, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(index, FILES)
    own_pip(monkeypatch) if tool == "own pip" else only_on_path(monkeypatch, tool)
    run, calls = subprocess.run, []

    def counted(command: list[str], **options: Any) -> Any:
        calls.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    work = tmp_path / "work"
    work.mkdir()
    for member, content in FILES.items():
        assert PyPI("tinydata==1.0", member).fetch(work).read_bytes() == content
    assert len(calls) == 1  # both are in one package
    with pytest.raises(SourceError, match=r"has no (member|file) tinydata/none\.txt"):
        PyPI("tinydata==1.0", "tinydata/none.txt").fetch(work)


def test_the_package_is_not_installed(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(index, FILES)
    only_on_path(monkeypatch, "uv")
    PyPI("tinydata==1.0", "tinydata/words.txt").fetch(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", "import tinydata"], capture_output=True, text=True, check=False
    )
    assert "No module named 'tinydata'" in done.stderr


@pytest.mark.parametrize("tool", ["own pip", "pip", "uv"])
def test_a_package_that_the_index_does_not_have(
    tool: str, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_pip(monkeypatch) if tool == "own pip" else only_on_path(monkeypatch, tool)
    monkeypatch.setattr(sources, "_tools", lambda *args, tools=sources._tools: list(tools(*args))[:1])
    with pytest.raises(SourceError, match=rf"^{tool.split()[-1]} says: .*tinydata"):
        PyPI("tinydata==1.0", "tinydata/words.txt").fetch(tmp_path)


def test_a_tool_that_fails_gives_way_to_the_next(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(index, FILES)
    own_pip(monkeypatch)
    fail = ("broken", [sys.executable, "-c", "import sys; sys.exit('ERROR: no such thing')"])
    monkeypatch.setattr(
        sources, "_tools", lambda *args, tools=sources._tools: [fail, *list(tools(*args))[:1]]
    )
    fetched = PyPI("tinydata==1.0", "tinydata/words.txt").fetch(tmp_path)
    assert fetched.read_bytes() == FILES["tinydata/words.txt"]


def test_neither_pip_nor_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_on_path(monkeypatch, "none")
    with pytest.raises(SourceError, match=r"needs pip or uv, and neither was found: .* -m ensurepip"):
        PyPI("tinydata==1.0", "tinydata/words.txt").fetch(tmp_path)


def test_a_member_of_a_source_archive(tmp_path: Path) -> None:
    package = tmp_path / "tinydata==1.0"
    package.mkdir()
    with tarfile.open(package / "tinydata-1.0.tar.gz", "w:gz") as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(f"tinydata-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    for name, content in FILES.items():
        assert PyPI("tinydata==1.0", name).fetch(tmp_path).read_bytes() == content
    with pytest.raises(SourceError, match=r"has no member none\.txt; it has tinydata-1\.0/tinydata/more"):
        PyPI("tinydata==1.0", "none.txt").fetch(tmp_path)


@pytest.mark.parametrize("name", ["tinydata-1.0-py3-none-any.whl", "tinydata-1.0.tar.gz"])
def test_a_damaged_archive(tmp_path: Path, name: str) -> None:
    package = tmp_path / "tinydata==1.0"
    package.mkdir()
    (package / name).write_bytes(b"not an archive")
    with pytest.raises(SourceError, match="is damaged"):
        PyPI("tinydata==1.0", "tinydata/words.txt").fetch(tmp_path)


def test_a_wheel_whose_content_is_damaged(tmp_path: Path) -> None:
    path = wheel(tmp_path / "tinydata==1.0", FILES)
    path.write_bytes(path.read_bytes().replace(b"some words", b"same words"))
    with pytest.raises(SourceError, match="is damaged: Bad CRC-32"):
        PyPI("tinydata==1.0", "tinydata/words.txt").fetch(tmp_path)


def test_a_url(site: Site, tmp_path: Path) -> None:
    site.files["/folder/words.txt"] = b"some words\n"
    source = URL(f"{site.url}/folder/words.txt")
    assert (source.file, URL(source.url, "other.txt").file) == ("words.txt", "other.txt")
    assert source.fetch(tmp_path).read_bytes() == b"some words\n"
    with pytest.raises(SourceError, match=r"the download failed: 404"):
        URL(f"{site.url}/none.txt").fetch(tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the download failed: "):
        URL("http://127.0.0.1:9/words.txt").fetch(tmp_path)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_file_in_the_hubs_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    snapshot = tmp_path / "hub" / "datasets--someone--words" / "snapshots" / COMMIT / "data"
    snapshot.mkdir(parents=True)
    (snapshot / "words.txt").write_bytes(b"some words\n")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetched = Hub("someone/words", COMMIT, "data/words.txt").fetch(tmp_path)
    assert fetched.read_bytes() == b"some words\n"
    fetched.unlink()  # a copy: the hub's cache keeps its own
    assert (snapshot / "words.txt").exists()
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE is set"):
        Hub("someone/words", COMMIT, "data/none.txt").fetch(tmp_path)


def test_a_file_is_downloaded_from_the_hub(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    path = f"/datasets/someone/words/resolve/{COMMIT}/data/words.txt"
    site.files[path] = b"some words\n"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, site.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetched = Hub("someone/words", COMMIT, "data/words.txt").fetch(tmp_path)
    assert (fetched.read_bytes(), site.asked) == (b"some words\n", [path])
    assert site.headers[0]["Authorization"] == "Bearer hf_secret"


def test_the_hub_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SourceError, match="pip install huggingface_hub"):
        Hub("someone/words", COMMIT, "words.txt").fetch(tmp_path)


@pytest.mark.parametrize(
    "requirement", ["tinydata", "tinydata>=1", "tinydata==1.*", "--evil==1", "a==1 b", "./a"]
)
def test_a_requirement_names_one_version(requirement: str) -> None:
    with pytest.raises(ValueError, match="a requirement has the form name==version"):
        PyPI(requirement, "words.txt")


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../words.txt", "a/../../b", "a\\b", "C:/b"])
def test_a_member_stays_in_its_package(path: str) -> None:
    with pytest.raises(ValueError, match="is not a relative path"):
        PyPI("tinydata==1.0", path)


@pytest.mark.parametrize("url", ["words.txt", "file:///etc/passwd", "ftp://example.org/words.txt"])
def test_an_address_is_of_the_web(url: str) -> None:
    with pytest.raises(ValueError, match="an address begins with https://"):
        URL(url)
