"""The outside data sets of the experiment by name, for `tenfold.data`."""

from __future__ import annotations

from tenfold.data import Dataset

_SEEDS = "self-instruct-seed-tasks.jsonl.xz"

DATASETS = (
    Dataset(
        name="gsm8k",
        description="GSM8K, test split: grade-school mathematics with worked answers",
        files={"gsm8k-test.jsonl.xz": "69ddcc81b18b12655a9f80f9ac6289f7a4c463438e796ad35f848deb47bd8553"},
        folder="corpora",
        licence="MIT",
        citation="Cobbe et al.: Training Verifiers to Solve Math Word Problems. 2021. arXiv:2110.14168",
    ),
    Dataset(
        name="self-instruct-seeds",
        description="the seed tasks of Self-Instruct: instructions with their answers",
        files={_SEEDS: "5970230c4248d8fdfcc34506fc2ec507378f50a65a662ac448d03b66a09a6e6f"},
        folder="corpora",
        licence="Apache-2.0",
        citation="Wang et al.: Self-Instruct: Aligning Language Models with Self-Generated Instructions. "
        "2022. arXiv:2212.10560",
    ),
)
"""They have no source: these files, packed, are published nowhere."""
