"""A server's log-probs are those of the model it serves, in either form; wrong answers are refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from implicit_prm.backends.base import LogProbBackend
from implicit_prm.backends.hf import HFBackend
from implicit_prm.backends.openai import CompletionsServer, OpenAIBackend
from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning
from implicit_prm.sampling import OpenAISampler, Sampler, prompt_ids

Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


class StandIn(ThreadingHTTPServer):
    """A server on this machine that answers a completions request by calling `reply` with its JSON."""

    reply: Reply
    requests: list[dict[str, Any]]
    authorization: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self.server.authorization = self.headers["Authorization"]
        status, answer = self.server.reply(request)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    server = StandIn(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def connect(server: StandIn) -> Callable[..., OpenAIBackend]:
    def connect(reply: Reply, **options: Any) -> OpenAIBackend:
        server.reply, server.requests = reply, []
        return OpenAIBackend(CompletionsServer.connect(server.url, "tiny", max_retries=0), **options)

    return connect


def completion(choice: dict[str, Any], prompt_tokens: int) -> tuple[int, dict[str, Any]]:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 1, "total_tokens": prompt_tokens + 1}
    choice = {"index": 0, "text": "", "finish_reason": "length", "logprobs": None} | choice
    return 200, {"id": "1", "object": "text_completion", "created": 1, "model": "tiny", "usage": usage} | {
        "choices": [choice]
    }


def log_probs_of(model: Any, ids: list[int]) -> list[float | None]:
    mask = [False] + [True] * (len(ids) - 1)
    return [None, *HFBackend(model).token_log_probs([ids], [mask])[0].tolist()]


def echo(values: list[float | None], prompt_tokens: int) -> tuple[int, dict[str, Any]]:
    logprobs = {
        "token_logprobs": values,
        "tokens": ["?"] * len(values),
        "text_offset": [],
        "top_logprobs": [],
    }
    return completion({"logprobs": logprobs}, prompt_tokens)


ROWS = [[5, 9, 8, 7, 3], [5, 6], [4, 4, 4, 300, 2, 17, 40]]
MASKS = [[False, False, True, True, True], [False, False], [False, True, False, True, True, True, False]]


@pytest.mark.parametrize("form", ["echo", "prompt_logprobs"])
def test_both_forms_give_the_log_probs_of_the_model_that_is_served(connect, tiny_llama, server, form) -> None:
    model = tiny_llama()
    known = {tuple(ids): log_probs_of(model, ids) for ids in (ROWS[0], ROWS[2][:-1])}

    def reply(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        ids = request["prompt"]
        values = known[tuple(ids)]
        if request.get("echo"):
            return echo([*values, -0.5], len(ids))
        named = [
            {str(token): {"logprob": value, "rank": 1}, "9": {"logprob": -9.0}} if value else None
            for token, value in zip(ids, values, strict=True)
        ]
        return completion({"prompt_logprobs": named}, len(ids))

    backend = connect(reply, form=form)
    assert isinstance(backend, LogProbBackend)
    found = backend.token_log_probs(ROWS, MASKS)
    expected = HFBackend(model).token_log_probs(ROWS, MASKS)
    assert [row.shape for row in found] == [(3,), (0,), (4,)]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        assert ours == pytest.approx(theirs, abs=1e-6)
    sent = sorted((request["prompt"] for request in server.requests), key=len)
    assert sent == [
        ROWS[0],
        ROWS[2][:-1],
    ]  # nothing marked, nothing asked; no token after the last marked one
    assert all(request["max_tokens"] == 1 for request in server.requests)


def test_a_server_that_reads_other_tokens_is_refused(connect) -> None:
    with_bos = connect(lambda request: echo([None, *[-1.0] * 5], 6))
    with pytest.raises(ImplicitPRMError, match=r"row 0 has 5 tokens, but the server read 6.*add no BOS"):
        with_bos.token_log_probs(ROWS[:1], MASKS[:1])
    other = connect(
        lambda request: completion({"prompt_logprobs": [None, *[{"1": {"logprob": -1.0}}] * 4]}, 5),
        form="prompt_logprobs",
    )
    with pytest.raises(ImplicitPRMError, match="row 0 gets log-probs of other tokens than were"):
        other.token_log_probs(ROWS[:1], MASKS[:1])


@pytest.mark.parametrize(
    ("form", "choice", "message"),
    [
        ("echo", {}, "row 0 has 5 tokens, but the server echoed none"),
        ("echo", {"logprobs": {"token_logprobs": [-1.0]}}, "the server echoed 1 log-probs"),
        (
            "echo",
            {"logprobs": {"token_logprobs": [None] * 6}},
            "row 0 gets a log-prob from the server that is not fin",
        ),
        ("prompt_logprobs", {}, 'row 0 gets no prompt_logprobs of its 5 tokens.*form="echo"'),
    ],
)
def test_an_answer_without_the_prompts_log_probs_is_refused(connect, form, choice, message) -> None:
    with pytest.raises(ImplicitPRMError, match=message):
        connect(lambda request: completion(choice, 5), form=form).token_log_probs(ROWS[:1], MASKS[:1])


def test_what_the_server_says_and_its_address_are_in_the_error(connect, server) -> None:
    refusing = connect(lambda request: (404, {"error": {"message": "The model `tiny` does not exist."}}))
    with pytest.raises(
        ImplicitPRMError, match=r"row 0 is refused by .*127.0.0.1:\d+/v1/.*`tiny` does not exist"
    ):
        refusing.token_log_probs(ROWS[:1], MASKS[:1])
    with pytest.raises(ImplicitPRMError, match="row 1 is refused"):  # nothing is asked for the first one
        refusing.token_log_probs([ROWS[0], *ROWS[:1]], [[False] * len(ROWS[0]), *MASKS[:1]])
    nobody = CompletionsServer.connect("http://127.0.0.1:9/v1", "tiny", max_retries=0)
    with pytest.raises(ImplicitPRMError, match=r"no answer from http://127\.0\.0\.1:9/v1/"):
        OpenAIBackend(nobody).token_log_probs(ROWS[:1], MASKS[:1])


def test_the_key_is_that_of_the_environment_and_in_no_message(connect, server, monkeypatch) -> None:
    def reply(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 401, {"error": {"message": f"wrong key: {server.authorization}"}}

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ImplicitPRMError, match="wrong key: Bearer none"):
        connect(reply).token_log_probs(ROWS[:1], MASKS[:1])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    with pytest.raises(ImplicitPRMError, match=r"wrong key: Bearer \*\*\*"):
        connect(reply).token_log_probs(ROWS[:1], MASKS[:1])
    assert server.authorization == "Bearer sk-of-the-environment"
    given = CompletionsServer.connect(server.url, "tiny", api_key="sk-given", max_retries=0)
    with pytest.raises(ImplicitPRMError, match=r"wrong key: Bearer \*\*\*"):
        OpenAIBackend(given).token_log_probs(ROWS[:1], MASKS[:1])
    assert server.authorization == "Bearer sk-given"
    named = CompletionsServer.connect("http://me:password@127.0.0.1:9/v1", "tiny", max_retries=0)
    with pytest.raises(ImplicitPRMError, match=r"no answer from http://127\.0\.0\.1:9/v1/"):
        OpenAIBackend(named).token_log_probs(ROWS[:1], MASKS[:1])


def test_settings_that_cannot_be_are_named() -> None:
    with pytest.raises(ImplicitPRMError, match="form='chat' is unknown"):
        OpenAIBackend(CompletionsServer(None, "tiny"), form="chat")  # type: ignore[arg-type]
    with pytest.raises(ImplicitPRMError, match="concurrency must be a whole number of at least 1"):
        CompletionsServer(None, "tiny", concurrency=0)


def test_answers_keep_the_order_of_the_rows_whatever_comes_back_first(connect) -> None:
    late = threading.Event()

    def reply(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        first = request["prompt"][1] == 1
        assert not first or late.wait(10)
        if request["prompt"][1] == 4:
            late.set()
        return echo([None, -float(request["prompt"][1])], 2)

    rows = [[0, value] for value in (1, 2, 3, 4)]
    found = connect(reply).token_log_probs(rows, [[False, True]] * 4)
    assert [row.tolist() for row in found] == [[-1.0], [-2.0], [-3.0], [-4.0]]


def written(request: dict[str, Any], *choices: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """An answer with a choice for each, the last one first: servers answer in any order."""
    rows = [
        {"index": at, "text": "", "finish_reason": "stop", "logprobs": None} | choice
        for at, choice in enumerate(choices)
    ]
    _, answer = completion({}, 2)
    return 200, answer | {"choices": rows[::-1]}


def test_samples_of_a_server_that_names_its_tokens_are_those_tokens(connect, server, tokenizer) -> None:
    def reply(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        values = {"token_logprobs": [-0.5, -0.25], "tokens": ["4", "?"], "text_offset": [0, 1]}
        first = {"text": "4", "token_ids": [22, 2], "logprobs": values}
        second = {"text": "44", "token_ids": [22, 22], "logprobs": values, "finish_reason": "length"}
        return written(request, first, second)

    sampler = OpenAISampler(connect(reply).server, tokenizer)
    assert isinstance(sampler, Sampler)
    prompts = ["so", [5, 6], [{"role": "user", "content": "4"}]]
    found = sampler.sample(prompts, 2, temperature=0.5, top_p=0.9, max_tokens=2, seed=3)
    assert [[(s.text, s.token_ids, s.truncated) for s in row] for row in found] == [
        [("4", (22, 2), False), ("44", (22, 22), True)]
    ] * 3
    assert found[0][0].log_probs.tolist() == [-0.5, -0.25]
    assert sorted(request["prompt"] for request in server.requests) == sorted(
        list(ids) for ids in prompt_ids(prompts, tokenizer)
    )
    assert len({request["seed"] for request in server.requests}) == 3
    for request in server.requests:
        assert (request["n"], request["temperature"], request["top_p"], request["max_tokens"]) == (
            2,
            0.5,
            0.9,
            2,
        )
        # Nothing that the server would cut by itself.
        assert (request["top_k"], request["min_p"], request["repetition_penalty"]) == (-1, 0.0, 1.0)


def test_samples_of_a_server_that_names_no_tokens_are_split_anew_with_a_warning(connect, tokenizer) -> None:
    choices = {"text": "the answer"}, {"text": "so", "finish_reason": "length"}
    server = connect(lambda request: written(request, *choices)).server
    with pytest.warns(ImplicitPRMWarning, match="does not say which tokens it wrote"):
        (row,) = OpenAISampler(server, tokenizer).sample(["so"], 2, max_tokens=4)
    assert row[0].token_ids == (*tokenizer("the answer").input_ids, tokenizer.eos_token_id)
    assert row[1].token_ids == tuple(tokenizer("so").input_ids)
    assert [(s.log_probs, s.truncated) for s in row] == [(None, False), (None, True)]
    with pytest.warns(ImplicitPRMWarning), pytest.raises(ImplicitPRMError, match="serve the model by vLLM"):
        OpenAISampler(server).sample(["so"], 2)
    with pytest.raises(ImplicitPRMError, match="messages need the chat template"):
        OpenAISampler(server).sample([[{"role": "user", "content": "4"}]])
