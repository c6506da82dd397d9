import subprocess
import sys
from pathlib import Path

import pytest

from tenfold import UsageError, locks

HOLD = """
import sys
from pathlib import Path
from tenfold.locks import {which}
with {which}(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(which: str, directory: Path) -> subprocess.Popen[str]:
    """Hold the lock in another process, until its stdin is closed."""
    command = [sys.executable, "-c", HOLD.format(which=which), str(directory)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("which", ["own_lock", "share_lock"])
def test_a_folder_in_use_is_refused(tmp_path: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.2)
    process = hold(which, tmp_path / "quick")
    try:
        with (
            pytest.raises(UsageError, match=r"another tenfold command is running in .*quick"),
            locks.own_lock(tmp_path / "quick"),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    with locks.own_lock(tmp_path / "quick"):  # a killed holder holds nothing
        pass


def test_processes_that_are_about_to_end_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = hold("share_lock", tmp_path / "quick")
    waited: list[float] = []

    def let_go(seconds: float) -> None:
        waited.append(seconds)
        process.communicate()

    monkeypatch.setattr(locks, "PATIENCE_S", 600)
    monkeypatch.setattr("tenfold.locks.time.sleep", let_go)
    with locks.own_lock(tmp_path / "quick"):
        assert len(waited) == 1  # refused, then let in
        assert process.returncode == 0


def test_our_own_trial_processes_are_let_in(tmp_path: Path) -> None:
    with locks.own_lock(tmp_path / "quick"):
        process = hold("share_lock", tmp_path / "quick")
        process.communicate()
        assert process.returncode == 0
