"""The claims of the paper, written down before any run.

L is the training length. A *growth* is that of the loss (log-perplexity) from L to 16 L, in nats; metrics
that compare two arms are paired by seed. `valid` is text of the kind trained on, `heldout` a library that no
model has read, `books` prose. Losses are the mean over all positions of windows that do not overlap, as in
the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenfold import Above, AllOf, AtLeast, AtMost, Below, Claim, Criterion, Estimate, NotTestableError, On

PAPER = "Hua et al., ICML 2025, arXiv 2412.17739"


@dataclass(frozen=True)
class IfLearned:
    """`criterion` holds, and the question is only asked where every one of `skills` is at least `least`."""

    criterion: Criterion
    skills: tuple[str, ...]
    least: float

    def holds(self, metric: Estimate, metrics: Mapping[str, Estimate], paper_value: float | None) -> bool:
        """Ask the criterion; raises `NotTestableError` where a skill was not learned."""
        for skill in self.skills:
            if not metrics[skill].mean >= self.least:
                found = f"{skill} = {metrics[skill].mean:.2f}, less than {self.least:g}"
                raise NotTestableError(f"void: not learned ({found})")
        return self.criterion.holds(metric, metrics, paper_value)

    def describe(self, metric: str, paper_value: float | None = None) -> str:
        """Return the criterion, then when it is asked."""
        skills = " and ".join(self.skills)
        return f"{self.criterion.describe(metric, paper_value)}, asked if {skills} ≥ {self.least:g}"

    def references(self) -> tuple[str, ...]:
        """Return the skills and what the criterion compares with."""
        return (*self.skills, *self.criterion.references())

    def uses_paper_value(self) -> bool:
        """Say whether the criterion does."""
        return self.criterion.uses_paper_value()


CLAIMS = (
    Claim(
        id="A",
        statement="Beyond the training length FoPE degrades less than RoPE: from L to 16 L its loss grows at "
        "most 0.7 times as much, on text of the kind trained on and on a held-out library.",
        source=f"{PAPER}, Fig. 1",
        metric="growth_ratio_valid",
        criterion=AllOf(AtMost(0.7), On("growth_ratio_heldout", AtMost(0.7))),
        paper_text="far flatter (drawn, not printed)",
        unit="x RoPE's growth",
    ),
    Claim(
        id="A-books",
        statement="The same on books, far from what was trained on.",
        source=f"{PAPER}, Fig. 5 (out of distribution)",
        metric="growth_ratio_books",
        criterion=AtMost(0.7),
        paper_text="same order (drawn)",
        unit="x RoPE's growth",
        needs=("books",),
    ),
    Claim(
        id="B",
        statement="At the training length it costs nothing: FoPE's loss is at most 0.02 nats above RoPE's.",
        source=f"{PAPER}, Fig. 1 and Tables 4-6",
        metric="fope_minus_rope_1L",
        criterion=AtMost(0.02),
        paper_text="no cost",
        unit="nats",
    ),
    Claim(
        id="C",
        statement="The Fourier series adds to clipping: FoPE is no worse than clipping alone (CF) at 4 L and "
        "at 16 L.",
        source=f"{PAPER}, Fig. 6a",
        metric="fope_minus_cf_16L",
        criterion=AllOf(AtMost(0.0), On("fope_minus_cf_4L", AtMost(0.0))),
        paper_text="FS and CF each help, both together most",
        unit="nats",
    ),
    Claim(
        id="D",
        statement="Passkey at 4 L: FoPE finds at least 20 points more of the keys than RoPE, where both find "
        "90% at L.",
        source=f"{PAPER}, Fig. 1",
        metric="passkey_fope_minus_rope_4L",
        criterion=IfLearned(AtLeast(0.2), ("passkey_rope_1L", "passkey_fope_1L"), least=0.9),
        paper_text="RoPE 0 from 2 L on, FoPE stable",
        unit="of the keys",
    ),
    Claim(
        id="E1",
        statement="The Fourier series alone (FS, nothing clipped) already helps: at 16 L its loss is below "
        "RoPE's.",
        source=f"{PAPER}, Fig. 6a",
        metric="fs_minus_rope_16L",
        criterion=Below(0.0),
        paper_text="FS helps most beyond L",
        unit="nats",
    ),
    Claim(
        id="E2",
        statement="Out of distribution FoPE holds up better: at 16 L its perplexity on the held-out library "
        "over that on text of the kind trained on is below RoPE's.",
        source=f"{PAPER}, Fig. 6a (PPL ratio)",
        metric="ppl_ratio_fope_to_rope_16L",
        criterion=Below(1.0),
        paper_text="lower",
        unit="x RoPE's ratio",
    ),
    Claim(
        id="F1",
        statement="A trained model is converted for free: SmolLM2-135M as FoPE (defaults, no fine-tuning) "
        "loses at most 0.02 nats on documentation.",
        source="our check; the paper converts SmolLM-1.7B and fine-tunes",
        metric="smollm2_fope_cost_docs",
        criterion=AtMost(0.02),
        paper_text="not reported",
        unit="nats",
        needs=("smollm2-135m",),
    ),
    Claim(
        id="F1-books",
        statement="The same on a book.",
        source="our check",
        metric="smollm2_fope_cost_books",
        criterion=AtMost(0.02),
        paper_text="not reported",
        unit="nats",
        needs=("smollm2-135m", "books"),
    ),
    Claim(
        id="F2",
        statement="The padding of the released code (sin = 1 on clipped channels, weights untouched) breaks "
        "a trained model: SmolLM2-135M loses more than 1 nat.",
        source="our check of the released code's convention",
        metric="smollm2_raw_phase_cost_docs",
        criterion=Above(1.0),
        paper_text="not reported",
        unit="nats",
        needs=("smollm2-135m",),
    ),
)
