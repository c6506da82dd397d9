"""The same answer, exactly: for tasks whose answers have one form, such as `implicit_prm.tasks`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from implicit_prime.verifiers.base import VerifierResult, check_lengths


class ExactVerifier:
    """Right is what equals the reference.

    extract  from a response to its answer, None where it has none: `ModChain().answer`, say. By default the
             whole response without the spaces around it
    """

    def __init__(self, extract: Callable[[str], Hashable | None] = str.strip) -> None:
        self.extract = extract

    def __call__(self, completions: Sequence[str], references: Sequence[Any]) -> list[VerifierResult]:
        """A result for each; a response without an answer is "unparsed", a reference that is None "error".

        Raises `PrimeError` if the lengths differ.
        """
        check_lengths(completions, references)
        return [self._judge(*row) for row in zip(completions, references, strict=True)]

    def _judge(self, completion: str, reference: Any) -> VerifierResult:
        if reference is None:
            return VerifierResult(0.0, "error", "the reference is None")
        answer = self.extract(completion)
        if answer is None or answer == "":
            return VerifierResult(0.0, "unparsed", "no answer")
        return VerifierResult(float(answer == reference))
