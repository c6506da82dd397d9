from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tenfold import TenfoldError, UsageError
from tenfold.data import URL, Dataset, DataUnavailableError, PyPI, cache_directory, datasets, get
from tenfold.sources import Source

if TYPE_CHECKING:
    from conftest import Site

WORDS, WRONG = b"some words\n", b"same words\n"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and no other data."""
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TENFOLD_DATA", raising=False)


@pytest.fixture
def words(site: Site) -> Dataset:
    """A data set of one file, which `site` has."""
    site.files["/words.txt"] = WORDS
    return Dataset(
        "words",
        {"words.txt": digest(WORDS)},
        licence="CC0",
        citation="Somebody: Words. 2001",
        sources=[URL(f"{site.url}/words.txt")],
    )


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `words` in $TENFOLD_DATA."""
    folder = tmp_path / "data" / "words"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "data"))
    return folder


def test_the_own_folder_comes_first_then_the_cache_then_the_sources(
    words: Dataset, site: Site, own_folder: Path
) -> None:
    assert (words.path(), words.available(), site.asked) == (None, False, [])
    fetched = words.get()
    assert fetched.parent == cache_directory()
    assert (fetched / "words.txt").read_bytes() == WORDS
    assert words.get() == words.path() == fetched
    assert (words.available(), site.asked) == (True, ["/words.txt"])
    (own_folder / "words.txt").write_bytes(WORDS)
    assert words.get() == words.path() == own_folder
    assert site.asked == ["/words.txt"]


def test_a_data_set_may_share_a_folder_with_others(words: Dataset, own_folder: Path) -> None:
    shared = own_folder.with_name("corpora")
    shared.mkdir()
    (shared / "words.txt").write_bytes(WORDS)
    (shared / "other.txt").write_bytes(WRONG)
    assert replace(words, folder="corpora").get() == shared


