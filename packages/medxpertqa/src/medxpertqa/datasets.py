"""The outside data sets of the experiment and the tests by name, for `tenfold.data`."""

from __future__ import annotations

from typing import Literal

from medxpertqa.hub import load_questions
from medxpertqa.questions import Question
from tenfold.data import URL, Dataset

_CITATION = (
    "Zuo et al.: MedXpertQA: Benchmarking Expert-Level Medical Reasoning and Understanding. ICML 2025. "
)
_BANK = "as the official MedXpertQA repository keeps it"

ATTRIBUTES = Dataset(
    name="medxpertqa-attributes",
    description="MedXpertQA: ids and attributes of the 4,450 test questions, no text of them",
    files={"attributes.csv": "94c545de004f6a1cff571eaf43dbed31be37d3480ce56c409f8f1d0d5c2e4223"},
    folder="medxpertqa",
    licence="MIT",
    citation=_CITATION + "arXiv:2501.18362",
)
QUESTIONS = Dataset(
    name="medxpertqa-questions",
    description="MedXpertQA for evaluation only: all MM questions and the Text sample, behind a password",
    files={"medxpertqa_eval_only.zip": "46fc3de8dcc67a786504997de10daa88f6dfc35aa3c9489d815733ca6596a07a"},
    folder="medxpertqa",
    licence="MIT; the authors ask for evaluation only, no training, and no sharing of examples",
    citation=_CITATION + "arXiv:2501.18362",
)
MEDQA = Dataset(
    name="medqa",
    description=f"MedQA-USMLE, 1,273 test questions with 4 options, {_BANK}",
    files={"medqa.jsonl.gz": "daa3d07b9dc307679d5d4997518806cee42106d02649d8f7f9a958c4e075072e"},
    folder="medxpertqa",
    licence="MIT",
    citation="Jin et al.: What Disease does this Patient Have? 2020. arXiv:2009.13081",
)
MEDMCQA = Dataset(
    name="medmcqa",
    description=f"MedMCQA, 4,183 validation questions, {_BANK}",
    files={"medmcqa.jsonl.gz": "d7c4b1f2e2ceea4b95f4807970f814aedf24a6c28d4db562a964be0d6793abb8"},
    folder="medxpertqa",
    licence="MIT",
    citation="Pal et al.: MedMCQA. 2022. arXiv:2203.14371",
)
MMLU_MEDICAL = Dataset(
    name="mmlu-medical",
    description=f"MMLU, 1,089 test questions of six medical subjects, {_BANK}",
    files={"mmlu_medical.jsonl.gz": "10def0a346f2ba12735f87157d29ae363dbd7de2bdda8ed4bb642e0ab871db38"},
    folder="medxpertqa",
    licence="MIT",
    citation="Hendrycks et al.: Measuring Massive Multitask Language Understanding. 2020. arXiv:2009.03300",
)

_OFFICIAL = (
    "https://raw.githubusercontent.com/TsinghuaC3I/MedXpertQA/f21247d3ccf3b14826ff2aa7fa06e1a46d64058c"
)
OFFICIAL_PARSERS = Dataset(
    name="medxpertqa-official-parsers",
    description="the official repository's eval/utils.py, with which our parsers are compared",
    files={"utils.py": "4b333621ffd33e1f53ffeb82c259c069adccdfe5794558a77cda4228a39ea322"},
    folder="medxpertqa",
    licence="MIT",
    citation=_CITATION + "arXiv:2501.18362",
    sources=(URL(f"{_OFFICIAL}/eval/utils.py", file="utils.py"),),
)

DATASETS = (ATTRIBUTES, QUESTIONS, MEDQA, MEDMCQA, MMLU_MEDICAL, OFFICIAL_PARSERS)
"""The first five have no source: they are extracts, packed anew, not published. The hub has the questions."""


def archived_questions(name: Literal["text/o1", "mm/o1", "mm"]) -> list[Question]:
    """The test questions of the archive, read in memory; `DataUnavailableError` if it is not to be had."""
    return load_questions(name, QUESTIONS.get() / "medxpertqa_eval_only.zip")


def bank(name: Literal["medqa", "medmcqa", "mmlu-medical"]) -> list[Question]:
    """The questions of a bank without a request not to share them; `DataUnavailableError` as above."""
    dataset = {found.name: found for found in (MEDQA, MEDMCQA, MMLU_MEDICAL)}[name]
    return load_questions(path=dataset.get() / next(iter(dataset.files)))
