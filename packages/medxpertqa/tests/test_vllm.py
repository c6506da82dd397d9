"""vLLM serves a model: runs and batches go through it, and replies are what transformers says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medxpertqa import EvalRun, MedXpertQAError, evaluate, export_batch, get_protocol, import_batch, summarize
from medxpertqa.reproduce.vllm_server import sender, served
from medxpertqa.synthetic import synthetic_questions

pytestmark = pytest.mark.vllm

QUESTIONS = synthetic_questions("text")[:3]
CONTEXT, NEW_TOKENS = 512, 12
TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}assistant"
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,  # so that the most likely token leads by more than rounding
}
SERVED = [
    "--dtype",
    "float32",
    "--enforce-eager",
    "--max-model-len",
    str(CONTEXT),
    "--served-model-name",
    "tiny",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that knows the words of the questions."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model")
    splitter = pre_tokenizers.Whitespace()
    texts = [
        message["content"] for q in QUESTIONS for message in flat(get_protocol("official-cot").first_turn(q))
    ]
    words = dict.fromkeys(word for text in texts for word, _ in splitter.pre_tokenize_str(text))
    known = dict.fromkeys(["<unk>", "<s>", "</s>", *words])  # each once: a number is a row of the model
    vocabulary = {word: number for number, word in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=TEMPLATE,
    ).save_pretrained(path)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), **SIZES)).save_pretrained(path)
    return path


def flat(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Messages with their text parts as strings."""
    return [
        {
            "role": m["role"],
            "content": m["content"] if isinstance(m["content"], str) else m["content"][0]["text"],
        }
        for m in messages
    ]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """The address of vLLM's OpenAI-compatible server, as the experiment starts it."""
    with served(folder, "tiny", CONTEXT, threads=2, dtype="float32") as address:
        yield address


def expected(folder: Path) -> dict[str, str]:
    """What transformers says, by question."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    said = {}
    for question in QUESTIONS:
        text = tokenizer.apply_chat_template(
            flat(get_protocol("official-ao").first_turn(question)), tokenize=False
        )
        ids = torch.tensor([tokenizer.encode(text)])
        written = model.generate(ids, do_sample=False, max_new_tokens=NEW_TOKENS)[0, ids.shape[1] :]
        said[question.id] = tokenizer.decode(written, skip_special_tokens=True).strip()
    return said


def test_a_served_model_answers_as_transformers_does_and_the_run_resumes(
    folder: Path, server: str, tmp_path: Path
) -> None:
    settings = {"model": "openai-api/local/tiny", "base_url": server, "max_tokens": NEW_TOKENS}
    results = evaluate(QUESTIONS, log_dir=tmp_path / "ao", protocol="official-ao", **settings)
    assert {record.id: record.response for record in results.records} == expected(folder)
    assert len(set(expected(folder).values())) > 1  # a model that reads, not one that says one thing
    assert all(record.input_tokens > 50 and record.output_tokens <= NEW_TOKENS for record in results.records)
    assert evaluate(QUESTIONS, log_dir=tmp_path / "ao", protocol="official-ao", **settings) == results
    two_turns = summarize(evaluate(QUESTIONS, log_dir=tmp_path / "cot", **settings))
    assert (two_turns.n, two_turns.n_errors, two_turns.complete) == (3, 0, True)


def test_the_servers_context_is_looked_at_before_the_run(server: str, tmp_path: Path) -> None:
    with pytest.raises(MedXpertQAError, match=f"context of {CONTEXT} tokens, .* its reply may have 2048"):
        evaluate(QUESTIONS, model="openai-api/local/tiny", base_url=server, log_dir=tmp_path)


def test_the_experiments_requests_reach_the_model_and_what_it_turns_down_is_told(
    folder: Path, server: str
) -> None:
    send = sender(f"{server}/chat/completions")
    question = QUESTIONS[0]
    messages = flat(get_protocol("official-ao").first_turn(question))
    asked = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": NEW_TOKENS}
    assert send(asked)["choices"][0]["message"]["content"].strip() == expected(folder)[question.id]
    assert send(asked | {"max_tokens": 10 * CONTEXT})["error"]["code"] == 400


def test_run_batch_answers_an_exported_batch(folder: Path, tmp_path: Path) -> None:
    run = EvalRun(QUESTIONS, "tiny", tmp_path / "b", "official-ao", settings={"max_tokens": NEW_TOKENS})
    (requests,) = export_batch(run).files
    output = tmp_path / "output.jsonl"
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.run_batch",
        "-i",
        str(requests),
        "-o",
        str(output),
    ]
    subprocess.run([*command, "--model", str(folder), *SERVED], check=True, env=os.environ, timeout=300)
    assert len([json.loads(line) for line in output.read_text().splitlines()]) == 3
    state = import_batch(tmp_path / "b", [output], QUESTIONS)
    assert (state.n_replies, state.n_failed, state.n_open) == (3, 0, 0)
    assert state.results is not None
    assert {record.id: record.response for record in state.results.records} == expected(folder)
