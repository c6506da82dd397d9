"""E1: the numbers of Tables 2 and 3 and of Figures 2 and 3, from the released attributes and questions."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from medxpertqa.attributes import DatasetStatistics, dataset_statistics, load_attributes
from medxpertqa.datasets import archived_questions, bank
from medxpertqa.questions import Question
from medxpertqa.reproduce.claims import ATTRIBUTES, BANKS, SAMPLED
from tenfold import Trial, TrialContext

PRINTED: dict[str, float] = {
    "Text": 2450,
    "MM": 2000,
    "all": 4450,
    "Text Reasoning": 1861,
    "Text Understanding": 589,
    "MM Reasoning": 1446,
    "MM Understanding": 554,
    "Diagnosis %": 50.54,
    "Treatment %": 26.83,
    "Basic Science %": 22.63,
    "images": 2852,
    "1 image": 1581,
    "2 images": 236,
    "3 images": 59,
    "4 images": 22,
    "5 images": 78,
    "6 images": 24,
}
"""Tables 2 and 3 and Figure 3; the images by question are the data set's card and ours."""


def data_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Measure what the data sets that are there allow; `settings` name them."""
    there = set(trial.settings["data"])
    found: dict[str, Any] = {}
    if ATTRIBUTES in there:
        statistics = dataset_statistics(load_attributes())
        measured = measure(statistics)
        found |= {
            "measured": measured,
            "data_entries": len(PRINTED),
            "data_differences": sum(measured.get(name) != value for name, value in PRINTED.items()),
            "share_skeletal": round(statistics.pooled_percent("body_system")["Skeletal"], 2),
            "test_images": statistics.total_images,
        }
    if find_spec("bpe_openai") is not None:
        if SAMPLED in there:
            found["length_mm"] = average_length(archived_questions("mm"))
        for name, metric in zip(BANKS, ("length_medqa", "length_medmcqa", "length_mmlu"), strict=True):
            if name in there:
                found[metric] = average_length(bank(name))  # type: ignore[arg-type]  # its name is one
    return found


def measure(statistics: DatasetStatistics) -> dict[str, float]:
    """What `PRINTED` names, of the data."""
    measured: dict[str, float] = {**statistics.n, "all": sum(statistics.n.values())}
    for subset, counts in statistics.question_type.items():
        measured |= {f"{subset} {name}": count for name, count in counts.items()}
    shares = statistics.pooled_percent("medical_task")
    measured |= {f"{task} %": round(share, 2) for task, share in shares.items()}
    measured["images"] = statistics.total_images
    for count, questions in sorted(statistics.n_images.get("MM", {}).items()):
        measured["1 image" if count == 1 else f"{count} images"] = questions
    return measured


def average_length(questions: Iterable[Question]) -> float:
    """The mean number of o200k_base tokens of the question strings with their options, to two decimals."""
    import bpe_openai

    encoding = bpe_openai.get_encoding("o200k_base")
    counts = [len(encoding.encode_ordinary(question.to_prompt_string())) for question in questions]
    return round(sum(counts) / len(counts), 2)
