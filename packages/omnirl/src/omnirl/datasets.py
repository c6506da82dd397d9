"""The outside data sets by name, for `tenfold.data`."""

from __future__ import annotations

from tenfold.data import Dataset

DATASETS = (
    Dataset(
        name="xenoverse-statistics",
        description="fifteen statistics of 120 tasks that xenoverse 0.1.14.0 sampled",
        files={
            "xenoverse_statistics.json": "2619d4afeefca0d2b5d9868f565a855f6f1e907ddf0db84778c107e11eea5bbd"
        },
        folder="omnirl",
        licence="Apache-2.0",
        citation="FutureAGI: Xenoverse, https://github.com/FutureAGI/Xenoverse",
    ),
)
"""It has no source: `benchmarks/tasks.py` computes such statistics anew where xenoverse is installed."""
