"""A record of a language model's answers, so that a run can be done again without the model (section 2.10).

One JSON object a line: `{"key", "request", "response"}`, or `{"key", "request", "error", "kind"}` where the
endpoint failed, so that a replayed run asks in another way, or falls back, where the recorded one did. The
key is the SHA-256 of the request: the model's name, the settings, the schema of the answer, the instructions
(so the version of the prompt) and the messages, without times and ids.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelContextWindowExceededError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRequestRejectedError,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from proteus_omics.errors import CassetteMiss
from proteus_omics.planner.base import CassetteMode

BEGINNING = '{"key": "'
"""Of every entry."""
SETTINGS = ("max_tokens", "seed", "temperature")
"""Settings that change an answer; timeouts and retries do not."""

FAILURES: Mapping[str, type[ModelAPIError]] = {
    kind.__name__: kind
    for kind in (
        ModelContextWindowExceededError,
        ModelAuthenticationError,
        ModelNotFoundError,
        ModelQuotaExceededError,
        ModelRequestRejectedError,
        ModelAPIError,
    )
}
"""Failures that are met in different ways, the special ones before the general ones."""


class CassetteModel(WrapperModel):
    """A model that records its answers in `path`, or gives recorded ones.

    `record` asks and appends; `replay` never asks and raises `CassetteMiss` for what is not on the record;
    `auto` asks only for what is not on the record, or failed there. Of equal requests the last one counts.
    """

    def __init__(self, wrapped: Model, path: str | Path, mode: CassetteMode) -> None:
        super().__init__(wrapped)
        self._path, self._mode = Path(path), mode
        if mode == "replay" and not self._path.exists():
            raise CassetteMiss(f"there is no cassette {self._path} to replay; record one with mode 'record'")
        self._entries = read_cassette(self._path, mend=mode != "replay") if self._path.exists() else {}

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The answer, recorded or new. Raises `CassetteMiss` in replay, and failures as recorded."""
        request = normalised(self.model_name, messages, model_settings, model_request_parameters)
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        if self._mode != "record":
            entry = self._entries.get(key)
            if entry is not None and "response" in entry:
                return _response(entry["response"])
            if self._mode == "replay":
                if entry is None:
                    raise CassetteMiss(self._miss(key, request))
                raise self._failure(entry)
        try:
            response = await self.wrapped.request(messages, model_settings, model_request_parameters)
        except (ModelAPIError, UnexpectedModelBehavior) as error:
            kind = next((name for name, one in FAILURES.items() if isinstance(error, one)), "")
            self._append({"key": key, "request": request, "error": str(error), "kind": kind})
            raise
        self._append({"key": key, "request": request, "response": _recorded(response)})
        return response

    def _failure(self, entry: Mapping[str, Any]) -> Exception:
        """The failure of its kind; one of none was an answer that is no answer."""
        kind = FAILURES.get(entry.get("kind", "ModelAPIError"))
        if kind is None:
            return UnexpectedModelBehavior(entry["error"])
        return kind(self.model_name, entry["error"])

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._entries[entry["key"]] = entry

    def _miss(self, key: str, request: Mapping[str, Any]) -> str:
        """Says what was asked, and where it first differs from the nearest recorded request."""
        asked = _lines(request)
        said = f"{self._path} has no answer to request {key[:12]}"
        if not self._entries:
            return f"{said}: it is empty"
        alike = {
            other: difflib.SequenceMatcher(None, asked, _lines(entry["request"]), autojunk=False).ratio()
            for other, entry in self._entries.items()
        }
        nearest = max(alike, key=lambda other: alike[other])
        theirs = _lines(self._entries[nearest]["request"])
        changed = list(difflib.unified_diff(theirs, asked, lineterm="", n=0))[2:]
        differs = [line for line in changed if not line.startswith("@@")][:4]
        return (
            f"{said}; the nearest is {nearest[:12]} ({alike[nearest]:.0%} alike), which differs in\n"
            + "\n".join(line[:200] for line in differs)
            + "\nRecord again (mode 'record', or 'auto' to add what is missing)."
        )


def read_cassette(path: Path, mend: bool = True) -> dict[str, Mapping[str, Any]]:
    """The entries of a cassette by key. Raises `CassetteMiss` naming the line that is none.

    A last line without its end, as a killed run leaves it, does not count; `mend` cuts it off in the file
    where all before it are entries and it begins as one: another file is left as it is.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CassetteMiss(f"{path} is no cassette: it is not UTF-8 text; record again") from None
    whole = text[: text.rfind("\n") + 1]
    rest = text[len(whole) :]
    cut_off = rest[: len(BEGINNING)] == BEGINNING[: len(rest)] and not _is_json(rest)
    if rest and not cut_off:  # an entry without the end of its line, as an editor may leave it, or no entry
        whole = text + "\n"
    entries = {}
    for number, line in enumerate(whole.split("\n")[:-1], 1):
        try:
            entry = json.loads(line)
            if not {"key", "request"} < set(entry) or not {"response", "error"} & set(entry):
                raise ValueError(line)
            entries[entry["key"]] = entry
        except (ValueError, KeyError, TypeError):
            raise CassetteMiss(f"{path}, line {number}, is no recorded request; record again") from None
    if mend and whole != text:
        path.write_text(whole, encoding="utf-8")
    return entries


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def normalised(
    model: str,
    messages: list[ModelMessage],
    settings: ModelSettings | None,
    parameters: ModelRequestParameters,
) -> dict[str, Any]:
    """A request as plain JSON, equal for equal requests: no times, ids, timeouts or keys."""
    said: list[dict[str, str]] = []
    for message in messages:
        if isinstance(message, ModelRequest):
            said += [{"role": "user", "text": str(getattr(part, "content", ""))} for part in message.parts]
        else:
            said.append({"role": "assistant", "text": message.text or ""})
    schema = parameters.output_object
    return {
        "model": model,
        "settings": {name: settings[name] for name in SETTINGS if name in settings} if settings else {},  # type: ignore[literal-required]
        "mode": parameters.output_mode,
        "schema": None if schema is None else {"name": schema.name, "schema": schema.json_schema},
        "instructions": [part.content for part in parameters.instruction_parts or ()],
        "messages": said,
    }


def _recorded(response: ModelResponse) -> dict[str, Any]:
    return {
        "text": response.text or "",
        "finish_reason": response.finish_reason,
        "input_tokens": response.usage.input_tokens,
        "output_tokens": response.usage.output_tokens,
    }


def _response(recorded: Mapping[str, Any]) -> ModelResponse:
    return ModelResponse(
        parts=[TextPart(recorded["text"])],
        finish_reason=recorded["finish_reason"],
        usage=RequestUsage(
            input_tokens=recorded["input_tokens"],
            output_tokens=recorded["output_tokens"],
            cost=Decimal(0),  # nobody is paid for an answer that was kept
        ),
    )


def _lines(request: Mapping[str, Any]) -> list[str]:
    texts = [*request["instructions"], *(message["text"] for message in request["messages"])]
    head = [json.dumps(request[name], sort_keys=True) for name in ("model", "settings", "mode", "schema")]
    return head + [line for text in texts for line in text.splitlines()]
