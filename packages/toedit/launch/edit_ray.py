"""Edit a corpus on a Ray cluster, one prior a GPU.

    ray job submit -- python launch/edit_ray.py s3://bucket/corpus s3://bucket/edited --actors 32

The result does not depend on the number of actors.
"""

from __future__ import annotations

import argparse

import ray

from toedit import EditConfig
from toedit.integrations.ray import EditBatch


def main(arguments: list[str] | None = None) -> None:
    """Read Parquet, edit, write Parquet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--model", default="meta-llama/Meta-Llama-3-8B")
    parser.add_argument("--backend", default="vllm")
    parser.add_argument("--preset", default="official")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument(
        "--gpus", type=float, default=1, help="of an actor; 0 for the transformers backend on CPUs"
    )
    parser.add_argument("--batch-size", type=int, default=1024)
    given = parser.parse_args(arguments)
    ray.data.read_parquet(given.source).map_batches(
        EditBatch,
        fn_constructor_args=(given.model, EditConfig.preset(given.preset), given.backend),
        concurrency=given.actors,
        num_gpus=given.gpus,
        batch_size=given.batch_size,
    ).write_parquet(given.target)


if __name__ == "__main__":
    main()
