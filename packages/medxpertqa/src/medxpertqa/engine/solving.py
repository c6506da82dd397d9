"""The protocol as an inspect-ai solver, and the parsers as an inspect-ai scorer.

Unless asked to keep it, the text of the questions stays out of the logs: the samples name ids only, the model
is called under a transcript that is thrown away, and what went wrong is told without the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inspect_ai.log import Transcript, transcript
from inspect_ai.log._transcript import init_transcript  # no public name sets the current transcript
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput, get_model
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import concurrency

from medxpertqa.engine.asking import NOT_ASKED, Asked
from medxpertqa.engine.messages import Images, chat_messages
from medxpertqa.errors import DataError
from medxpertqa.parsing import ParserName, parse_answer
from medxpertqa.protocols import Message, Protocol

if TYPE_CHECKING:
    from inspect_ai.model import Model

WITHHELD = "(the text of the question is withheld)"
SHOWN = 300
"""Characters of a provider's message that are kept: it may repeat what it was sent."""


class CallError(RuntimeError):
    """A question got no reply; the message says why, without the request and without keys."""


@dataclass
class Brake:
    """What stops a run before its end: `cost_limit` US dollars, or an endpoint that will answer no question.

    Calls under way when the money is used up are still made and paid.
    """

    cost_limit: float | None = None
    spent: float = 0.0
    reason: str = ""

    def check(self) -> None:
        """Raise `CallError` if the run is to ask nothing more."""
        if self.cost_limit is not None and self.spent >= self.cost_limit:
            self.reason = self.reason or f"the cost limit of ${self.cost_limit:g} is reached"
        if self.reason:
            raise CallError(f"{NOT_ASKED}{self.reason}")


@dataclass(frozen=True)
class Exam:
    """What a run asks and how: the questions by key, and what belongs to every one of them.

    `clusters` names, by id, the group of questions that share an image. So many questions `at_once` have the
    endpoint and their images in memory, each until its last turn is answered (None: inspect-ai decides).
    """

    protocol: Protocol
    asked: Mapping[str, Asked]
    images: Images
    brake: Brake
    log_text: bool = False
    cache: bool = False
    clusters: Mapping[str, str] = field(default_factory=dict)
    at_once: int | None = None


