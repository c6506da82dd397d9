"""Asking a language model for a typed answer: limits, retries, record, and a breaker (section 2.10).

Any OpenAI-compatible endpoint, or any model of pydantic-ai.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from importlib.resources import files
from typing import Any, TypeVar

from pydantic import BaseModel

from proteus_omics.errors import BudgetError, EndpointError, MissingExtraError, ProteusError
from proteus_omics.models import Budget
from proteus_omics.planner.base import Cassette, Connection, Spent
from proteus_omics.planner.context import Section, fit, tokens

try:
    import pydantic_ai
    from pydantic_ai import Agent, ModelRetry, NativeOutput, PromptedOutput
    from pydantic_ai.exceptions import (
        ModelAPIError,
        ModelAuthenticationError,
        ModelContextWindowExceededError,
        ModelNotFoundError,
        ModelQuotaExceededError,
        ModelRequestRejectedError,
        UnexpectedModelBehavior,
        UsageLimitExceeded,
    )
    from pydantic_ai.models import Model
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.usage import RunUsage, UsageLimits

    from proteus_omics.planner.cassette import CassetteModel
except ImportError as error:
    raise MissingExtraError(
        "a language model needs an optional extra: pip install 'proteus-omics[llm]'"
    ) from error

pydantic_ai.BANNER_ENABLED = False

OutputT = TypeVar("OutputT", bound=BaseModel)
ResultT = TypeVar("ResultT")

FAILURES_IN_A_ROW = 3
OUTPUT_RETRIES = 2
TRANSPORT_RETRIES = 3
"""Of one request, after a 429, a 5xx or a lost connection; all within the budget's `request_timeout`."""
MOST_SHORTENINGS = 2
HOPELESS = (ModelAuthenticationError, ModelNotFoundError, ModelQuotaExceededError)
"""Asking again cannot help: the breaker opens at once."""


class Unanswered(Exception):
    """The endpoint gave no usable answer; the message says why."""