def test_a_wrong_file_in_the_own_folder_is_named_and_neither_used_nor_moved(
    words: Dataset, own_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = own_folder / "words.txt"
    wrong.write_bytes(WRONG)
    assert not words.available()
    (message,) = caplog.messages
    for part in (str(wrong), digest(WRONG), digest(WORDS)):
        assert part in message
    assert (words.get() / "words.txt").read_bytes() == WORDS
    assert wrong.read_bytes() == WRONG
    with pytest.raises(DataUnavailableError, match=digest(WRONG)):
        replace(words, sources=(), files={"words.txt": digest(b"third")}).get()


def test_a_wrong_download_is_moved_aside_and_never_used(words: Dataset, site: Site) -> None:
    site.files["/words.txt"] = WRONG
    with pytest.raises(DataUnavailableError) as error:
        words.get()
    (aside,) = cache_directory().glob("words-*/*")
    assert (aside.name, aside.read_bytes()) == ("words.txt.damaged", WRONG)
    for part in (site.url, "words.txt", digest(WRONG), digest(WORDS), str(aside)):
        assert part in str(error.value)
    assert words.path() is None


def test_a_cache_that_cannot_be_written_is_no_failure(
    words: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataUnavailableError, match=r"could not be fetched: .*Not a directory") as error:
        words.get()
    assert "set TENFOLD_DATA to a folder with words/words.txt" in str(error.value)
    assert words.path() is None


def test_a_file_that_cannot_be_read_is_no_failure(
    words: Dataset, own_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (own_folder / "words.txt").write_bytes(WORDS)

    def refuse(path: Path, memory: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tenfold.data.sha256", refuse)
    assert words.path() is None
    assert "words.txt: it cannot be read: [Errno 13]" in caplog.text


def test_the_next_source_is_tried(words: Dataset, site: Site) -> None:
    site.files["/wrong/words.txt"] = WRONG
    before = [URL(f"{site.url}/none/words.txt"), URL(f"{site.url}/wrong/words.txt")]
    found = replace(words, sources=[*before, *words.sources]).get()
    assert (found / "words.txt").read_bytes() == WORDS
    assert site.asked == ["/none/words.txt", "/wrong/words.txt", "/words.txt"]


@pytest.mark.parametrize("damage", [WRONG, WORDS[:4], b""])
def test_a_damaged_cache_is_noticed_moved_aside_and_filled_again(
    words: Dataset, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    file = words.get() / "words.txt"
    times = file.stat()
    file.write_bytes(damage)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not words.available()
    assert (words.get() / "words.txt").read_bytes() == WORDS
    assert file.with_name("words.txt.damaged").read_bytes() == damage
    (message,) = caplog.messages
    assert str(file) in message
    assert digest(damage) in message


def test_only_what_is_missing_is_fetched_again(words: Dataset, site: Site) -> None:
    site.files["/more/numbers.txt"] = b"1 2 3\n"
    more = replace(
        words,
        files={**words.files, "more/numbers.txt": digest(b"1 2 3\n")},
        sources=[*words.sources, URL(f"{site.url}/more/numbers.txt", "more/numbers.txt")],
    )
    folder = more.get()
    (folder / "more" / "numbers.txt").unlink()
    assert more.path() is None
    assert more.get() == folder
    assert site.asked == ["/words.txt", "/more/numbers.txt", "/more/numbers.txt"]


def test_other_sums_are_another_folder(words: Dataset, site: Site) -> None:
    """Environments with two versions of a package do not take each other's files for damaged."""
    old = words.get()
    site.files["/words.txt"] = WRONG
    new = replace(words, files={"words.txt": digest(WRONG)}).get()
    assert new != old
    assert words.get() == old


def test_what_a_killed_process_left_is_not_used(words: Dataset) -> None:
    folder = words.get()
    (folder / "words.txt").unlink()
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir()
    (partial / "download").write_bytes(WORDS[:4])
    assert words.path() is None
    assert (words.get() / "words.txt").read_bytes() == WORDS
    assert not partial.exists()


FETCH = """
import sys
from tenfold.data import URL, Dataset
url, digest = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
print(Dataset("words", {"words.txt": digest}, "", "", [URL(url)]).get())
"""


def test_processes_that_ask_at_once_fetch_once(words: Dataset, site: Site) -> None:
    command = [sys.executable, "-c", FETCH, f"{site.url}/words.txt", digest(WORDS)]
    asking = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in asking:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=600)[0].strip() for process in asking]
    assert answers == [str(words.path())] * 4
    assert site.asked == ["/words.txt"]


def test_what_cannot_be_had_names_the_ways_to_get_it(
    words: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(tmp_path))
    sources: list[Source] = [PyPI("words==1.0", "words/words.txt"), URL("http://127.0.0.1:9/words.txt")]
    offline = replace(words, sources=sources, description="all of them", folder="corpora")
    with pytest.raises(DataUnavailableError) as error:
        offline.get()
    lines = str(error.value).splitlines()
    assert lines[0] == "data words (all of them) is not to be had:"
    assert lines[1] == "  TENFOLD_DATA: is not set"
    assert lines[2].startswith(f"  cache: {cache_directory()}")
    assert lines[3].startswith("  PyPI words==1.0: ")
    assert lines[4].startswith("  http://127.0.0.1:9/words.txt: the download failed: ")
    assert lines[5:] == [
        "To get it:",
        "  with a network: tenfold data get words",
        "  set TENFOLD_DATA to a folder with corpora/words.txt",
    ]


def test_what_has_no_source_is_only_in_the_own_folder(words: Dataset, own_folder: Path) -> None:
    with pytest.raises(DataUnavailableError) as error:
        replace(words, sources=()).get()
    assert f"TENFOLD_DATA: {own_folder} has no words.txt" in str(error.value)
    assert "published nowhere" in str(error.value)
    assert "tenfold data get" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "My Words"}, "a name is made of"),
        ({"name": "../words"}, "a name is made of"),
        ({"files": {}}, "has no files"),
        ({"files": {"../words.txt": "0" * 64}}, "not a relative path"),
        ({"files": {"words.txt": "d41d8cd98f00b204e9800998ecf8427e"}}, "is not the SHA-256 of words.txt"),
        ({"kind": "text"}, "it may be 'data' or 'model'"),
        ({"folder": "/data"}, "not a relative path"),
        (
            {"sources": [URL("https://example.org/other.txt")]},
            "its sources give other.txt; its files",
        ),
    ],
)
def test_an_impossible_data_set_is_refused(words: Dataset, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(words, **changes)


MODULE = """
from tenfold.data import URL, Dataset
DATASETS = [Dataset("words", {"words.txt": "DIGEST"}, "LICENCE", "", [URL("ADDRESS/words.txt")])]
BROKEN = [1]
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a package with a data set `words`."""
    folder = tmp_path / "packages"
    site.files["/words.txt"] = WORDS

    def install(package: str, target: str = "DATASETS", licence: str = "CC0") -> None:
        text = MODULE.replace("DIGEST", digest(WORDS)).replace("LICENCE", licence)
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(text.replace("ADDRESS", site.url))
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[tenfold.datasets]\n{package} = {package}:{target}\n")
        monkeypatch.syspath_prepend(folder)

    yield install
    for module in [name for name in sys.modules if name.startswith("words_of_")]:
        del sys.modules[module]  # another test's package has another address


def test_the_data_sets_of_an_installed_package_are_found_by_name(install: Install) -> None:
    install("words_of_a")
    assert datasets()["words"].licence == "CC0"
    assert (get("words") / "words.txt").read_bytes() == WORDS
    with pytest.raises(UsageError, match=r"there is no data set named 'wrods'; there are: .*words"):
        get("wrods")


@pytest.mark.parametrize("target", ["BROKEN", "nothing", "URL"])
def test_a_broken_package_is_named_and_hides_no_other(
    install: Install, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    install("words_of_a")
    install(f"words_of_broken_{target.lower()}", target)
    assert "words" in datasets()
    datasets()
    (message,) = [text for text in caplog.messages if "words_of_broken" in text]  # said once
    assert f":{target} of words_of_broken_{target.lower()} cannot be read" in message


def test_one_name_for_two_things_is_an_error(install: Install) -> None:
    install("words_of_a")
    install("words_of_b")
    assert "words" in datasets()  # the same twice is no contradiction
    install("words_of_c", licence="MIT")
    with pytest.raises(TenfoldError, match=r"two data sets are named words and differ: .*words_of_") as error:
        datasets()
    assert "words_of_c:DATASETS of words_of_c" in str(error.value)


def test_the_commands(
    install: Install,
    site: Site,
    tenfold: Callable[..., tuple[int, str, str]],
) -> None:
    install("words_of_a")

    def listed() -> str:
        code, out, _ = tenfold("data", "list")
        assert code == 0
        (row,) = [line for line in out.splitlines() if "words" in line]
        return row.strip("│ ").split("│")[-1].strip()

    assert (listed(), tenfold("data", "path", "words")[0], site.asked) == ("no", 1, [])  # nothing is fetched
    code, out, _ = tenfold("data", "get", "words")
    assert (code, Path(out.strip()).parent) == (0, cache_directory())
    assert tenfold("data", "path", "words") == (0, out, "")
    assert listed() == "yes"
    assert tenfold("data", "get", "wrods")[0] == 2
    site.files.clear()
    (Path(out.strip()) / "words.txt").unlink()
    code, _, err = tenfold("data", "get", "words")
    assert code == 1
    assert err.startswith("tenfold: data words is not to be had:")


def test_warnings_reach_the_person(own_folder: Path, tmp_path: Path) -> None:
    """Without any set-up of logging: the command is a process of its own here."""
    (own_folder / "words.txt").write_bytes(WRONG)
    code = f"from tenfold.data import *; Dataset('words', {{'words.txt': '{digest(WORDS)}'}}, '', '').path()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.startswith(f"data words: {own_folder / 'words.txt'}: the SHA-256 is ")
    assert logging.getLogger("tenfold.data").handlers == []
