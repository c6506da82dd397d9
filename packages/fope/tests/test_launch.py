"""The scripts that launch on many GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[1] / "launch"
SLURM = {"SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_GPUS_ON_NODE": "4"}


@pytest.mark.parametrize(
    ("script", "environment", "expected"),
    [
        ("torchrun.sh", {"GPUS": "3"}, ["--num_processes 3"]),
        (
            "slurm.sbatch",
            SLURM,
            ["--num_machines 2 --num_processes 8 --machine_rank 1 --main_process_ip a1"],
        ),
    ],
)
def test_launch_scripts_call_accelerate_with_fsdp2(
    script: str, environment: dict[str, str], expected: list[str], tmp_path: Path
) -> None:
    """With stand-ins for what a cluster has; the settings file must be there."""
    stands = {
        "accelerate": 'test -f "$3" || exit 1; echo "$@"',
        "scontrol": "echo a1; echo a2",
        "srun": 'exec "$@"',
    }
    for name, code in stands.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{code}\n")
        (tmp_path / name).chmod(0o755)
    python = Path(sys.executable).parent
    path = f"{tmp_path}:{python}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", str(LAUNCH / script), "60M-c4-512-fope", "--set", "a=b c"],
        env=os.environ | environment | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    assert "fsdp2.yaml" in ended.stdout
    assert ended.stdout.strip().endswith("-m fope train 60M-c4-512-fope --set a=b c")
    for words in expected:
        assert words in ended.stdout
