"""How a question is put to a model: the official protocols message for message, and one few-shot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medxpertqa.errors import MedXpertQAError
from medxpertqa.parsing import ParserName, TriggerName
from medxpertqa.questions import Question

Message = dict[str, Any]
"""A chat message in the OpenAI form; an image is the part {"type": "image", "image": file name}, whose bytes
whoever sends it puts in."""

_SYSTEM = "You are a helpful medical assistant."
_FEW_SHOT_SYSTEM = "Follow the given examples and answer the question."
_COT = "Q: {question}\nA: Let's think step by step."
_AO = "Q: {question}\nA: Among A through {last}, the answer is"
_FEW_SHOT = "Q: {question}\nA:"
_SECOND = "Therefore, among A through {last}, the answer is"
_VANILLA: dict[str, Any] = {"temperature": 0.0, "max_tokens": 2048, "seed": 0}
_REASONING: dict[str, Any] = {"max_completion_tokens": 8192, "seed": 0}


@dataclass(frozen=True)
class Protocol:
    """One way of asking; `generate_config` holds the request's parameters in the OpenAI names, as official.

    `parser` and `trigger` say how the official code reads the last reply, `demonstrations` (few-shot only)
    are answered questions that come before the question.
    """

    name: str
    n_turns: int
    system: str
    user: str
    second: str = ""
    parser: ParserName = "official"
    trigger: TriggerName = "cot"
    generate_config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    demonstrations: tuple[Question, ...] = field(default=(), repr=False)

    def first_turn(self, question: Question) -> list[Message]:
        """The messages of the first request: system (if any), demonstrations, then the user's, text first."""
        messages: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        for shown in self.demonstrations:
            messages.append(_user(self.user, shown))
            messages.append({"role": "assistant", "content": f"The answer is {shown.label}."})
        return [*messages, _user(self.user, question)]

    def second_turn(self, question: Question, messages: Sequence[Message], reply: str) -> list[Message]:
        """The messages of the second request: those of the first, the stripped reply, and the question again.

        Raises `MedXpertQAError` if the protocol has one turn.
        """
        if self.n_turns < 2:
            raise MedXpertQAError(f"the protocol {self.name} has one turn")
        asked = {"role": "user", "content": self.second.format(last=question.letters[-1])}
        return [*messages, {"role": "assistant", "content": reply.strip()}, asked]


_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("official-cot", 2, _SYSTEM, _COT, _SECOND, generate_config=_VANILLA),
        Protocol("official-cot-nosystem", 2, "", _COT, _SECOND, generate_config=_REASONING),
        Protocol(
            "official-r1",
            2,
            "",
            _COT,
            "Put your final answer within \\boxed{{}}. " + _SECOND,
            parser="official-r1",
            generate_config=_REASONING,
        ),
        Protocol(
            "official-qvq",
            1,
            _SYSTEM,
            _COT,
            parser="official-qvq",
            generate_config=_VANILLA | {"max_tokens": 8192},
        ),
        Protocol("official-ao", 1, "Please answer only.", _AO, trigger="ao", generate_config=_VANILLA),
        Protocol("few-shot", 1, _FEW_SHOT_SYSTEM, _FEW_SHOT, generate_config=_VANILLA),
    )
}

PROTOCOLS = tuple(_PROTOCOLS)


def get_protocol(name: str, demonstrations: Sequence[Question] = ()) -> Protocol:
    """The protocol of that name; `demonstrations` (the dev split, in the order of ids) belong to few-shot.

    Raises `MedXpertQAError` for an unknown name, and for few-shot without demonstrations or others with.
    """
    if name not in _PROTOCOLS:
        raise MedXpertQAError(f"there is no protocol {name!r}; there are: {', '.join(PROTOCOLS)}")
    protocol = _PROTOCOLS[name]
    if (name == "few-shot") != bool(demonstrations):
        needed = "needs demonstrations" if name == "few-shot" else "takes no demonstrations"
        raise MedXpertQAError(f"the protocol {name} {needed}")
    if not demonstrations:
        return protocol
    return Protocol(
        name,
        protocol.n_turns,
        protocol.system,
        protocol.user,
        generate_config=protocol.generate_config,
        demonstrations=tuple(demonstrations),
    )


def _user(template: str, question: Question) -> Message:
    text = template.format(question=question.to_prompt_string().strip(), last=question.letters[-1])
    images = [{"type": "image", "image": name} for name in question.images]
    return {"role": "user", "content": [{"type": "text", "text": text}, *images]}
