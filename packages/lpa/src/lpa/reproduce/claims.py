"""The claims of the paper, and our control, written down before any run.

Rules C1 to C5 are judged on the mean over seeds unless a rule says *every seed*. Every arm trains at its own
best learning rate of the same sweep, on the same blocks of text in the same order. Ratios are of test
perplexity, paired by seed: `ratio_lpa_to_dense` = PPL(lpa) / PPL(dense). A ratio with `late_` is of the mean
validation loss over the second half of training, because small models leave an early plateau at different
moments and one fixed step mostly measures that moment.
"""

from lpa.paper_reference import PAPER_NUMBERS
from tenfold import AllOf, AtLeast, AtMost, Below, CIExcludes, Claim, On, Within

PAPER = "Lv et al., EMNLP 2024, arXiv 2411.02063"
PERPLEXITY_GAIN, TIME_SAVED = (
    PAPER_NUMBERS[name].value / 100 for name in ("perplexity_gain", "training_time_saved")
)

CLAIMS = (
    Claim(
        id="C1a",
        statement="Low rank belongs in the attention, not in the feed-forward layers: LPA beats the model "
        "whose feed-forward layers are low-rank, at the same number of removed parameters.",
        source=f"{PAPER}, abstract",
        metric="ratio_lpa_to_low_ffn",
        criterion=AllOf(
            Below(1.0, every_seed=True), On("late_ratio_lpa_to_low_ffn", Below(1.0, every_seed=True))
        ),
        paper_text="LPA better",
        unit="x PPL",
    ),
    Claim(
        id="C1b",
        statement="Low rank in every layer costs quality: LPA beats the model that is low-rank everywhere.",
        source=f"{PAPER}, abstract",
        metric="ratio_lpa_to_low_all",
        criterion=AllOf(
            Below(1.0, every_seed=True), On("late_ratio_lpa_to_low_all", Below(1.0, every_seed=True))
        ),
        paper_text="LPA better",
        unit="x PPL",
        scales=("laptop", "paper"),
    ),
    Claim(
        id="C2a",
        statement="LPA loses nothing: its perplexity is at most 1.02 times the dense model's with at least "
        "10% fewer parameters outside the embeddings.",
        source=f"{PAPER}, abstract",
        metric="ratio_lpa_to_dense",
        criterion=AllOf(
            AtMost(1.02),
            On("late_ratio_lpa_to_dense", AtMost(1.02)),
            On("parameters_removed", AtLeast(0.10)),
        ),
        paper_text="no loss",
        unit="x PPL",
    ),
    Claim(
        id="C2b",
        statement="LPA is better than the dense model (the paper: by about 5% in test perplexity).",
        source=f"{PAPER}, abstract",
        metric="ratio_lpa_to_dense",
        criterion=CIExcludes(1.0, side="below"),
        paper_value=1 - PERPLEXITY_GAIN,
        unit="x PPL",
    ),
    Claim(
        id="C3",
        statement="At the dense model's parameter count (what LPA saves, spent on wider feed-forward layers) "
        "LPA is no worse.",
        source=f"{PAPER} (comparison at equal size; its details were not seen)",
        metric="ratio_lpa_widened_to_dense",
        criterion=AtMost(1.0),
        paper_text="better",
        unit="x PPL",
        scales=("laptop", "paper"),
    ),
    Claim(
        id="C4a",
        statement="The time of a training step follows the FLOPs: over the stack of blocks, measured time "
        "ratio minus predicted FLOP ratio is within 5 percentage points at hidden size 768.",
        source="our check of the paper's cost model",
        metric="step_time_minus_prediction",
        criterion=Within(0.0, abs=0.05),
        paper_text="0",
        unit="",
    ),
    Claim(
        id="C4b",
        statement="Training the 130M model (setting 2) takes less time: up to 12.4% less.",
        source=f"{PAPER}, abstract",
        metric="training_time_saved",
        criterion=AtLeast(ratio=1.0),
        paper_value=TIME_SAVED,
        scales=("laptop", "paper"),
        unit="of the time",
    ),
    Claim(
        id="C5a",
        statement="The gain is not just a smaller start: LPA is no worse than a dense model whose q, k, v, o "
        "weights start 1/sqrt(3) smaller, as LPA's products do.",
        source="our control; no published comparison has it",
        metric="ratio_lpa_to_dense_scaled",
        criterion=AtMost(1.0),
        paper_text="not run",
        unit="x PPL",
    ),
    Claim(
        id="C5b",
        statement="Started with the dense model's variance (init 'matched'), LPA is still no worse than "
        "dense.",
        source="our control; no published comparison has it",
        metric="ratio_lpa_matched_to_dense",
        criterion=AtMost(1.0),
        paper_text="not run",
        unit="x PPL",
    ),
    Claim(
        id="C5c",
        statement="Most of the gain is the low rank itself: a smaller start alone gives dense less than half "
        "of what LPA gains over dense.",
        source="our control; no published comparison has it",
        metric="initialisation_share",
        criterion=Below(0.5),
        paper_text="not run",
        unit="of the gain",
        note="(PPL dense - PPL dense-scaled) / (PPL dense - PPL LPA), of means; above 1 the smaller start "
        "alone gives more than LPA does. Not tested where LPA gains nothing.",
    ),
    Claim(
        id="C6",
        statement="No loss off-domain either: on 19th-century books, never trained on, LPA's perplexity is "
        "at most 1.02 times the dense model's.",
        source="our addition, on outside data",
        metric="books_ratio_lpa_to_dense",
        criterion=AtMost(1.02),
        paper_text="not run",
        unit="x PPL",
        needs=("books",),
    ),
)
