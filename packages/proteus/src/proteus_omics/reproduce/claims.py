"""The claims, written down before any run.

The paper's code, prompts, data sets, model and score tables are not to be had, so none of its numbers is
compared with. What it claims and what can be checked is: an automatic run from a raw table to hypotheses that
are true where the truth is known, agree with what was published, and hold no number that is not in a table.
"""

from __future__ import annotations

from tenfold import Above, AllOf, AtLeast, AtMost, Below, Claim, Equals, NoRule, On

PAPER = "Ding et al., arXiv 2411.03743"
ABSTRACT = f"{PAPER}, abstract"
NIU = "Niu et al., Mol Syst Biol 15:e8793, 2019"
HYE = ("hye-lfqbench",)
NAFLD_KNOWN = ("proteus-knowledge",)
CYTOF = ("cytof-bcrxl",)

CLAIMS = (
    Claim(
        id="C1",
        statement="Where the truth is known the findings are true: in a run on the HYE spike-in the "
        "false discovery proportion at q < 0.05 is at most 0.06, 95% of the changed proteins "
        "are found, and 99.5% of the true discoveries have the right direction.",
        source=ABSTRACT,
        metric="hye_fdp",
        criterion=AllOf(AtMost(0.06), On("hye_tpr", AtLeast(0.95)), On("hye_direction", AtLeast(0.995))),
        paper_text="reliable results; no number",
        unit="false of all discoveries",
        needs=HYE,
    ),
    Claim(
        id="C1-ranking",
        statement="The first 100 ranked hypotheses about a protein are at least 98% true, and tests "
        "against a least change (treat, 0.5) have a precision of at least 0.985.",
        source=ABSTRACT,
        metric="hye_top100_true",
        criterion=AllOf(AtLeast(0.98), On("hye_treat_precision", AtLeast(0.985))),
        paper_text="reliable results; no number",
        needs=HYE,
    ),
    Claim(
        id="C1b",
        statement="Human proteins alone, which do not change: how many are called at q < 0.05 for the "
        "true split of the runs, and the most for any of the nine other splits.",
        source="ours",
        metric="hye_human_true_split",
        criterion=NoRule("reported: small offsets between the two mixtures are real"),
        unit="of 1,787 proteins",
        needs=HYE,
    ),
    Claim(
        id="C2",
        statement="Where there is nothing it finds nothing: with the labels of healthy and cirrhosis "
        "permuted, at most 10% of the fits have a protein at q < 0.05.",
        source=ABSTRACT,
        metric="null_fits_with_hits",
        criterion=AtMost(0.10),
        paper_text="reliable results; no number",
        unit="of the permutations",
    ),
    Claim(
        id="C2-runs",
        statement="As C2 for whole runs: a verified hypothesis of a difference in at most 2 of 20.",
        source=ABSTRACT,
        metric="null_runs_with_hypotheses",
        criterion=AtMost(2.0),
        unit="of 20 runs",
        scales=("laptop", "paper"),
    ),
    Claim(
        id="C3",
        statement="It agrees with the literature: verified hypotheses say that in cirrhosis PIGR is up "
        "(q < 0.05, log2 fold change 1.4 to 2.4) and APOM is down (q < 0.05).",
        source=f"{ABSTRACT}; {NIU}",
        metric="pigr_log2fc",
        criterion=AllOf(
            AtLeast(1.4),
            AtMost(2.4),
            On("pigr_verified", Equals(1.0)),
            On("apom_verified", Equals(1.0)),
            On("apom_log2fc", Below(0.0)),
        ),
        paper_text="aligns well with the literature; Niu et al.: PIGR +298%, log2 1.99",
        unit="log2 fold change of PIGR",
    ),
    Claim(
        id="C3-pathway",
        statement="The liver makes the coagulation factors: Hallmark COAGULATION is lower in cirrhosis, "
        "FDR < 0.05.",
        source=ABSTRACT,
        metric="coagulation_nes",
        criterion=AllOf(Below(0.0), On("coagulation_q", Below(0.05))),
        unit="normalised enrichment score",
        needs=NAFLD_KNOWN,
    ),
    Claim(
        id="C3-six",
        statement="Of the six proteins that Niu et al. name (ALDOB, APOM, LGALS3BP, PIGR, VTN, AFM) so "
        "many differ at q < 0.05 in cirrhosis.",
        source=NIU,
        metric="six_found",
        criterion=NoRule("reported, found or not: two to three are expected of these 48 samples"),
        unit="of 6",
    ),
    Claim(
        id="C4",
        statement="It works on cells: B cells are found (CD20+ HLA-DR+ CD3-), and in them cross-linking "
        "raises pS6 by more than 2.2 with q < 0.05, pPlcg2 and pErk too.",
        source=f"{ABSTRACT}; Bodenmiller et al. 2012",
        metric="b_cell_ps6",
        criterion=AllOf(
            Above(2.2),
            On("b_cells_found", Equals(1.0)),
            On("b_cell_ps6_q", Below(0.05)),
            On("b_cell_pplcg2", Above(0.0)),
            On("b_cell_perk", Above(0.0)),
        ),
        paper_text="data sets of mass cytometry; no number",
        unit="difference of medians, arcsinh",
        needs=CYTOF,
    ),
    Claim(
        id="C4-nfkb",
        statement="pNFkB is down in at least 80% of the populations.",
        source="Bodenmiller et al. 2012",
        metric="pnfkb_down",
        criterion=AtLeast(0.80),
        unit="of the populations",
        needs=CYTOF,
    ),
    Claim(
        id="C4-null",
        statement="With the labels of half of the people exchanged at most one test of a state is "
        "significant.",
        source="ours",
        metric="flipped_hits",
        criterion=AtMost(1.0),
        unit="tests at q < 0.05",
        needs=CYTOF,
    ),
    Claim(
        id="C5",
        statement="No claim passes unchecked: of statements that were verified and then changed (a "
        "number, a sign, an entity, a contrast, significance) so that they are no longer "
        "true, at least 99% are not verified.",
        source=ABSTRACT,
        metric="mutants_caught",
        criterion=AllOf(AtLeast(0.99), On("statements_mutated", AtLeast(100.0))),
        paper_text="logically coherent; no number",
        unit="of the changed statements",
        needs=(*HYE, *CYTOF),  # without them there are 50 statements
    ),
    Claim(
        id="C5-originals",
        statement="The guard takes back none of them unchanged: all are verified again.",
        source="ours",
        metric="originals_verified",
        criterion=Equals(1.0),
        unit="of the statements",
    ),
    Claim(
        id="C6",
        statement="The trail is whole: every reference of every hypothesis resolves to a cell, `verify` "
        "passes, and `reproduce.py` gives the same tables.",
        source=ABSTRACT,
        metric="trail_broken",
        criterion=Equals(0.0),
        paper_text="not stated",
        unit="references, files or tables",
    ),
    Claim(
        id="C7",
        statement="With a language model: hypotheses a data set (the paper: about 16) and its judge's "
        "scores.",
        source=ABSTRACT,
        metric="llm_hypotheses",
        criterion=NoRule("reported where an endpoint is given; the paper's tables were not to be had"),
        paper_value=16.0,
        unit="a data set",
    ),
)
