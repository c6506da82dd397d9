import os
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from tenfold import environment
from tenfold.environment import changes_between, describe_environment, git_state, gpus


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_facts_of_this_machine() -> None:
    found = describe_environment(None, "sum", [2, 0, 2])
    assert found.seeds == [0, 2]
    assert found.packages["pydantic"] == version("pydantic")
    assert found.logical_cores == len(os.sched_getaffinity(0))
    assert found.memory_bytes > 2**28
    assert found.cpu
    assert abs((datetime.now(UTC) - found.started).total_seconds()) < 60
    assert found.git is None


def test_git_state_is_that_of_the_checkout_that_tracks_the_file(tmp_path: Path) -> None:
    source = tmp_path / "experiment.py"
    source.write_text("x = 1\n")
    assert git_state(source) is None  # no repository
    git(tmp_path, "init")
    assert git_state(source) is None  # a repository around an installed package says nothing about it
    git(tmp_path, "add", "experiment.py")
    git(tmp_path, "commit", "-m", "first")
    state = git_state(source)
    assert state is not None
    assert (state.commit, state.dirty) == (git(tmp_path, "rev-parse", "HEAD"), False)
    source.write_text("x = 2\n")
    changed = git_state(source)
    assert changed is not None
    assert (changed.commit, changed.dirty) == (state.commit, True)


def test_gpus_are_what_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho 'NVIDIA H200, 570.1, 143771 MiB'\necho 'NVIDIA H200, 570.1, 143771 MiB'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpus() == ["NVIDIA H200, 570.1, 143771 MiB"] * 2
    tool.write_text("#!/bin/sh\nexit 9\n")  # a driver that does not work
    assert gpus() == []
    monkeypatch.setenv("PATH", "")
    assert gpus() == []


def test_changes_name_what_may_change_numbers() -> None:
    before = describe_environment(None, "sum", [])
    now = before.model_copy(
        update={"python": "9.9", "packages": before.packages | {"pydantic": "0.1", "new": "1"}, "seeds": [5]}
    )
    assert changes_between(before, before) == []
    assert changes_between(before, now) == [
        f"python: {before.python} -> 9.9",
        "new: absent -> 1",
        f"pydantic: {version('pydantic')} -> 0.1",
    ]


def test_cpu_model_comes_from_the_system() -> None:
    listed = Path("/proc/cpuinfo")
    if listed.exists() and "model name" in listed.read_text():
        assert f": {environment.cpu_model()}\n" in listed.read_text()
    else:
        assert environment.cpu_model()
