"""Log-probabilities from a server with OpenAI's completions endpoint: vLLM, SGLang and others have it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from implicit_prm.backends.batching import Row
from implicit_prm.backends.reading import read_rows
from implicit_prm.errors import ImplicitPRMError, MissingExtraError, RowError
from implicit_prm.secrecy import without_secrets

# Form of the answer -> what to ask for. One token is always written: some servers take 0 for "no limit".
_REQUESTS: dict[str, dict[str, Any]] = {
    "echo": {"echo": True, "logprobs": 1},
    "prompt_logprobs": {"extra_body": {"prompt_logprobs": 0}},
}


# A server on one's own machine asks for no key, but the client does.
_NO_KEY = "none"


class CompletionsServer:
    """A model behind a completions endpoint; requests go out side by side, the server batches them.

    client       an `openai.OpenAI`, which tries again where a server is busy (its `max_retries`)
    model        the model's name on the server
    concurrency  the most requests under way at once
    """

    def __init__(self, client: Any, model: str, *, concurrency: int = 32) -> None:
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ImplicitPRMError(f"concurrency must be a whole number of at least 1, not {concurrency!r}")
        self.client = client
        self.model = model
        self.concurrency = concurrency

    @classmethod
    def connect(
        cls, url: str, model: str, *, api_key: str | None = None, concurrency: int = 32, **options: Any
    ) -> CompletionsServer:
        """The server at `url`, such as "http://localhost:8000/v1"; `options` are those of `openai.OpenAI`.

        `api_key` None takes that of the environment, `OPENAI_API_KEY`, where there is one.
        """
        try:
            from openai import OpenAI
        except ImportError as error:
            raise MissingExtraError(
                "the client of a server needs the openai package: pip install 'implicit-prm[openai]'"
            ) from error
        key = str(api_key or os.environ.get("OPENAI_API_KEY") or _NO_KEY)
        return cls(OpenAI(base_url=url, api_key=key, **options), model, concurrency=concurrency)

    def complete(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        """The answer (`openai.types.Completion`) to each request, in order.

        Raises `RowError` at the first one that the server refuses, and `ImplicitPRMError` where it does not
        answer; the others are then called off.
        """
        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                return list(pool.map(self._complete, range(len(requests)), requests))
            finally:
                pool.shutdown(cancel_futures=True)

    def _complete(self, number: int, request: dict[str, Any]) -> Any:
        from openai import APIConnectionError, APIStatusError

        where = without_secrets(str(self.client.base_url))
        try:
            return self.client.completions.create(model=self.model, **request)
        except APIConnectionError as error:
            raise ImplicitPRMError(
                f"no answer from {where} ({error}); is the server up, and the address right?"
            ) from error
        except APIStatusError as error:
            raise RowError(number, f"is refused by {where}: {self._told(error)}") from error

    def _told(self, error: Exception) -> str:
        """What the server says, without the key, which some repeat."""
        key = self.client.api_key
        return str(error) if key == _NO_KEY else str(error).replace(key, "***")


class OpenAIBackend:
    """A `LogProbBackend` on a completions server that takes token ids and gives log-probs of the prompt.

    form  "echo": OpenAI's own way, which vLLM and SGLang have too; "prompt_logprobs": vLLM's, whose answer
          names the token ids, so that a server with another vocabulary is found out

    Raises `ImplicitPRMError` for another form.
    """

    def __init__(
        self, server: CompletionsServer, *, form: Literal["echo", "prompt_logprobs"] = "echo"
    ) -> None:
        if form not in _REQUESTS:
            raise ImplicitPRMError(f"form={form!r} is unknown; allowed: {', '.join(map(repr, _REQUESTS))}")
        self.server = server
        self.form = form

    def token_log_probs(
        self, input_ids: Sequence[Sequence[int]], completion_mask: Sequence[Sequence[bool]]
    ) -> list[npt.NDArray[np.float32]]:
        """See `LogProbBackend.token_log_probs`.

        Raises `RowError` for a row that does not fit, that the server refuses, or whose answer does not have
        one number for each token; `ImplicitPRMError` for a server that does not answer.
        """
        rows = read_rows(input_ids, completion_mask)
        asked = [(where, row) for where, row in enumerate(rows) if row is not None]
        requests = [
            {"prompt": list(row.ids), "max_tokens": 1, "temperature": 0.0} | _REQUESTS[self.form]
            for _, row in asked
        ]
        try:
            answers = self.server.complete(requests)
        except RowError as error:  # its place is that of the request
            raise RowError(asked[error.place][0], error.told) from error
        found = [np.empty(0, dtype=np.float32) for _ in rows]
        for (where, row), answer in zip(asked, answers, strict=True):
            found[where] = self._marked(row, answer, where)
        return found

    def _marked(self, row: Row, answer: Any, where: int) -> npt.NDArray[np.float32]:
        if answer.usage is not None and answer.usage.prompt_tokens != len(row.ids):
            raise RowError(
                where,
                f"has {len(row.ids)} tokens, but the server read {answer.usage.prompt_tokens}; "
                "it must take token ids as they are and add no BOS",
            )
        read = _echoed if self.form == "echo" else _named
        values = read(row.ids, answer.choices[0], where)
        log_probs = np.array(values, dtype=np.float32)[np.asarray(row.marks)]
        if not np.isfinite(log_probs).all():
            raise RowError(where, "gets a log-prob from the server that is not finite: look at its model")
        return log_probs


def _echoed(ids: Sequence[int], choice: Any, where: int) -> list[float | None]:
    values = None if choice.logprobs is None else choice.logprobs.token_logprobs
    # The prompt's, then that of the token that was written, if the server wrote it.
    if values is None or not len(ids) <= len(values) <= len(ids) + 1:
        count = "none" if values is None else len(values)
        raise RowError(
            where,
            f"has {len(ids)} tokens, but the server echoed {count} log-probs; "
            "vLLM and SGLang echo those of the prompt, other servers may not",
        )
    return list(values[: len(ids)])


def _named(ids: Sequence[int], choice: Any, where: int) -> list[float | None]:
    entries = getattr(choice, "prompt_logprobs", None)
    if entries is None or len(entries) != len(ids):
        raise RowError(
            where,
            f"gets no prompt_logprobs of its {len(ids)} tokens; is the server vLLM? "
            'For others take form="echo"',
        )
    named = [(entry or {}).get(str(token)) for token, entry in zip(ids, entries, strict=True)]
    if None in named[1:]:
        raise RowError(where, "gets log-probs of other tokens than were sent; serve this model")
    return [None if entry is None else entry["logprob"] for entry in named]
