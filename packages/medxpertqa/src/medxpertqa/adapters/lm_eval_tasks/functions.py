"""What the task files beside this name by !function, which lm-eval looks up in their folder."""

from medxpertqa.adapters.lm_eval import (
    answer_only_prompt,
    documents,
    images,
    label_place,
    letters,
    process_results,
    reasoning_prompt,
)

__all__ = [
    "answer_only_prompt",
    "documents",
    "images",
    "label_place",
    "letters",
    "process_results",
    "reasoning_prompt",
]