class Endpoint:
    """A model with its limits. `broken` says why it is not asked any more, empty while it is."""

    def __init__(
        self,
        model: str | Model,
        base_url: str | None = None,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        context_tokens: int = 16_384,
        max_tokens: int = 4_096,
    ) -> None:
        if not model:
            raise EndpointError("no model: name one that the endpoint serves (model=, --model)")
        if max_tokens >= context_tokens:
            raise EndpointError(
                f"max_tokens ({max_tokens}) leaves no room for a request: it must be below context_tokens "
                f"({context_tokens})"
            )
        self.model = _openai_model(model, base_url, api_key_env) if isinstance(model, str) else model
        self.broken = ""
        self._context_tokens, self._max_tokens = context_tokens, max_tokens
        self._budget, self._began, self._seed = Budget(), time.monotonic(), 0
        self._emit: Callable[[str, Mapping[str, Any]], None] = lambda event, payload: None
        self._usage = RunUsage()
        self._failures = 0
        self._native = True
        self._told: set[str] = set()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.model_name

    @property
    def spent(self) -> Spent:
        """What was asked so far."""
        usage = self._usage
        return Spent(usage.requests, usage.input_tokens, usage.output_tokens, usage.cost or Decimal(0))

    def connect(self, connection: Connection) -> None:
        """Take a run's budget, record and events."""
        self.use(connection.budget, connection.cassette, connection.seed)
        self._emit = connection.emit
        spent = connection.spent
        self._usage = RunUsage(
            requests=spent.requests,
            input_tokens=spent.input_tokens,
            output_tokens=spent.output_tokens,
            cost=spent.cost or None,  # unknown, until an answer has a price
        )
        self.broken, self._failures = "", 0

    def use(self, budget: Budget, cassette: Cassette | None = None, seed: int | None = None) -> None:
        """Take a budget, whose seconds begin here, a record and a seed."""
        self._budget, self._began = budget, time.monotonic()
        self._seed = self._seed if seed is None else seed
        if isinstance(self.model, CassetteModel):
            self.model = self.model.wrapped
        if cassette is not None and cassette[1] != "off":
            self.model = CassetteModel(self.model, *cassette)

    def ask(
        self,
        call: str,
        sections: Sequence[Section],
        output: type[OutputT],
        check: Callable[[OutputT], ResultT],
        *,
        system: str = "system",
        seed: int | None = None,
        instead: str = "",
    ) -> ResultT:
        """What `check` makes of the answer to the prompt `call`; what it refuses is asked again, twice.

        `instead` names who answers where the model does not. Raises `Unanswered`, `BudgetError` once the
        budget is spent, and `CassetteMiss` in replay.
        """
        seconds = self._budget.max_seconds
        if seconds is not None and time.monotonic() - self._began >= seconds:
            raise BudgetError(f"the budget of {seconds:g} seconds is spent: a larger --max-seconds goes on")
        instructions = "\n\n".join(prompt(part) for part in dict.fromkeys((system, call)) if part)
        before, result, reason = self.spent, None, self.broken
        try:
            if not reason:
                result = self._with_less(call, instructions, sections, output, check, seed)
                self._failures = 0
        except UsageLimitExceeded as error:
            reason = _spent_message(self._budget, str(error))
            raise BudgetError(reason) from error
        except (ModelAPIError, UnexpectedModelBehavior) as error:
            reason = self._failed(error)
        finally:
            self._emit("llm_response", self._account(call, before, result, reason, instead))
        if result is None:
            raise Unanswered(reason)
        return result[1]

    # ---- one call

    def _with_less(
        self,
        call: str,
        instructions: str,
        sections: Sequence[Section],
        output: type[OutputT],
        check: Callable[[OutputT], ResultT],
        seed: int | None,
    ) -> tuple[OutputT, ResultT]:
        """Ask; where the request is too long for the model, with a shorter one."""
        room = self._context_tokens - self._max_tokens - tokens(instructions)
        for shortening in range(MOST_SHORTENINGS + 1):
            text = fit(sections, max(room >> shortening, 1))
            self._emit("llm_request", {
                "call": call, "model": self.name, "prompt_sha256": sha256(instructions),
                "estimated_tokens": tokens(instructions) + tokens(text), "request": text,
            })  # fmt: skip
            try:
                return self._in_either_mode(instructions, text, output, check, seed)
            except ModelContextWindowExceededError:
                if shortening == MOST_SHORTENINGS:
                    raise
        raise AssertionError("unreachable")

    def _in_either_mode(
        self,
        instructions: str,
        text: str,
        output: type[OutputT],
        check: Callable[[OutputT], ResultT],
        seed: int | None,
    ) -> tuple[OutputT, ResultT]:
        """Ask for the schema by `response_format`; a server that refuses that is told it in the prompt."""
        try:
            return self._run(instructions, text, output, check, seed)
        except ModelRequestRejectedError as error:
            if not self._native or isinstance(error, (*HOPELESS, ModelContextWindowExceededError)):
                raise
        self._native = False
        return self._run(instructions, text, output, check, seed)

    def _run(
        self,
        instructions: str,
        text: str,
        output: type[OutputT],
        check: Callable[[OutputT], ResultT],
        seed: int | None,
    ) -> tuple[OutputT, ResultT]:
        made: list[ResultT] = []
        agent = Agent(
            self.model,
            output_type=NativeOutput(output, strict=True) if self._native else PromptedOutput(output),
            instructions=instructions,
            name="proteus-omics",
            retries={"output": OUTPUT_RETRIES},
        )

        @agent.output_validator
        def checked(answer: OutputT) -> OutputT:
            try:
                made.append(check(answer))
            except ProteusError as error:
                raise ModelRetry(str(error)) from error
            return answer

        settings = ModelSettings(
            temperature=0.0,
            max_tokens=self._max_tokens,
            seed=self._seed if seed is None else seed,
            request_timeout=self._budget.request_timeout,
            max_retries=TRANSPORT_RETRIES,
        )
        cost = self._budget.max_cost
        limits = UsageLimits(
            request_limit=self._budget.max_requests,
            total_tokens_limit=self._budget.max_tokens,
            cost_limit=None if cost is None else Decimal(str(cost)),
        )
        with self._warned_once():
            found = _finish(
                lambda: agent.run_sync(
                    text, model_settings=settings, usage_limits=limits, usage=self._usage, infer_name=False
                )
            )
        return found.output, made[-1]

    @contextlib.contextmanager
    def _warned_once(self) -> Iterator[None]:
        """Every request would warn again, of an unknown price say; once is enough."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                yield
        finally:
            for one in caught:
                if str(one.message) not in self._told:
                    self._told.add(str(one.message))
                    warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)

    def _failed(self, error: Exception) -> str:
        """Count a failure, open the breaker after three in a row; the reason in one line."""
        self._failures += 1
        reason = " ".join(str(error).split())[:300]
        if isinstance(error, HOPELESS):
            self.broken = f"{self.name} cannot be asked: {reason}"
        elif self._failures >= FAILURES_IN_A_ROW:
            self.broken = f"{self.name} failed {FAILURES_IN_A_ROW} times in a row, last: {reason}"
        return reason

    def _account(
        self,
        call: str,
        before: Spent,
        result: tuple[BaseModel, Any] | None,
        reason: str,
        instead: str,
    ) -> dict[str, Any]:
        now = self.spent
        return {
            "call": call,
            "answered_by": instead if result is None else self.name,
            "answer": None if result is None else result[0].model_dump(mode="json"),
            "problem": "" if result is not None else reason or "cut off",
            "requests": now.requests - before.requests,
            "input_tokens": now.input_tokens - before.input_tokens,
            "output_tokens": now.output_tokens - before.output_tokens,
            "cost": str(now.cost - before.cost),
        }


def prompt(name: str) -> str:
    """The text of a prompt's file."""
    return (
        files("proteus_omics.planner").joinpath("prompts", f"{name}.md").read_text(encoding="utf-8").strip()
    )


def sha256(text: str) -> str:
    """The hash of a text, by which an event names a prompt's version."""
    return hashlib.sha256(text.encode()).hexdigest()


def _openai_model(name: str, base_url: str | None, api_key_env: str) -> Model:
    key = os.environ.get(api_key_env)
    if base_url is None and not key:
        raise EndpointError(
            f"no base_url, and no key in the environment variable {api_key_env}: give the address of an "
            "OpenAI-compatible server (base_url, --base-url), or set the variable"
        )
    if base_url is not None and not re.match(r"https?://[^/\s]+", base_url):
        raise ProteusError(f"base_url is {base_url!r}; it is an address such as http://localhost:8000/v1")
    # The client wants a key; a server of one's own may take any.
    return OpenAIChatModel(name, provider=OpenAIProvider(base_url=base_url, api_key=key or "none"))


def _spent_message(budget: Budget, reason: str) -> str:
    money, option = "", ""
    if budget.max_cost is not None:
        money, option = f" and {budget.max_cost:g} US dollars", ", --max-cost"
    return (
        f"the budget of {budget.max_requests} requests and {budget.max_tokens} tokens{money} is spent "
        f"({reason.partition('. Consider')[0]}): a larger one goes on (--max-requests, --max-tokens{option})"
    )


def _finish(run: Callable[[], ResultT]) -> ResultT:
    """Run to the end, also where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(run).result()
