"""The claims of the paper and the checks of this package, written down before any run.

E1 to E8 are the parts of the experiment; P claims say whether an open model, run by a user, agrees with the
number that the paper printed for it. Accuracies are in %, of all questions: no answer is a wrong one. The
intervals of E4 and P are Wilson's, at 95%.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenfold import Above, AllOf, AtLeast, AtMost, Claim, Equals, NoRule, On
from tenfold.criteria import Criterion

PAPER = "Zuo et al., ICML 2025, arXiv 2501.18362"
MODEL = "smollm2-135m"
ATTRIBUTES = "medxpertqa-attributes"
SAMPLED = "medxpertqa-questions"
OFFICIAL = "medxpertqa-official-parsers"
BANKS = ("medqa", "medmcqa", "mmlu-medical")
LONG = ("laptop",)
USERS = ("paper",)


NUMBERS = (
    Claim(
        id="E1",
        statement="Sizes, question types, medical tasks (to two decimals) and numbers of images are those "
        "of the paper, exactly.",
        source=f"{PAPER}, Tables 2 and 3, Figures 2 and 3",
        metric="data_differences",
        criterion=AllOf(Equals(0.0), On("data_entries", Equals(17.0))),
        needs=(ATTRIBUTES,),
        unit="entries",
    ),
    Claim(
        id="E1-length",
        statement="The average length is the number of o200k_base tokens of the question with its options: "
        "149.35 for MM, 53.84 for MedMCQA, 100.07 for MMLU, exactly, to two decimals.",
        source=f"{PAPER}, Tables 2 and 3; what is counted is ours",
        metric="length_mm",
        criterion=AllOf(
            Equals(149.35), On("length_medmcqa", Equals(53.84)), On("length_mmlu", Equals(100.07))
        ),
        paper_value=149.35,
        needs=(SAMPLED, *BANKS),
        modules=("bpe_openai",),
        unit="tokens",
    ),
    Claim(
        id="E1-misfits",
        statement="What does not fit is shown as that: MedQA has an average length of 206.48 and not of "
        "215.46, Skeletal 19.01% and not 19.8%, and there are 2,852 test images and not 2,839.",
        source=f"{PAPER}, Table 3, Figure 3 and section 3.1",
        metric="length_medqa",
        criterion=AllOf(
            Equals(206.48), On("share_skeletal", Equals(19.01)), On("test_images", Equals(2852.0))
        ),
        paper_value=215.46,
        needs=(ATTRIBUTES, *BANKS),
        modules=("bpe_openai",),
        unit="tokens",
        note="The paper probably counted another edition of MedQA; its figure leaves Lymphatic out.",
    ),
    Claim(
        id="E2",
        statement="The rows of 17 models in Tables 4 and 5 have exactly one solution in whole right answers; "
        "that of LLaMA-3-70B-UltraMedical has none, and the one cell that repairs it is 22.03 for Reasoning.",
        source=f"{PAPER}, Tables 4 and 5; the check is ours",
        metric="unique_rows",
        criterion=AllOf(
            Equals(17.0), On("impossible_rows", Equals(1.0)), On("ultramedical_repair", Equals(22.03))
        ),
        paper_text="20.03 printed for UltraMedical",
        unit="rows",
    ),
    Claim(
        id="E2-claims",
        statement="What the paper says of its numbers, tested on the counts behind them: 7 statements are "
        "supported, 3 not shown, 4 contradicted, as listed before the run, with every number of the list.",
        source=f"{PAPER}, sections 4 and 5; the tests are ours",
        metric="claim_table_differences",
        criterion=AllOf(Equals(0.0), On("claim_table_entries", Equals(14.0))),
        paper_text="said in words",
        unit="entries",
        note="Understanding easier than Reasoning, pooled, for seven models and against it in three cells; "
        "inference-time scaling for three; Qwen2.5-32B at chance. Tests are unpaired, so conservative.",
    ),
)

HARNESS = (
    Claim(
        id="E3",
        statement="Messages and the official parsers are the official ones: 100% on a corpus of made-up "
        "replies, whose answers were recorded once from the official functions.",
        source="the official repository, commit f21247d",
        metric="parity_differences",
        criterion=AllOf(Equals(0.0), On("parity_entries", AtLeast(1000.0))),
        unit="entries",
    ),
    Claim(
        id="E3-replies",
        statement="The official parser is the official one on every recorded reply of E4.",
        source="the official repository, commit f21247d",
        metric="parity_reply_differences",
        criterion=AllOf(Equals(0.0), On("parity_replies", AtLeast("replies_expected"))),
        needs=(MODEL, SAMPLED, OFFICIAL),
        unit="replies",
    ),
    Claim(
        id="E4",
        statement="A real model through an OpenAI-compatible server: the runs finish with no errors, and "
        "every reply is stored.",
        source="ours",
        metric="run_errors",
        criterion=AllOf(Equals(0.0), On("replies_stored", Equals("replies_expected"))),
        needs=(MODEL, SAMPLED),
        unit="questions",
    ),
    Claim(
        id="E4-chance",
        statement="SmolLM2-135M is at chance on Text, in the official protocol: Wilson's interval contains "
        "10%, read by the official parser and by the robust one.",
        source="ours",
        metric="text_cot_low",
        criterion=AllOf(AtMost(10.0), On("text_cot_high", AtLeast(10.0))),
        needs=(MODEL, SAMPLED),
        unit="%",
        note="The largest lower and the smallest upper end of the two parsers. An interval that misses "
        "chance is reported as found, with the letters' chi2 and the accuracy under permutation.",
    ),
    Claim(
        id="E4-chance-ao",
        statement="The same with the answer-only protocol.",
        source="ours",
        metric="text_ao_low",
        criterion=AllOf(AtMost(10.0), On("text_ao_high", AtLeast(10.0))),
        needs=(MODEL, SAMPLED),
        unit="%",
    ),
    Claim(
        id="E4-blind",
        statement="It is at chance on MM without the images: Wilson's interval contains 20%, read by either "
        "parser.",
        source="ours",
        metric="mm_blind_low",
        criterion=AllOf(AtMost(20.0), On("mm_blind_high", AtLeast(20.0))),
        scales=LONG,
        needs=(MODEL, SAMPLED),
        unit="%",
    ),
    Claim(
        id="E4-extraction",
        statement="In how many replies of the official protocol the official parser finds a letter.",
        source="ours",
        metric="text_cot_extracted",
        criterion=NoRule("there is no pass rule, because it is the model's doing"),
        needs=(MODEL, SAMPLED),
        unit="%",
    ),
    Claim(
        id="E4-position",
        statement="How even the letters predicted in the official protocol are: p of chi2 against uniform.",
        source="ours",
        metric="text_cot_position_p",
        criterion=NoRule("there is no pass rule, because small models have favourite letters"),
        needs=(MODEL, SAMPLED),
    ),
    Claim(
        id="E4-permuted",
        statement="Accuracy over four cyclic orders of the options of 60 questions, answer-only protocol.",
        source="ours",
        metric="permuted_accuracy",
        criterion=NoRule("there is no pass rule, because it is shown to explain E4"),
        scales=LONG,
        needs=(MODEL, SAMPLED),
        unit="%",
    ),
    Claim(
        id="E5",
        statement="Killed at half and resumed, a run has the same items, none twice, and loses no more than "
        "the log's buffer and what was in flight.",
        source="ours",
        metric="resume_lost",
        criterion=AllOf(
            AtMost("resume_allowed"),
            On("resume_missing", Equals(0.0)),
            On("resume_twice", Equals(0.0)),
            On("resume_kept", AtLeast(1.0)),
        ),
        needs=(MODEL, SAMPLED),
        unit="questions",
        note="SIGKILL; lost is what the model had answered and was asked again.",
    ),
    Claim(
        id="E6",
        statement="The recorded replies get the identical letter from our scorer, the inspect scorer and the "
        "lm-eval task's process_results.",
        source="ours",
        metric="scorer_differences",
        criterion=AllOf(Equals(0.0), On("scored_replies", AtLeast("replies_expected"))),
        needs=(MODEL, SAMPLED),
        unit="replies",
    ),
)

CONSTRUCTION = (
    Claim(
        id="E7",
        statement="Among 6,545 real questions the edit filter finds exactly 2, 63 and 92 pairs at 0.8 in "
        "MedQA, MedMCQA and MMLU; 78 of the last are identical.",
        source="ours",
        metric="pairs_medqa",
        criterion=AllOf(
            Equals(2.0),
            On("pairs_medmcqa", Equals(63.0)),
            On("pairs_mmlu", Equals(92.0)),
            On("identical_mmlu", Equals(78.0)),
            On("bank_questions", Equals(6545.0)),
        ),
        needs=BANKS,
        unit="pairs",
        note="MMLU repeats questions between clinical knowledge and college medicine. Said after the run: by "
        "the definition MedMCQA has 64, one of them at exactly 0.8, which rapidfuzz's cutoff of 0.8 loses; "
        "the 63 that was fixed before is one too few, and stays.",
    ),
    Claim(
        id="E7-copies",
        statement="Of 40 planted copies (one sentence moved, numbers kept) the edit and the semantic filter "
        "find at least 95%.",
        source="ours",
        metric="planted_recall",
        criterion=AllOf(AtLeast(0.95), On("planted_copies", Equals(40.0))),
        needs=BANKS,
        unit="of copies",
    ),
    Claim(
        id="E7-ledger",
        statement="A re-run of the pipeline from its ledger, with other thresholds, makes no model call.",
        source="ours",
        metric="ledger_rerun_calls",
        criterion=AllOf(Equals(0.0), On("ledger_first_calls", AtLeast(1.0))),
        needs=(MODEL, *BANKS),
        unit="calls",
    ),
    Claim(
        id="E7-table",
        statement="The pipeline gives a table in the form of Table 1: from each stage to the next the count "
        "falls by what the ledger says was removed.",
        source=f"{PAPER}, Table 1",
        metric="funnel_differences",
        criterion=AllOf(Equals(0.0), On("funnel_stages", AtLeast(5.0))),
        paper_text="37,543 to 4,460 in six steps",
        needs=(MODEL, *BANKS),
        unit="stages",
        note="Answer distributions for the human filter are synthetic; retention is no claim.",
    ),
    Claim(
        id="E8-perplexity",
        statement="The leakage audit tells 40 MedQA questions that a model was tuned on from 40 others: the "
        "AUC of perplexity is 0.95 or more, and rewriting lowers it (95% interval, paired bootstrap).",
        source=f"{PAPER}, Table 6, for the direction",
        metric="leak_auc_perplexity",
        criterion=AllOf(AtLeast(0.95), On("leak_auc_perplexity_fall_low", Above(0.0))),
        paper_text="less sign of leakage after rewriting",
        scales=LONG,
        needs=(MODEL, BANKS[0]),
    ),
    Claim(
        id="E8-ngrams",
        statement="The same for 5-gram accuracy: AUC 0.9 or more, and rewriting lowers it.",
        source=f"{PAPER}, Table 6, for the direction",
        metric="leak_auc_ngrams",
        criterion=AllOf(AtLeast(0.9), On("leak_auc_ngrams_fall_low", Above(0.0))),
        paper_text="less sign of leakage after rewriting",
        scales=LONG,
        needs=(MODEL, BANKS[0]),
    ),
)


@dataclass(frozen=True)
class Published:
    """A model of Tables 4 and 5 with open weights: Wilson's interval of its counts, in %."""

    key: str
    name: str
    text: tuple[float, float, float]
    mm: tuple[float, float, float] | None = None


