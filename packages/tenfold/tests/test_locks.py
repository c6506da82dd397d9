import subprocess
import sys
import time
from pathlib import Path

import pytest

from tenfold import UsageError, locks

HOLD = """
import sys, time
from pathlib import Path
from tenfold.locks import {which}
with {which}(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(which: str, directory: Path, seconds: float) -> subprocess.Popen[str]:
    """Hold the lock in another process."""
    command = [sys.executable, "-c", HOLD.format(which=which), str(directory), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("which", ["own_lock", "share_lock"])
def test_a_folder_in_use_is_refused(tmp_path: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.2)
    process = hold(which, tmp_path / "quick", 60)
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


def test_processes_that_are_about_to_end_are_waited_for(tmp_path: Path) -> None:
    process = hold("share_lock", tmp_path / "quick", 0.5)
    start = time.monotonic()
    with locks.own_lock(tmp_path / "quick"):
        assert time.monotonic() - start > 0.2
        assert process.wait() == 0


def test_our_own_trial_processes_are_let_in(tmp_path: Path) -> None:
    with locks.own_lock(tmp_path / "quick"):
        assert hold("share_lock", tmp_path / "quick", 0).wait() == 0
