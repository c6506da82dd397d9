"""The outside data sets of the experiment and the verifiers' tests by name, for `tenfold.data`."""

from __future__ import annotations

from tenfold.data import URL, Dataset

DATASETS = (
    Dataset(
        name="humaneval",
        description="HumanEval: 164 Python problems with solutions and unit tests",
        files={"HumanEval.jsonl.gz": "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"},
        folder="prime",
        licence="MIT",
        citation="Chen et al.: Evaluating Large Language Models Trained on Code. 2021. arXiv:2107.03374",
        sources=(URL("https://raw.githubusercontent.com/openai/human-eval/master/data/HumanEval.jsonl.gz"),),
    ),
    Dataset(
        name="olympiadbench-answers",
        description="OlympiadBench, English competition mathematics: the answers of 675 problems, in LaTeX",
        files={
            "olympiadbench_answers.jsonl": "8b54271161686716fb1b3039e42ef8d31447a69dc8178ac30af53a498aa3326d"
        },
        folder="prime",
        licence="Apache-2.0",
        citation="He et al.: OlympiadBench. 2024. arXiv:2402.14008",
    ),
)
"""`olympiadbench-answers` is an extract and has no source."""
