"""Whether a run gives the accuracy that the paper's tables have for the same model and questions."""

from __future__ import annotations

from dataclasses import dataclass

from medxpertqa.stats import Difference, Interval, two_proportion, wilson


@dataclass(frozen=True)
class Agreement:
    """The published share, its interval, the run's minus it, and whether both can be one (p >= .05)."""

    published: float
    ci: Interval
    difference: Difference
    agrees: bool

    @property
    def text(self) -> str:
        """One line for people."""
        low, high = self.ci
        return (
            f"Published: {100 * self.published:.2f} [{100 * low:.2f}, {100 * high:.2f}] %. This run: "
            f"{100 * self.difference.difference:+.2f} points, p = {self.difference.p_value:.3f}: "
            f"{'agree' if self.agrees else 'differ'}."
        )


def agreement(n_correct: int, n: int, published_correct: int, published_n: int) -> Agreement:
    """Compare a run's right answers with published ones: chi-squared of two shares, as if independent.

    The questions are the same and who was right on which is not public, so the test is conservative.
    """
    difference = two_proportion(n_correct, n, published_correct, published_n)
    interval = wilson(published_correct, published_n)
    return Agreement(published_correct / published_n, interval, difference, difference.p_value >= 0.05)
