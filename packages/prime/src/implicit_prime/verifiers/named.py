"""Verifiers by name, as files of settings and the command have them; several share the rows by ability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from implicit_prime.errors import PrimeError
from implicit_prime.sandbox import BubblewrapSandbox, RemoteSandbox, RlimitSandbox
from implicit_prime.verifiers.base import Verifier, VerifierResult, check_lengths, verify
from implicit_prime.verifiers.code import CodeVerifier
from implicit_prime.verifiers.exact import ExactVerifier
from implicit_prime.verifiers.mathematics import MathVerifier


def _code(
    sandbox: str = "bubblewrap", cpu_s: float = 5, workers: int | None = None, **options: Any
) -> CodeVerifier:
    """A `CodeVerifier`; `options` are those of its sandbox."""
    kinds: dict[str, Callable[..., Any]] = {
        "bubblewrap": BubblewrapSandbox,
        "remote": RemoteSandbox,
        "rlimits": RlimitSandbox,
    }
    if sandbox not in kinds:
        raise PrimeError(f"sandbox is {sandbox!r}; it must be one of {', '.join(kinds)}")
    return CodeVerifier(kinds[sandbox](**options), cpu_s, workers=workers)


_KINDS: dict[str, Callable[..., Verifier]] = {"math": MathVerifier, "code": _code, "exact": ExactVerifier}


def check_verifiers(settings: Mapping[str, Any]) -> None:
    """Raise `PrimeError` for verifiers that do not exist, before anything is loaded."""
    if not settings:
        raise PrimeError(f"no verifier is named; write one of {', '.join(f'[verifier.{k}]' for k in _KINDS)}")
    for name, options in settings.items():
        if name not in _KINDS:
            raise PrimeError(f"there is no verifier {name!r}; there are {', '.join(_KINDS)}")
        if not isinstance(options, Mapping):
            raise PrimeError(f"verifier.{name} is {options!r}; it must be a table, [verifier.{name}]")


def named_verifier(settings: Mapping[str, Mapping[str, Any]]) -> Verifier:
    """The verifier of {"math": its options}; of several an `AbilityVerifier`.

    "math" has the options of `MathVerifier`. "code" has those of `CodeVerifier`, whose sandbox is
    "bubblewrap", "remote" or "rlimits", and the sandbox's own. "exact" has none.
    Raises `PrimeError` for names and options that do not exist, and as the verifiers do.
    """
    check_verifiers(settings)
    made: dict[str, Verifier] = {}
    for name, options in settings.items():
        try:
            made[name] = _KINDS[name](**options)
        except TypeError as error:
            raise PrimeError(f"[verifier.{name}] does not fit: {error}") from error
    return next(iter(made.values())) if len(made) == 1 else AbilityVerifier(made)


class AbilityVerifier:
    """Asks for each response the verifier of its task's ability; references are (ability, reference).

    Rows of files have the two apart, as "ability" and "answer".
    """

    def __init__(self, verifiers: Mapping[str, Verifier]) -> None:
        self.verifiers = dict(verifiers)

    def __call__(
        self, completions: Sequence[str], references: Sequence[tuple[str, Any]]
    ) -> list[VerifierResult]:
        """A result for each, in order. Raises `PrimeError` for an ability without a verifier."""
        check_lengths(completions, references)
        results: dict[int, VerifierResult] = {}
        for ability in {ability for ability, _ in references}:
            if ability not in self.verifiers:
                raise PrimeError(f"no verifier for {ability!r}; there are {', '.join(self.verifiers)}")
            rows = [row for row, (name, _) in enumerate(references) if name == ability]
            found = verify(
                self.verifiers[ability],
                [completions[row] for row in rows],
                [references[row][1] for row in rows],
            )
            results.update(zip(rows, found, strict=True))
        return [results[row] for row in range(len(completions))]
