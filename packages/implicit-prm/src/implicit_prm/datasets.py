"""The outside data sets of the experiment by name, for `tenfold.data`."""

from __future__ import annotations

from tenfold.data import URL, Dataset

_GSM8K = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"
_SOLUTIONS = "gsm8k_example_model_solutions.jsonl"
_PROCESSBENCH = "processbench_gsm8k_upto_error.jsonl"
_GSM8K_PAPER = "Cobbe et al.: Training Verifiers to Solve Math Word Problems. 2021. arXiv:2110.14168"

DATASETS = (
    Dataset(
        name="gsm8k-worked",
        description="GSM8K, both splits: grade-school mathematics, every calculation of the answers marked",
        files={
            "gsm8k_train.jsonl": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
            "gsm8k_test.jsonl": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        },
        folder="implicit-prm",
        licence="MIT",
        citation=_GSM8K_PAPER,
        sources=(
            URL(f"{_GSM8K}/train.jsonl", file="gsm8k_train.jsonl"),
            URL(f"{_GSM8K}/test.jsonl", file="gsm8k_test.jsonl"),
        ),
    ),
    Dataset(
        name="gsm8k-model-solutions",
        description="GSM8K, test split: four model solutions a question, each labelled right or wrong",
        files={_SOLUTIONS: "4bc62db838f8418365d51c627bd66294cbdca9fb7f01519cb13f0dce8c51580b"},
        folder="implicit-prm",
        licence="MIT",
        citation=_GSM8K_PAPER,
        sources=(URL(f"{_GSM8K}/example_model_solutions.jsonl", file=_SOLUTIONS),),
    ),
    Dataset(
        name="math500",
        description="MATH-500: the 500 test problems of Let's Verify Step by Step",
        files={"math500.jsonl": "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132"},
        folder="implicit-prm",
        licence="MIT",
        citation="Lightman et al.: Let's Verify Step by Step. 2023. arXiv:2305.20050",
    ),
    Dataset(
        name="processbench-gsm8k",
        description="ProcessBench, GSM8K split, up to the first error: 207 with one, 193 without",
        files={_PROCESSBENCH: "350116757cdb40a099bbca3095bbb835ec22362855d01605835e4808bd21baad"},
        folder="implicit-prm",
        licence="Apache-2.0",
        citation="Zheng et al.: ProcessBench. 2024. arXiv:2412.06559",
    ),
)
"""`math500` is kept by its authors in Git LFS, `processbench-gsm8k` is re-assembled: neither has a source."""