PUBLISHED = (
    Published("qwen25_32b", "Qwen2.5-32B", (15.06, 13.70, 16.53)),
    Published("qwen25_72b", "Qwen2.5-72B", (18.90, 17.40, 20.50)),
    Published("llama33_70b", "LLaMA-3.3-70B", (24.49, 22.83, 26.23)),
    Published("qwq_32b", "QwQ-32B-Preview", (18.00, 16.53, 19.57)),
    Published("deepseek_v3", "DeepSeek-V3", (24.16, 22.51, 25.90)),
    Published("deepseek_r1", "DeepSeek-R1", (37.76, 35.86, 39.69)),
    Published("qwen2_vl_72b", "Qwen2-VL-72B", (16.94, 15.51, 18.48), (28.35, 26.42, 30.37)),
    Published("qwen25_vl_72b", "Qwen2.5-VL-72B", (17.96, 16.49, 19.53), (29.95, 27.98, 31.99)),
    Published("qvq_72b", "QVQ-72B-Preview", (21.76, 20.17, 23.43), (33.55, 31.51, 35.65)),
)
"""Text (2,450 questions) and MM (2,000): the printed accuracy, and its interval's ends."""


def _agrees(model: Published) -> Claim:
    _, low, high = model.text
    rules: list[Criterion] = [AtLeast(low), AtMost(high)]
    if model.mm is not None:
        rules += [On(f"mm_{model.key}", AtLeast(model.mm[1])), On(f"mm_{model.key}", AtMost(model.mm[2]))]
    also = "" if model.mm is None else f", and {model.mm[0]:.2f}% on MM"
    return Claim(
        id=f"P-{model.key}",
        statement=f"{model.name} has {model.text[0]:.2f}% on Text{also}: the run lies inside the interval of "
        "the printed number.",
        source=f"{PAPER}, {'Table 5' if model.mm is None else 'Table 4'}",
        metric=f"text_{model.key}",
        criterion=AllOf(*rules),
        paper_value=model.text[0],
        scales=USERS,
        unit="%",
    )


MODELS = (
    Claim(
        id="P-length",
        statement="The average length of Text is 257.37 tokens.",
        source=f"{PAPER}, Table 2",
        metric="length_text",
        criterion=Equals(257.37),
        paper_value=257.37,
        scales=USERS,
        modules=("bpe_openai",),
        unit="tokens",
        note="Needs the full Text test set, which the hub alone has.",
    ),
    *(_agrees(model) for model in PUBLISHED),
)

CLAIMS = (*NUMBERS, *HARNESS, *CONSTRUCTION, *MODELS)
