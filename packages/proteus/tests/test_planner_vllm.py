"""A real server: vLLM with a model of random weights, whose answers have the right shape and no sense."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("pydantic_ai")

from proteus_omics.errors import EndpointError
from proteus_omics.hypotheses.references import Tables
from proteus_omics.models import (
    Budget,
    DatasetProfile,
    Missing,
    Objective,
    ObsColumn,
    Step,
)
from proteus_omics.planner.base import Connection, Results
from proteus_omics.planner.llm import LLMPlanner
from proteus_omics.tools.registry import all_tools

pytestmark = pytest.mark.vllm

TOOLS = ("normalize", "de_limma", "treat")
CONTEXT = 16_384
PROFILE = DatasetProfile(
    n_obs=8,
    n_vars=50,
    modality="bulk",
    scale="log2",
    id_kind="symbol",
    missing=Missing(overall=0.1),
    obs_columns=(ObsColumn(name="group", kind="categorical", levels={"a": 4, "b": 4}),),
    design={"condition": "group", "reference": "a"},
    levels={"a": 4, "b": 4},
    n_samples=8,
)
OBJECTIVE = Objective(id="o1", title="Differences", question="Which?", kind="differential")
DE = pd.DataFrame(
    {
        "protein": ["P01833", "O95445"],
        "gene": ["PIGR", "APOM"],
        "contrast": "b_vs_a",
        "log2fc": [1.82, -0.53],
        "p_value": [1e-4, 1e-3],
        "q_value": [0.001, 0.004],
    }
)


def save_random_model(folder: Path) -> None:
    """A two-layer Llama over bytes, and a tokenizer whose chat is its messages one after another."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = {token: number for number, token in enumerate(["<pad>", "<eos>", *bytes_])}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(letters),
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("model")
    save_random_model(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = f"--host 127.0.0.1 --port {port} --dtype float32 --max-model-len {CONTEXT} --max-num-seqs 2"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += [*settings.split(), "--served-model-name", "random", "--gpu-memory-utilization", "0.2"]
    process = subprocess.Popen([*command, "--enforce-eager"], env=os.environ, start_new_session=True)
    try:
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1", "random"
    finally:
        process.terminate()
        process.wait(60)


def test_each_call_ends_in_a_typed_answer_or_says_why_not(served: tuple[str, str]) -> None:
    """Random weights may write blanks until they are cut off; that is a problem told, never a crash."""
    events: list[tuple[str, Any]] = []
    planner = LLMPlanner(*served, context_tokens=CONTEXT, max_tokens=700)
    tools = {name: all_tools()[name] for name in TOOLS}
    planner.connect(
        Connection(
            profile=PROFILE,
            tools=tools,
            budget=Budget(request_timeout=300),
            emit=lambda event, payload: events.append((event, payload)),
        )
    )
    results = Results(Tables({"de": DE}), Tables({"de": DE}))
    step = Step(id="s1", tool="de_limma", inputs={"data": "input"})
    calls: list[Callable[[], Any]] = [
        lambda: planner.propose_objectives(PROFILE, tools),
        lambda: planner.repair(step, "trend = 'x': it is true, false or 'auto'"),
        lambda: planner.interpret(OBJECTIVE, results),
        lambda: planner.follow_up(OBJECTIVE, results),
    ]
    for call in calls:
        with contextlib.suppress(EndpointError):  # without a fallback, that is how a problem is told
            call()
    answers = [payload for event, payload in events if event == "llm_response"]
    assert len(answers) == len(calls)
    assert all((one["answer"] is None) == bool(one["problem"]) for one in answers)
    assert all(one["answered_by"] == ("nobody" if one["problem"] else "random") for one in answers)
    assert planner.spent.output_tokens > 0
