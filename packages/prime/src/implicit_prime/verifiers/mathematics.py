"""Mathematics: math-verify in processes of its own, since it may hang and its own limit is a signal."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal, get_args

from implicit_prime.errors import MissingExtraError, PrimeError
from implicit_prime.verifiers.base import VerifierResult, check_lengths, warn_of_faults
from implicit_prime.verifiers.gsm8k import judge_gsm8k
from implicit_prime.verifiers.workers import WorkerPool

Extract = Literal["boxed", "gsm8k", "any"]


class MathVerifier:
    r"""Right is what is equal to the reference as mathematics: 1 or 0, no partial credit.

    extract    "boxed": the last `\boxed{}` has the answer, a response without one is wrong. "gsm8k": the
               number after the last `####`, compared exactly; needs neither math-verify nor workers. "any":
               whatever math-verify takes for the answer
    timeout_s  what judging one response may take, of wall time. A worker over it is killed, whatever it hangs
               in, the result is "timeout", and the next response has a new worker
    workers    processes; started at the first call (seconds each, math-verify is slow to load) and kept until
               `close` or the end

    References are answers or solutions with one in the same form, as strings or numbers. A reference that
    cannot be read is an "error" for its responses, never a 0 to learn from.

    Raises `PrimeError` for settings that do not fit, or without math-verify.
    """

    def __init__(self, extract: Extract = "boxed", timeout_s: float = 5, workers: int = 2) -> None:
        if extract not in get_args(Extract):
            raise PrimeError(f"extract={extract!r} is unknown; allowed: {', '.join(get_args(Extract))}")
        if not timeout_s > 0 or workers < 1:
            raise PrimeError(f"timeout_s={timeout_s} must be positive and workers={workers} at least 1")
        if extract != "gsm8k" and find_spec("math_verify") is None:
            raise MissingExtraError("mathematics needs math-verify: pip install 'implicit-prime[math]'")
        self.extract = extract
        self._pool = WorkerPool(workers, extract, timeout_s)

    def __call__(self, completions: Sequence[str], references: Sequence[Any]) -> list[VerifierResult]:
        """A result for each, in order; any thread may ask. What is an "error" is warned of.

        Raises `PrimeError` if the lengths differ or a worker does not start.
        """
        check_lengths(completions, references)
        results = self._judge(completions, references)
        warn_of_faults([(n, r) for n, r in enumerate(results) if r.status == "error"], len(results))
        return results

    def _judge(self, completions: Sequence[str], references: Sequence[Any]) -> list[VerifierResult]:
        if self.extract == "gsm8k":
            return [judge_gsm8k(*row) for row in zip(completions, references, strict=True)]
        results: dict[int, VerifierResult] = {}
        rows: dict[int, tuple[str, str]] = {}
        for number, (completion, reference) in enumerate(zip(completions, references, strict=True)):
            if isinstance(reference, str | int | float) and str(reference).strip():
                rows[number] = (completion, str(reference))
            else:
                results[number] = VerifierResult(0.0, "error", f"the reference {reference!r} is no answer")
        results.update(zip(rows, self._pool.judge(list(rows.values())), strict=True))
        return [results[number] for number in range(len(completions))]

    def close(self) -> None:
        """End the workers; another call starts new ones."""
        self._pool.close()
