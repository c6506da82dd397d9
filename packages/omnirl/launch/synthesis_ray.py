"""Data by Ray: the same shards as on one machine.

ray job submit -- python synthesis_ray.py tasks.npz OUT STEPS
"""

from __future__ import annotations

import sys

from omnirl import TaskBatch, synthesize
from omnirl.data import RayExecutor


def main(tasks: str, out: str, steps: str) -> None:
    """Synthesise one sequence a task on all the cluster's cores; what is there already is kept."""
    synthesize(TaskBatch.load(tasks), int(steps), seed=0, out=out, workers=RayExecutor())


if __name__ == "__main__":
    main(*sys.argv[1:])
