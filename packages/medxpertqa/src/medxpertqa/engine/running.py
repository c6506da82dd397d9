"""`evaluate`: a model answers questions by a protocol; the same call again goes on where it stopped."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medxpertqa.engine.asking import Ablation, Asked, asked_questions, shard_of
from medxpertqa.engine.description import BATCH_FILE, RunDescription, sole_user
from medxpertqa.engine.messages import Images
from medxpertqa.engine.parameters import check_settings, request_settings
from medxpertqa.engine.sources import check_images, image_source, shared_images
from medxpertqa.errors import DataError, MedXpertQAError, MedXpertQAWarning, MissingExtraError
from medxpertqa.hub import question_digest
from medxpertqa.protocols import Protocol, get_protocol
from medxpertqa.questions import Question, check_questions
from medxpertqa.results import Results
from medxpertqa.secrecy import without_secrets

if TYPE_CHECKING:
    from inspect_ai.model import Model

    from medxpertqa.engine.solving import Brake, Exam

RETRIES = 9
"""The official client tries ten times."""

Display = Literal["none", "plain", "rich", "full", "log"]

_TRANSPORT = ("max_retries", "timeout", "attempt_timeout", "max_connections", "adaptive_connections", "batch")
"""What changes how fast replies come, not what they say."""


@dataclass(frozen=True)
class Estimate:
    """What a run will ask for; `cost` guesses US dollars for replies as long as allowed (None: unknown).

    `n_questions` counts epochs and orders of the options each; `n_done` of them have a reply already.
    """

    n_questions: int
    n_done: int
    n_calls: int
    input_tokens: int
    max_output_tokens: int
    cost: float | None


@dataclass(frozen=True)
class EvalRun:
    """A run of `evaluate` before it runs; the fields are its arguments."""

    questions: str | Sequence[Question]
    model: str
    log_dir: str | os.PathLike[str]
    protocol: str = "official-cot"
    data: str | os.PathLike[str] | None = None
    images: Images | str | os.PathLike[str] | None = None
    base_url: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    demonstrations: Sequence[Question] = ()
    limit: int | None = None
    sample_ids: Sequence[str] = ()
    shard: str = ""
    epochs: int = 1
    permute: int = 1
    ablate: Sequence[Ablation] = ()
    price: tuple[float, float] | None = None
    cost_limit: float | None = None
    log_text: bool = False
    cache: bool = False
    display: Display = "none"
    allow_revision: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def all_questions(self) -> list[Question]:
        """The whole set, before any limit."""
        if not isinstance(self.questions, str):
            return check_questions(self.questions, "the questions given")
        import medxpertqa

        return list(
            medxpertqa.load_questions(self.questions, path=self.data, allow_revision=self.allow_revision)
        )

    @cached_property
    def image_source(self) -> Images | None:
        """What gives the images; not looked for where nothing that is asked has any."""
        if self.images is None and not any(question.images for question in self._shown):
            return None
        return image_source(self.images, self.dataset, self.data)

    @cached_property
    def asked(self) -> dict[str, Asked]:
        """What is asked, by key."""
        chosen = self.all_questions
        if self.sample_ids:
            known = {question.id: question for question in chosen}
            unknown = [name for name in self.sample_ids if name not in known]
            if unknown:
                raise DataError(f"there is no question {unknown[0]} in {self.dataset}")
            chosen = [known[name] for name in dict.fromkeys(self.sample_ids)]
        chosen = shard_of(chosen, self.shard) if self.shard else chosen
        if self.limit is not None and self.limit < 1:
            raise MedXpertQAError(f"--limit {self.limit}: it must be at least 1")
        asked = asked_questions(chosen[: self.limit], self.permute, self.ablate)
        return {question.key: question for question in asked}

    @property
    def dataset(self) -> str:
        """The name of the set of questions."""
        return self.questions if isinstance(self.questions, str) else "questions"

    @cached_property
    def rules(self) -> Protocol:
        """The protocol; where images are taken away, those of its demonstrations too."""
        shown = [replace(q, images=()) if "images" in self.ablate else q for q in self.demonstrations]
        return get_protocol(self.protocol, shown)

    @property
    def _shown(self) -> list[Question]:
        """What a request may show: the questions and the demonstrations."""
        return [*(asked.question for asked in self.asked.values()), *self.rules.demonstrations]

    @property
    def description(self) -> RunDescription:
        """What the log folder is told."""
        official = request_settings(self.rules)
        changed = {key: value for key, value in self.altered.items() if official.get(key) != value}
        return RunDescription(
            model=self.model,
            protocol=self.protocol,
            parser=self.rules.parser,
            dataset=self.dataset,
            digest=question_digest(self.all_questions),
            n_expected=len({asked.published.id for asked in self.asked.values()}),
            epochs=self.epochs,
            permute=self.permute,
            ablate=tuple(self.ablate),
            shard=self.shard,
            demonstrations=question_digest(self.demonstrations) if self.demonstrations else "",
            altered=dict(sorted(changed.items())),
            asked=tuple(self.asked),
            model_args=_as_json(without_secrets(dict(self.model_args))),
        )

    def estimate(self) -> Estimate:
        """Count the calls and guess the tokens, four characters each and images not counted; asks nobody."""
        from medxpertqa.engine import logs
        from medxpertqa.engine.endpoint import price_of

        turns, price, folder = self.rules.n_turns, price_of(self._open_model()), Path(self.log_dir)
        done = logs.progress(folder).finished if folder.is_dir() else frozenset()
        left = [key for key, epoch in self._wanted() if (key, epoch) not in done]
        longest_reply = request_settings(self.rules, self.altered)["max_tokens"]
        first = sum(_length(self.rules, self.asked[key].question) for key in left) // 4
        n_in = first + (first + len(left) * longest_reply) * (turns - 1)
        n_out = len(left) * turns * longest_reply
        cost = None if price is None else (n_in * price[0] + n_out * price[1]) / 1e6
        n = len(self.asked) * self.epochs
        return Estimate(n, n - len(left), len(left) * turns, n_in, n_out, cost)

    def execute(self) -> Results:
        """Ask what has no reply yet, and return all results of the folder."""
        folder, model = Path(self.log_dir), self._open_model()

        from medxpertqa.engine import logs
        from medxpertqa.engine.endpoint import check_endpoint, price_of
        from medxpertqa.engine.solving import Brake

        description = self.description
        if self.cost_limit is not None and price_of(model) is None:
            raise MedXpertQAError(
                f"the price of {self.model} is unknown, so a cost limit cannot be kept; give --price IN OUT, "
                "US dollars for a million tokens"
            )
        if (folder / BATCH_FILE).exists():
            raise MedXpertQAError(f"{folder} holds a batch; use another --log-dir")
        with sole_user(folder):
            description.check(folder)
            before = logs.progress(folder)
            missing = set(self._wanted()) - before.finished
            if missing:
                self.check_images()
                longest = max(_length(self.rules, asked.question) for asked in self.asked.values())
                max_tokens = request_settings(self.rules, self.altered)["max_tokens"]
                check_endpoint(model, longest, max_tokens, self.rules.n_turns)
            description.write(folder)  # not earlier: a check that failed leaves the folder free
            if missing:
                brake = Brake(self.cost_limit, before.spent)
                self._ask(model, self.exam(brake, begun={key for key, _ in before.finished}))
                if brake.reason and not logs.progress(folder).finished:
                    raise MedXpertQAError(f"no question was answered: {brake.reason}")
                if brake.reason:
                    message = f"{brake.reason}: after that nothing more was asked"
                    warnings.warn(message, MedXpertQAWarning, stacklevel=2)
            return logs.read_logs(folder)

    def _wanted(self) -> list[tuple[str, int]]:
        """The (key, epoch) of all that is to be asked."""
        return [(key, epoch) for key in self.asked for epoch in range(1, self.epochs + 1)]

    def check_images(self) -> None:
        """Raise `DataError` for an image that is missing, is none, or is too large for the provider."""
        check_images(self._shown, self.image_source, self.model)

    def exam(self, brake: Brake, begun: Set[str] = frozenset()) -> Exam:
        """What inspect-ai's solver and scorer are told.

        `begun` has the keys of what the folder has replies to. inspect-ai knows what it has by its number
        alone and keeps of it what the task names: without them other questions would pass for answered ones,
        or replace them.
        """
        from medxpertqa.engine.solving import Exam

        every = asked_questions(self.all_questions, self.permute, self.ablate) if begun else []
        asked = self.asked | {question.key: question for question in every if question.key in begun}
        clusters = shared_images(self.all_questions, self.image_source)
        images = self.image_source or no_images
        return Exam(self.rules, asked, images, brake, self.log_text, self.cache, clusters, self._at_once)

    def _open_model(self) -> Model:
        try:
            from medxpertqa.engine.endpoint import open_model, set_price

            model = open_model(self.model, self.base_url, self.model_args)
        except ModuleNotFoundError as error:
            if error.name not in ("inspect_ai", "openai"):
                raise
            raise MissingExtraError(
                "evaluate needs an optional extra: pip install 'medxpertqa[eval]'"
            ) from None
        check_settings(self.settings)
        if self.price is not None:
            set_price(model, self.price)
        return model

    @property
    def altered(self) -> dict[str, Any]:
        """The settings that change what is asked for."""
        return {key: value for key, value in self.settings.items() if key not in _TRANSPORT}

    @property
    def _at_once(self) -> int | None:
        from inspect_ai.model import GenerateConfig

        return GenerateConfig(**self.settings).max_connections

    def _ask(self, model: Model, exam: Exam) -> None:
        from inspect_ai import eval_set

        from medxpertqa.engine.tasks import exam_task

        transport: dict[str, Any] = {key: self.settings[key] for key in _TRANSPORT if key in self.settings}
        _, found = eval_set(
            exam_task(exam, self.dataset.replace("/", "-"), self.altered),
            log_dir=str(self.log_dir),
            model=model,
            epochs=self.epochs,
            # The endpoint is kept busy while replies are scored and logged: only `at_once` have it.
            max_samples=2 * exam.at_once if exam.at_once else None,
            # A question that failed makes the log unfinished, not the run stop: the next run asks it again.
            fail_on_error=True,
            continue_on_fail=True,
            retry_attempts=0,
            retry_immediate=False,
            display=self.display,
            log_images=False,
            log_model_api=False,
            score_display=False,
            ctl_server=False,
            **{"max_retries": RETRIES, **transport},
        )
        if not found:  # inspect-ai keeps Ctrl-C to itself, and returns no logs
            raise KeyboardInterrupt


def evaluate(
    questions: str | Sequence[Question],
    *,
    model: str,
    log_dir: str | os.PathLike[str],
    protocol: str = "official-cot",
    data: str | os.PathLike[str] | None = None,
    images: Images | str | os.PathLike[str] | None = None,
    base_url: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    demonstrations: Sequence[Question] = (),
    limit: int | None = None,
    sample_ids: Sequence[str] = (),
    shard: str = "",
    epochs: int = 1,
    permute: int = 1,
    ablate: Sequence[Ablation] = (),
    price: tuple[float, float] | None = None,
    cost_limit: float | None = None,
    log_text: bool = False,
    cache: bool = False,
    display: Display = "none",
    allow_revision: bool = False,
    **settings: Any,
) -> Results:
    """Let a model answer questions by a protocol, on inspect-ai, and return the results so far.

    The same call again asks only what has no reply yet; a question that failed is asked again. `questions`
    is a name for `load_questions` (with `data` a file of them) or the questions; `images` is a ZIP, a folder
    or a function from file name to type and bytes (default: those of a named set); `model` is inspect-ai's
    name; `limit`, `sample_ids` and `shard` ("i/n") choose among the questions, `epochs` repeats each one,
    `permute` asks each with its options in that many cyclic orders, `ablate` takes away images or stem.
    `price` is US dollars for a million input and output tokens where inspect-ai does not know it; after
    `cost_limit` US dollars nothing more is asked, which a warning tells; what was not asked has no record.
    `log_text` keeps the text of the questions in the logs. `settings` are inspect-ai's (max_tokens,
    temperature, max_connections, ...); one that changes what the protocol says is told in the results.

    Raises `MedXpertQAError` for settings, a model, a key or an endpoint that cannot work, and for a log
    folder with another run in it or in use; `DataError` for the questions and for images that are missing or
    damaged; `MissingExtraError`. After Ctrl-C `KeyboardInterrupt` is raised, with all replies kept.
    """
    return EvalRun(
        questions,
        model,
        log_dir,
        protocol,
        data,
        images,
        base_url,
        model_args or {},
        demonstrations,
        limit,
        sample_ids,
        shard,
        epochs,
        permute,
        ablate,
        price,
        cost_limit,
        log_text,
        cache,
        display,
        allow_revision,
        settings,
    ).execute()


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a file holds of them, and gives back: of an object only its kind."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=lambda value: type(value).__name__))
    return plain


def _length(protocol: Protocol, question: Question) -> int:
    """Characters of the text of the first request."""
    contents = [message["content"] for message in protocol.first_turn(question)]
    texts = [
        part["text"]
        for content in contents
        for part in ([{"text": content}] if isinstance(content, str) else content)
        if "text" in part
    ]
    return sum(map(len, texts))


def no_images(name: str) -> tuple[str, bytes]:
    """Where there are no images: `DataError`."""
    raise DataError(f"there is nowhere to take the image {name} from; give images, or ablate them")
