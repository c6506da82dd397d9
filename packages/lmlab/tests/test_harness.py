"""The harness's score of a local task is that of the model's own log-probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lmlab.errors import SettingsError
from lmlab.harness import benchmark
from lmlab.models import build_model
from lmlab.tokenizers import train_tokenizer

CHOICES = [" river", " stone", " light"]
SETTINGS = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.5,  # so that choices differ
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["the river and the stone in the light"] * 20, 300)


@pytest.fixture
def task(tmp_path: Path) -> dict[str, Any]:
    rows = [{"question": f"number {number}:", "answer": number % 3} for number in range(12)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {
        "task": "questions",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(tmp_path / "questions.jsonl")},
            "cache_dir": str(tmp_path / "cache"),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": CHOICES,
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def test_a_local_task(task: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_model(SETTINGS, 3).train()
    right = 0
    with torch.no_grad():
        for number in range(12):
            scores = []
            for choice in CHOICES:
                question = tokenizer(f"number {number}:")["input_ids"]
                answer = tokenizer(choice)["input_ids"]
                logits = model(torch.tensor([question + answer])).logits[0].log_softmax(-1)
                at = range(len(question) - 1, len(question + answer) - 1)
                scores.append(sum(logits[i, token].item() for i, token in zip(at, answer, strict=True)))
            right += scores.index(max(scores)) == number % 3
    assert 0 < right < 12
    found = benchmark(model, tokenizer, [task])
    assert found["questions"]["acc"] == pytest.approx(right / 12)
    assert found["questions"]["acc_stderr"] > 0
    assert model.training


@pytest.mark.slow
def test_tasks_by_name(task: dict[str, Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "questions.yaml").write_text(json.dumps(task))  # JSON is YAML
    model = build_model(SETTINGS, 3)
    named = benchmark(model, tokenizer, ["questions"], include_path=tmp_path, limit=6)
    assert named == benchmark(model, tokenizer, [task], limit=6)
    with pytest.raises(SettingsError, match="the harness has no task not_a_task"):
        benchmark(model, tokenizer, ["not_a_task"])
