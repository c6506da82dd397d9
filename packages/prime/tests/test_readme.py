"""The README's examples run as they stand, with a tiny model, and its numbers are those of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

import implicit_prime
from implicit_prime import core, models, verifiers
from implicit_prime.cli import app
from implicit_prime.config import PrimeConfig
from implicit_prime.online import OnlinePRM
from implicit_prm import ImplicitPRM
from implicit_prm.logprobs import causal_log_probs

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
TRAINING, TENSORS, TRAINER = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def even_word_first(completions: Sequence[str], references: Sequence[Any]) -> list[float]:
    """Right, of a random policy's responses, about half."""
    firsts = [(text.split() or ["w1"])[0] for text in completions]
    return [float(first[1:].isdigit() and int(first[1:]) % 2 == 0) for first in firsts]


def test_the_example_of_training(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_llama: Callable[..., LlamaForCausalLM],
    words: PreTrainedTokenizerFast,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_llama(max_position_embeddings=512)
    monkeypatch.setattr(models, "load_model", lambda name, **options: model)
    monkeypatch.setattr(models, "load_tokenizer", lambda name: words)
    monkeypatch.setattr(verifiers, "MathVerifier", lambda extract: even_word_first)
    names: dict[str, Any] = {}
    exec(TRAINING, names)
    assert names["trainer"].state.step == 2
    for name in ("metrics.jsonl", "final/policy/model.safetensors", "final/prm/model.safetensors"):
        assert (tmp_path / "run" / name).is_file(), name


def test_the_numbers_of_the_example_on_tensors_are_what_the_functions_give() -> None:
    names: dict[str, Any] = {"torch": torch, "core": core}
    exec(TENSORS, names)
    told = 0
    for line in TENSORS.splitlines():
        code, _, said = line.partition("  # ")
        if code.startswith("core."):
            assert eval(code, names).flatten().tolist() == pytest.approx(ast.literal_eval(f"[{said}]")), code
            told += 1
    assert told == 5


def test_every_setting_and_public_name_that_it_shows_exists() -> None:
    settings = {field.name: field for field in fields(PrimeConfig)}
    shown = set(re.findall(r"`([a-z_]+)=(\"?)([\w-]+)\2`", README))
    assert len(shown) > 10
    for name, _, value in shown:
        if name not in ("resume_from_checkpoint",):
            assert name in settings, name
            PrimeConfig(output_dir="-", **{name: {"True": True, "False": False}.get(value, value)})
    for name in re.findall(r"`([A-Z][A-Za-z]+(?:Verifier|Sandbox|Trainer|Config))`", README):
        assert hasattr(implicit_prime, name), name


def test_every_verb_that_it_shows_exists() -> None:
    verbs = set(re.findall(r"`implicit-prime ([a-z]+)", README))
    assert verbs
    for verb in verbs:
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0, verb


def test_the_function_for_other_trainers_gives_every_token_its_reward(
    tiny_llama: Callable[..., LlamaForCausalLM], words: PreTrainedTokenizerFast
) -> None:
    names: dict[str, Any] = {}
    exec(TRAINER, names)
    prm = ImplicitPRM(tiny_llama(), words, tiny_llama(1), 0.05)
    args = PrimeConfig(output_dir="-", use_cpu=True, prm_learning_rate=1e-3)
    online = OnlinePRM(prm, args, Accelerator(cpu=True))
    responses = [[5, 6, 1], [7, 1], [8, 9, 10], [11, 1]]
    output = {
        "prompt_token_ids": [[3, 4], [3, 4], [12], [12]],
        "response_ids": responses,
        "rollout_logprobs": [[-1.0] * len(ids) for ids in responses],
        "stop_reasons": ["stop", "stop", "length", "stop"],
        "loss_masks": [[1] * len(ids) for ids in responses],
    }
    outcomes = [1.0, 0.0, 0.0, 1.0]
    found = names["with_process_rewards"](output, outcomes, 2, online)
    rows = zip(output["prompt_token_ids"], responses, outcomes, found["rewards"], strict=True)
    for prompt, response, outcome, rewards in rows:
        whole = torch.tensor([[*prompt, *response]])
        with torch.no_grad():
            first, reference = (
                causal_log_probs(tiny_llama(seed), whole, torch.ones_like(whole))[0, len(prompt) :]
                for seed in (0, 1)
            )
        wanted = 0.05 * (first - reference)  # of the PRM before it is trained
        wanted[-1] += outcome
        assert rewards == pytest.approx(wanted.tolist(), abs=1e-6)
    assert {**found, "rewards": None} == {**output, "rewards": None}
