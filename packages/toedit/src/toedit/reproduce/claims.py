"""The claims of the paper, written down before any run.

T1 is about the paper's linear model, T2 and T3 about what a prior says of human text, T4 and T5 about tiny
language models trained on human and synthetic text, T6 about n-grams, T7 about editing the training text.
Perplexities (PPL) are of held-back human text, means over seeds.
"""

from __future__ import annotations

from tenfold import Above, AllOf, AtMost, Below, Claim, NoRule, On

PAPER = "Zhu et al., ICML 2025, arXiv 2412.14689"
PRIOR = "smollm2-135m"
OUTSIDE = ("books", "gsm8k", "self-instruct-seeds", "wikitext2")
"""Named data sets that add corpora to T2; GSM8K and WikiText-2 are those of T3."""

U_SHAPE = "The probabilities of tokens are U-shaped: of ten bins the first is the largest, and the last is "
U_SHAPE += "larger than the mean of bins 7 to 9"
DECAY = "From generation to generation of edits fewer tokens are candidates"
MIXING = (
    "More synthetic text, of an equal token budget, is worse: PPL rises from 25% to 100%, by more than a "
)
MIXING += "fifth from 0% to 100%, while the training loss falls"

CLAIMS = (
    Claim(
        id="T1",
        statement="Our theory is exact: when all labels are replaced the simulated error of generation n is "
        "nσ²d/(T-d-1), and with disjoint, fixed and shrinking masks that of the exact recursion, each within "
        "3 standard errors.",
        source=f"{PAPER}, section 4 and App. B; the recursion is ours",
        metric="replacement_largest_z",
        criterion=AllOf(AtMost(3.0), On("recursion_largest_z", AtMost(3.0))),
        paper_text="nσ²d/(T-d-1)",
        unit="standard errors",
    ),
    Claim(
        id="T1-constant",
        statement="With disjoint edits the error stays at or below 2σ²d/(T-d-1) (Theorem 2).",
        source=f"{PAPER}, Theorem 2",
        metric="disjoint_error",
        criterion=AtMost(None),
        paper_value=2.0,
        unit="σ²d/(T-d-1)",
        note="Not true of the process that the paper defines: its proof takes the projection of least "
        "squares for the identity. Here ten disjoint tenths, exactly; for T much larger than d the bound is "
        "2e - 1 = 4.44.",
    ),
    Claim(
        id="T1-bounded",
        statement="When edits shrink as the paper measured (12.5%, times 0.941 a generation), the error is "
        "bounded: from generation 100 to 200 it grows by less than 1%.",
        source=f"{PAPER}, section 4.2 and Table 15",
        metric="shrinking_growth",
        criterion=Below(0.01),
        paper_text="bounded",
        note="A share that does not shrink is not bounded: then the error grows for ever, more slowly than "
        "with full replacement (see the figure).",
    ),
    Claim(
        id="T2",
        statement=f"{U_SHAPE}: documentation.",
        source=f"{PAPER}, Table 6",
        metric="first_bin_lead_docs",
        criterion=AllOf(Above(0.0), On("last_bin_lead_docs", Above(0.0))),
        paper_text="34.7% and 27.1%, between them 3.6 to 8.1%",
        needs=(PRIOR,),
        unit="of tokens",
    ),
    Claim(
        id="T2-outside",
        statement=f"{U_SHAPE}: on each of books, GSM8K, instructions and WikiText-2.",
        source=f"{PAPER}, Table 6",
        metric="first_bin_lead_outside",
        criterion=AllOf(Above(0.0), On("last_bin_lead_outside", Above(0.0))),
        paper_text="34.7% and 27.1%, between them 3.6 to 8.1%",
        needs=(PRIOR, *OUTSIDE),
        unit="of tokens",
        note="The number is that of the corpus where it is smallest.",
    ),
    *(
        Claim(
            id=f"T3{suffix}",
            statement=f"{DECAY}: {text}.",
            source=f"{PAPER}, Table 15",
            metric=f"candidate_share_steps_{where}",
            criterion=Below(0.0, every_seed=True),
            paper_text="12.50%, 11.76%, 11.08%",
            scales=("quick",),
            needs=needs,
            unit="of tokens",
            note="Only the sign is asked for at this scale; the two samples are the two steps.",
        )
        for suffix, text, where, needs in (
            ("", "documentation", "docs", (PRIOR,)),
            ("-outside", "GSM8K and WikiText-2", "outside", (PRIOR, "gsm8k", "wikitext2")),
        )
    ),
    *(
        Claim(
            id=f"T3{suffix}-interval",
            statement=f"{DECAY}: {text}; the 95% interval of each step, bootstrapped over documents, is "
            "below 0.",
            source=f"{PAPER}, Table 15",
            metric=f"candidate_share_steps_high_{where}",
            criterion=Below(0.0, every_seed=True),
            paper_text="12.50%, 11.76%, 11.08%",
            scales=("laptop", "paper"),
            needs=needs,
            unit="of tokens",
            note="The two samples are the upper ends of the intervals of the two steps.",
        )
        for suffix, text, where, needs in (
            ("", "documentation", "docs", (PRIOR,)),
            ("-outside", "GSM8K and WikiText-2", "outside", (PRIOR, "gsm8k", "wikitext2")),
        )
    ),
    *(
        Claim(
            id=f"T4{suffix}",
            statement=f"{MIXING}: {text}.",
            source=f"{PAPER}, Tables 1 and 9, Fig. 7",
            metric=f"ppl_ratio_{where}",
            criterion=AllOf(
                Above(1.2),
                On(f"ppl_steps_{where}", Above(0.0, every_seed=True)),
                On(f"training_loss_steps_{where}", Below(0.0, every_seed=True)),
            ),
            paper_text="34.55 to 128.05 on WikiText-103 (GPT-2), a ratio of 3.7",
            scales=scales,
            needs=needs,
            unit="x PPL",
            note=note,
        )
        for suffix, text, where, scales, needs, note in (
            (
                "",
                "documentation, synthetic text by a tiny model of it",
                "docs",
                ("quick",),
                (),
                "Three shares at this scale: 0, 50 and 100%.",
            ),
            (
                "-prior",
                "documentation, synthetic text by SmolLM2",
                "docs",
                ("laptop",),
                (PRIOR,),
                "",
            ),
            ("-books", "books, synthetic text by SmolLM2", "books", ("laptop",), (PRIOR, "books"), ""),
        )
    ),
    Claim(
        id="T5",
        statement="Over generations, replacing the text by the model's own makes PPL rise; with the human "
        "text edited by the model of the generation before it changes by at most a tenth of that.",
        source=f"{PAPER}, sections 4 and 5",
        metric="slope_replace",
        criterion=AllOf(Above(0.0), On("slope_size_edit", AtMost("slope_replace", ratio=0.1))),
        paper_text="collapse; none with edits",
        scales=("laptop",),
        unit="log PPL a generation",
        note="A tiny model is rarely sure: the share of candidates and of changes stands beside the figure.",
    ),
    Claim(
        id="T5-most",
        statement="The same where each generation edits its 12.5% surest tokens, as many as the paper's "
        "prior did.",
        source=f"{PAPER}, sections 4 and 5",
        metric="slope_replace",
        criterion=AllOf(Above(0.0), On("slope_size_edit_most", AtMost("slope_replace", ratio=0.1))),
        paper_text="collapse; none with edits",
        scales=("laptop",),
        unit="log PPL a generation",
    ),
    Claim(
        id="T6",
        statement="Synthetic text uses fewer n-grams: the effective number of hashed features (e^H, 10,000 "
        "buckets) is below that of as much human text.",
        source=f"{PAPER}, section 3.3 and Fig. 3",
        metric="effective_buckets_synthetic_over_human",
        criterion=Below(1.0),
        paper_text="over-concentrated",
        unit="x human",
    ),
    Claim(
        id="T6-edited",
        statement="Editing keeps them: e^H of the edited text is within 1% of that of its source.",
        source=f"{PAPER}, section 5",
        metric="effective_buckets_edited_change",
        criterion=AtMost(0.01),
        paper_text="preserved",
        needs=(PRIOR,),
        unit="relative",
    ),
    Claim(
        id="T7",
        statement="Text edited by the prior trains better models than its source: loss on three held-out "
        "sets, edited minus source.",
        source=f"{PAPER}, Tables 2 to 4",
        metric="edited_minus_source",
        criterion=NoRule(
            "there is no pass rule, because with fewer than 0.3% of the tokens changed an effect as in the "
            "paper's tables cannot be resolved at this scale"
        ),
        paper_text="+0.2 to 2.3 points of accuracy",
        scales=("laptop",),
        needs=(PRIOR,),
        unit="nats",
        note="The paper has one run a number. Its own ablation repeats one of them, and the two runs differ "
        "by 2.2 points: as much as the largest gain. The figure says how many seeds an answer would need.",
    ),
)
