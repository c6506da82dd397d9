"""Edit a corpus on a Slurm cluster by datatrove, one GPU a task: the paper's Dolma sample with Llama-3-8B.

    pip install 'toedit[datatrove,vllm]' 'datatrove[s3]'
    python launch/edit_slurm.py hf://datasets/OWNER/DOLMA_SAMPLE s3://bucket/edited --tasks 256 --workers 32

The paper's sample is 6 billion tokens of Dolma v6. Run again, it goes on with the tasks that have no
completion marker in LOGS. Ids come from the corpus, so that the edit does not depend on the number of tasks.
"""

from __future__ import annotations

import argparse
from typing import Any

from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

from toedit import EditConfig
from toedit.integrations.datatrove import TokenEditor

MODEL = "meta-llama/Meta-Llama-3-8B"


def pipeline(source: str, target: str, logs: str, model: str, preset: str, backend: str) -> list[Any]:
    """Read, edit, write; documents that cannot be edited go to a folder of their own, with the reason."""
    return [
        JsonlReader(source),
        TokenEditor(
            model,
            EditConfig.preset(preset),
            backend,
            provenance=True,
            exclusion_writer=JsonlWriter(f"{logs}/quarantine"),
        ),
        JsonlWriter(target),
    ]


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    found.add_argument("source")
    found.add_argument("target")
    found.add_argument("--logs", default="logs/toedit")
    found.add_argument("--model", default=MODEL)
    found.add_argument("--backend", default="vllm")
    found.add_argument("--preset", default="official", help="official: temperature 1.5; paper: 1")
    found.add_argument("--tasks", type=int, default=256)
    found.add_argument("--workers", type=int, default=32, help="tasks, and GPUs, at the same time")
    found.add_argument("--partition", default="gpu")
    found.add_argument("--time", default="24:00:00")
    found.add_argument("--local", action="store_true", help="on this machine, without Slurm")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Submit the job, or run it here."""
    given = parser().parse_args(arguments)
    steps = pipeline(given.source, given.target, given.logs, given.model, given.preset, given.backend)
    if given.local:
        LocalPipelineExecutor(steps, tasks=given.tasks, workers=given.workers, logging_dir=given.logs).run()
        return
    SlurmPipelineExecutor(
        pipeline=steps,
        tasks=given.tasks,
        workers=given.workers,
        time=given.time,
        partition=given.partition,
        cpus_per_task=8,
        mem_per_cpu_gb=8,
        sbatch_args={"gres": "gpu:1"},
        job_name="toedit",
        logging_dir=given.logs,
    ).run()


if __name__ == "__main__":
    main()