def told(error: BaseException, secret: str | None = None) -> str:
    """The error as one short line, without the request that some providers' errors carry and without keys."""
    cause = error.__cause__ or error
    body = getattr(cause, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    message = str(message or getattr(cause, "message", "") or str(cause).partition("Request:")[0])
    status = getattr(cause, "status_code", None)
    text = " ".join(f"{type(cause).__name__}{f' (HTTP {status})' if status else ''}: {message}".split())
    return (text.replace(secret, "***") if secret else text)[:SHOWN]


def _hopeless(error: BaseException) -> bool:
    """Whether every other question would fail alike: no such key, no such model, nobody there."""
    cause = error.__cause__ or error
    return getattr(cause, "status_code", 0) in (401, 403, 404) or "Connection" in type(cause).__name__


async def call(model: Model, messages: list[Message], exam: Exam) -> ModelOutput:
    """Call the model once; retries are inspect-ai's. Raises `CallError`."""
    exam.brake.check()
    try:
        request = chat_messages(messages, exam.images)
    except DataError as error:  # an image that turned out damaged: this question's fault alone
        raise CallError(str(error)) from None
    before, failure = transcript(), ""
    if not exam.log_text:
        init_transcript(Transcript())
    try:
        output = await model.generate(request, cache=exam.cache)
    except Exception as error:  # of any provider's library; told to the user with the question's id
        failure = told(error, getattr(model.api, "api_key", None))
        if _hopeless(error):
            exam.brake.reason = failure
    finally:
        init_transcript(before)
    if failure:
        raise CallError(failure)
    if output.usage and output.usage.total_cost:
        exam.brake.spent += output.usage.total_cost
    if output.stop_reason == "model_length":
        raise CallError("the question does not fit into the model's context")
    return output


def _place(exam: Exam) -> AbstractAsyncContextManager[Any]:
    """Held by a question while it is asked, through both turns: a server still has its first in the cache."""
    return concurrency("medxpertqa", exam.at_once, visible=False) if exam.at_once else nullcontext()


def protocol_solver(exam: Exam) -> Solver:
    """The solver that puts the questions of an exam by its protocol, turn for turn."""

    @solver(name="medxpertqa/protocol")
    def make(protocol: str) -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            asked, model = exam.asked[str(state.sample_id)], get_model()
            messages = exam.protocol.first_turn(asked.question)
            async with _place(exam):
                outputs = [await call(model, messages, exam)]
                if exam.protocol.n_turns == 2:
                    messages = exam.protocol.second_turn(asked.question, messages, reply_of(outputs[0]))
                    outputs.append(await call(model, messages, exam))
            state.store.set("replies", [reply_of(output) for output in outputs])
            state.store.set("stop_reasons", [stop_reason(output) for output in outputs])
            state.output = outputs[-1]
            state.messages = _kept(messages, outputs) if exam.log_text else _withheld(outputs)
            return state

        return solve

    return make(protocol=exam.protocol.name)


def reply_of(output: ModelOutput) -> str:
    """The text of a reply, without reasoning that the provider keeps apart; nothing if it was refused."""
    if output.stop_reason == "content_filter":
        return ""  # what stands there is the provider's message, in which a parser would find letters
    return output.completion.strip() if output.choices else ""


def stop_reason(output: ModelOutput) -> str:
    """Why the reply ended, in inspect-ai's words; "reasoning_only" if there is reasoning and nothing else."""
    if output.stop_reason == "stop" and not reply_of(output) and output.choices:
        content = output.message.content
        if not isinstance(content, str) and any(part.type == "reasoning" for part in content):
            return "reasoning_only"
    return output.stop_reason


def letter_scorer(exam: Exam) -> Scorer:
    """The scorer: right or wrong by the protocol's official parser; both parsers' letters in the metadata."""

    @scorer(metrics=[accuracy(), stderr()], name="medxpertqa/letter")
    def make() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            asked = exam.asked[str(state.sample_id)]
            # of a sample that inspect-ai recovers after a kill it has the scores, and not the store
            said = {key: state.store.get(key) or [] for key in ("replies", "stop_reasons")}
            found = answers((said["replies"] or [""])[-1], asked, exam.protocol)
            official = found[exam.protocol.parser]
            return Score(
                value=CORRECT if official["letter"] == target.text else INCORRECT,
                answer=official["letter"] or "",
                explanation=official["rule"],
                metadata={"answers": found, **said},
            )

        return score

    return make()


def answers(reply: str, asked: Asked, protocol: Protocol) -> dict[str, dict[str, Any]]:
    """What the protocol's parser and `robust` read out of a reply, as JSON values."""
    question, found = asked.question, dict[str, dict[str, Any]]()
    parsers: tuple[ParserName, ...] = (protocol.parser, "robust")
    for parser in parsers:
        answer = parse_answer(
            reply,
            question.n_options,
            parser,
            options=question.options,
            trigger=protocol.trigger,
        )
        found[parser] = {"letter": answer.letter, "rule": answer.rule, "ambiguous": answer.ambiguous}
    return found


def _kept(messages: list[Message], outputs: list[ModelOutput]) -> list[Any]:
    """The conversation without its images, which a log would hold as text four thirds their size."""
    texts = [
        {**message, "content": [part for part in message["content"] if part["type"] == "text"]}
        if isinstance(message["content"], list)
        else message
        for message in messages
    ]
    return [*chat_messages(texts, lambda name: ("", b"")), outputs[-1].message]


def _withheld(outputs: list[ModelOutput]) -> list[Any]:
    return [
        message
        for output in outputs
        for message in (ChatMessageUser(content=WITHHELD), ChatMessageAssistant(content=reply_of(output)))
    ]
