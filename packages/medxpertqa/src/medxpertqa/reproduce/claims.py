"""The claims of the paper, written down before any run."""

from __future__ import annotations

from tenfold import AtMost, Claim, Within

PAPER = "Polyak 1964, section 3"

CLAIMS = (
    Claim(
        id="C1",
        statement="On a quadratic of condition number 100 the heavy ball needs at most a fifth of the steps.",
        source=PAPER,
        metric="steps_heavy_ball",
        criterion=AtMost("steps_gradient_descent", ratio=0.2, every_seed=True),
        paper_text="a tenth, as κ grows √κ times fewer",
        unit="steps",
    ),
    Claim(
        id="C2",
        statement="The heavy ball shrinks the error by (√κ-1)/(√κ+1) a step.",
        source=PAPER,
        metric="contraction_heavy_ball",
        criterion=Within(rel=0.02),
        paper_value=9 / 11,
    ),
)
