"""The claims of the paper, written down before any run.

Unless a statement says otherwise: chains of 24 operations modulo 31 (ModChain), a policy fitted to a noisy
teacher, then 50 steps of 32 prompts x 4 responses that passed the filter. PRIME is the paper's form: RLOO,
CE, rewards times beta, the PRM scored before its update. Accuracy is that of responses at temperature 1 to
256 fixed prompts x 4, every 10 steps, in %; differences of it are in points. Pair accuracy is that of the PRM
on the step's own rollouts before it was trained on them. Generator, task and prompts change with the seed.

C1 to C6 test the implementation. Rows whose name begins with R compare PRIME with outcomes alone: the paper's
PRM knows its subject from pre-training, the one here learns the same table from the same samples as the
policy, so that no gain is expected. Their words are computed: "supports", "no difference" or "contradicts".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from implicit_prm.reproduce.claims import PROBLEMS
from tenfold import Above, AllOf, AtLeast, AtMost, Below, Claim, Equals, Estimate, NotTestableError, On
from tenfold.criteria import paired, resolve_bound

PAPER = "Cui et al., arXiv 2502.01456"
RESAMPLES = 10_000


def bootstrap_interval(samples: tuple[float, ...]) -> tuple[float, float]:
    """The 95% interval of the mean over resampled seeds; samples may be infinite."""
    values = np.array(samples)
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), (0.025, 0.975), method="nearest")
    return float(low), float(high)


@dataclass(frozen=True)
class Reported:
    """No pass rule: a word for what the seeds say, each seed of one arm paired with that of the other.

    equal         value where both arms are alike
    more_is_good  whether higher values support the paper
    less          metric of the other arm, taken off seed by seed; None where the metric is a comparison
    """

    equal: float
    more_is_good: bool
    less: str | None = None

    def word(self, metric: Estimate) -> str:
        """ "supports", "contradicts", or "no difference" where the interval contains `equal`."""
        low, high = bootstrap_interval(metric.samples)
        if low <= self.equal <= high:
            return "no difference"
        return "supports" if (low > self.equal) == self.more_is_good else "contradicts"

    def holds(self, metric: Estimate, metrics: Mapping[str, Estimate], paper_value: float | None) -> bool:
        """Never an answer; raises `NotTestableError` with the word."""
        if len(metric.samples) < 2:
            raise NotTestableError("reported, not judged; one seed gives no interval")
        if self.less is not None:
            pairs = paired(metric, resolve_bound(self.less, metrics, None))
            metric = Estimate(tuple(ours - other for ours, other in pairs))
        low, high = bootstrap_interval(metric.samples)
        raise NotTestableError(
            f"reported, not judged: {self.word(metric)} (95% of {len(metric.samples)} seeds resampled: "
            f"{low:.3g} to {high:.3g})"
        )

    def describe(self, metric: str, paper_value: float | None = None) -> str:
        """Return in words that there is no rule."""
        compared = metric if self.less is None else f"{metric} - {self.less}"
        return f"{compared} is reported with a word; {self.equal:g} is no difference"

    def references(self) -> tuple[str, ...]:
        """Return the metric that is taken off, if one is."""
        return () if self.less is None else (self.less,)

    def uses_paper_value(self) -> bool:
        """Return False: the value is its own."""
        return False


MORE_AREA = Reported(0.0, more_is_good=True)
FEWER_ROLLOUTS = Reported(1.0, more_is_good=False)

CLAIMS = (
    Claim(
        id="C1",
        statement="The online PRM learns from outcomes alone: over steps 30 to 50 its pair accuracy is at "
        "least 0.60 and the AUC of its step rewards against the true labels of steps at least 0.75, both "
        "above those of the first ten steps.",
        source=f"{PAPER}, Fig. 5",
        metric="prm_accuracy",
        criterion=AllOf(
            AtLeast(0.60),
            On("prm_step_auc", AtLeast(0.75)),
            On("prm_accuracy_rise", Above(0.0)),
            On("prm_step_auc_rise", Above(0.0)),
        ),
        paper_text="pair accuracy rises from 0.5 to 0.75; no step labels",
    ),
    Claim(
        id="C2",
        statement="A PRM that is not trained online falls behind the moving policy: its pair accuracy falls "
        "by 0.05 or more from its peak, that of the online PRM does not.",
        source=f"{PAPER}, Fig. 5",
        metric="offline_accuracy_fall",
        criterion=AllOf(AtLeast(0.05), On("prm_accuracy_fall", Below(0.05))),
        paper_text="offline falls, online rises",
        scales=("laptop",),
        note="The fall from the best of five means over ten steps to the last of them.",
    ),
    Claim(
        id="C3",
        statement="Every arm improves on the fitted policy by 20 points or more.",
        source=f"{PAPER}, Table 1",
        metric="smallest_gain",
        criterion=AtLeast(20.0),
        paper_text="after 240 steps +12.2 with PRIME, +8.1 with outcomes alone (mean of 7 benchmarks)",
        unit="points",
        note="The smallest of the arms' means over seeds.",
    ),
    Claim(
        id="C4",
        statement="A step of PRIME takes at most 1.6 times the time of one of RLOO with outcomes alone.",
        source=f"{PAPER}, Table 2",
        metric="step_time_ratio",
        criterion=AtMost(1.6),
        paper_value=680.3 / 530.7,
        unit="x",
        note="Medians over steps, on the CPU. The paper's text says 24% more, its table 28%.",
    ),
    Claim(
        id="C5",
        statement="The same seed gives the same numbers, bit for bit, in all that a step measures.",
        source="ours",
        metric="repeat_differences",
        criterion=Equals(0.0),
        unit="numbers that differ",
        note="Ten steps of PRIME once more, in a process of their own; times are left out.",
    ),
    Claim(
        id="C6",
        statement="The filter lowers the variance of the training reward from step to step.",
        source=f"{PAPER}, Fig. 2",
        metric="reward_variance",
        criterion=Below("reward_variance_unfiltered"),
        scales=("laptop",),
        note="Half the mean squared difference of neighbouring steps' mean outcomes of the responses that "
        "the policy is trained on, so that learning itself is no variance.",
    ),
    Claim(
        id="R1",
        statement="PRIME against outcomes alone: area under accuracy over responses drawn, filtered ones "
        "included.",
        source=f"{PAPER}, Fig. 4",
        metric="area_prime_minus_rloo",
        criterion=MORE_AREA,
        paper_text="final training reward +6.9%",
        unit="points",
        note="The difference of mean accuracies up to the number of responses that both have drawn.",
    ),
    Claim(
        id="R2",
        statement="PRIME against outcomes alone: responses drawn until outcomes alone's last accuracy is "
        "reached.",
        source=f"{PAPER}, Fig. 4",
        metric="rollouts_to_target_ratio",
        criterion=FEWER_ROLLOUTS,
        paper_value=0.4,
        unit="x",
        note="Infinite where it is not reached. The paper counts steps: 2.5 times fewer.",
    ),
    Claim(
        id="R3",
        statement="The official code's form, rewards divided by their largest return in the batch, against "
        "outcomes alone: area as in R1.",
        source=f"{PAPER}, official code",
        metric="area_prime-batch-max_minus_rloo",
        criterion=MORE_AREA,
        unit="points",
    ),
    Claim(
        id="R4",
        statement="A PRM that is trained on all responses of the last steps again, balanced, with half the "
        "discount of process rewards, against outcomes alone: area as in R1.",
        source="ours",
        metric="area_prime-replay_minus_rloo",
        criterion=MORE_AREA,
        paper_text="not measured",
        scales=("laptop",),
        unit="points",
    ),
    Claim(
        id="R5",
        statement="A PRM trained by NCA, with half the discount of process rewards, against outcomes alone: "
        "area as in R1.",
        source="ours",
        metric="area_prime-nca_minus_rloo",
        criterion=MORE_AREA,
        paper_text="not measured",
        scales=("laptop",),
        unit="points",
    ),
    Claim(
        id="R6",
        statement="PRIME against outcomes alone by GRPO: area as in R1.",
        source=f"{PAPER}, comparison of algorithms",
        metric="area_prime-grpo_minus_grpo",
        criterion=MORE_AREA,
        paper_text="36.1 to 37.8",
        scales=("laptop",),
        unit="points",
    ),
    Claim(
        id="R7",
        statement="PRIME against outcomes alone by REINFORCE: area as in R1.",
        source=f"{PAPER}, comparison of algorithms",
        metric="area_prime-reinforce_minus_reinforce",
        criterion=MORE_AREA,
        paper_text="36.0 to 37.8",
        scales=("laptop",),
        unit="points",
    ),
    Claim(
        id="R8",
        statement="A PRM and a reference that have seen more than the policy, right single steps before they "
        "were fitted as it was, against outcomes alone: area as in R1.",
        source="ours",
        metric="area_prime-pretrained_minus_rloo",
        criterion=MORE_AREA,
        paper_text="not measured: its PRM begins as the policy",
        scales=("laptop",),
        unit="points",
    ),
    Claim(
        id="R9",
        statement="Chains of 32 operations, from a policy that is right less often: PRIME against outcomes "
        "alone, area as in R1.",
        source="ours",
        metric="area_prime_minus_rloo_on_longer",
        criterion=MORE_AREA,
        paper_text="not measured",
        scales=("laptop",),
        unit="points",
    ),
    Claim(
        id="R10",
        statement="GSM8K's own calculations, right where their last number is GSM8K's: PRIME against "
        "outcomes alone, area as in R1.",
        source="ours",
        metric="area_prime_minus_rloo_on_gsm8k",
        criterion=MORE_AREA,
        paper_text="not measured",
        scales=("laptop",),
        needs=(PROBLEMS,),
        unit="points",
        note="Judged on 256 programs of GSM8K's test split with their own numbers.",
    ),
    Claim(
        id="R11",
        statement="PRIME against outcomes alone: accuracy after the last step, as gain over the fitted "
        "policy.",
        source=f"{PAPER}, Table 1",
        metric="gain_prime",
        criterion=Reported(0.0, more_is_good=True, less="gain_rloo"),
        paper_text="+12.2 with PRIME, +8.1 with outcomes alone after 240 steps (mean of 7 benchmarks)",
        unit="points",
        note="The word is about the difference. The row was added after the runs, from what they measured.",
    ),
)
