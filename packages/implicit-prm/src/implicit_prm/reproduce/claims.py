"""The claims of the paper, written down before any run.

Unless a statement says otherwise: chains of 6 operations (ModChain); a reward model trained with CE on 1,000
prompts x 8 responses; judged on 200 fresh prompts x 64 responses at temperature 0.5; a response is scored by
its lowest step reward, with the reference. The generator, its task and all prompts change with the seed.
Accuracies are in %, their differences in points. Best-of-n is the mean over all subsets of n responses,
votes the mean over disjoint blocks of n.
"""

from __future__ import annotations

from tenfold import Above, AllOf, AtLeast, Claim, NoRule, On

PAPER = "Yuan et al., ICML 2025, arXiv 2412.01981"
PRIOR = "smollm2-135m"
PROBLEMS = "gsm8k-worked"
SOLUTIONS = "gsm8k-model-solutions"

SIGN_ONLY = (
    "Real problems; the numbers that ModChain has to pass come from a prototype of it, so here only the "
)
SIGN_ONLY += "sign is asked for."

CLAIMS = (
    Claim(
        id="C1",
        statement="Step rewards learned from response labels find the first error: over the steps up to it, "
        "the AUC of the negative step reward is at least 0.95, and above that of the untrained likelihood.",
        source=f"{PAPER}, Prop. 3.1",
        metric="step_auc",
        criterion=AllOf(AtLeast(0.95), Above("step_auc_untrained")),
        paper_text="not measured: no step labels",
    ),
    Claim(
        id="C2",
        statement="Best-of-16 by the lowest step reward beats the majority vote of 16 by 15 points or more.",
        source=f"{PAPER}, Table 1",
        metric="bon16_minus_majority16",
        criterion=AtLeast(15.0),
        paper_text="55.4 against a pass@1 of 44.6 (Llama-3.1-8B, DPO)",
        unit="points",
        note="The generator's errors are biased here, so that a vote saturates early.",
    ),
    Claim(
        id="C3",
        statement="Best-of-16 beats that by the likelihood of the untrained model by 10 points or more, "
        "whether the likelihood is taken of the least likely step or of the whole response.",
        source=f"{PAPER}, Table 5",
        metric="bon16_minus_likelihood16",
        criterion=AllOf(AtLeast(10.0), On("bon16_minus_likelihood16_sum", AtLeast(10.0))),
        paper_text="50.4 against 45.8 (mean of Table 1's columns)",
        unit="points",
    ),
    Claim(
        id="C4",
        statement="More instructions help: best-of-16 falls nowhere by more than 2 points from 125 to 250, "
        "500, 1,000 and 3,000 prompts x 8.",
        source=f"{PAPER}, scaling study",
        metric="smallest_bon16_step",
        criterion=AtLeast(-2.0),
        paper_text="rises",
        scales=("laptop",),
        unit="points",
        note="The smallest step between neighbouring sizes, of means over seeds.",
    ),
    Claim(
        id="C5",
        statement="With CE one response a prompt is enough to help: from 500 prompts x 1, best-of-16 beats "
        "pass@1 by more than 3 points.",
        source=f"{PAPER}, scaling study",
        metric="bon16_one_response_minus_pass1",
        criterion=Above(3.0),
        paper_text="helps",
        unit="points",
    ),
    Claim(
        id="C6",
        statement="The reference can be dropped when scoring: best-of-16 without it is at most 3 points "
        "lower.",
        source=f"{PAPER}, Table 5",
        metric="bon16_without_minus_with_reference",
        criterion=AtLeast(-3.0),
        paper_text="+0.2 (DPO, mean of Table 1's columns)",
        unit="points",
    ),
    Claim(
        id="C7",
        statement="A majority vote of 16 that is weighted by the reward beats the plain one by 5 points or "
        "more.",
        source=f"{PAPER}, study of majority votes",
        metric="weighted16_minus_majority16",
        criterion=AtLeast(5.0),
        paper_text="CE rises from 48.4 to 51.9 with votes, and is the best",
        unit="points",
    ),
    Claim(
        id="C8",
        statement="Math-Shepherd (8 completions a step) takes at least 8 times the FLOPs of the implicit "
        "model at equal responses, data and training together; its best-of-16 is at most 2 points better.",
        source=f"{PAPER}, Figure 2 and Table 1",
        metric="shepherd_flops_ratio",
        criterion=AllOf(AtLeast(8.0), On("bon16_minus_shepherd16", AtLeast(-2.0))),
        paper_value=38.8,
        scales=("laptop",),
        unit="x FLOPs",
        note="FLOPs are measured. The paper's responses have more steps, and more tokens a step; here a "
        "response has seven tokens, and training on it three times takes most of the work. The metric "
        "shepherd_data_flops_ratio is that of the data alone.",
    ),
    Claim(
        id="C1-gsm8k",
        statement="GSM8K's own calculations: the AUC of step rewards is above that of the untrained "
        "likelihood.",
        source=f"{PAPER}, Prop. 3.1",
        metric="gsm8k_step_auc",
        criterion=Above("gsm8k_step_auc_untrained"),
        paper_text="not measured: no step labels",
        scales=("laptop",),
        needs=(PROBLEMS,),
        note=SIGN_ONLY,
    ),
    Claim(
        id="C2-gsm8k",
        statement="GSM8K's own calculations: best-of-16 beats the majority vote of 16.",
        source=f"{PAPER}, Table 1",
        metric="gsm8k_bon16_minus_majority16",
        criterion=Above(0.0),
        scales=("laptop",),
        needs=(PROBLEMS,),
        unit="points",
        note=SIGN_ONLY,
    ),
    Claim(
        id="C3-gsm8k",
        statement="GSM8K's own calculations: best-of-16 beats that by the likelihood of the untrained model, "
        "of the least likely step or of the whole response.",
        source=f"{PAPER}, Table 5",
        metric="gsm8k_bon16_minus_likelihood16",
        criterion=AllOf(Above(0.0), On("gsm8k_bon16_minus_likelihood16_sum", Above(0.0))),
        scales=("laptop",),
        needs=(PROBLEMS,),
        unit="points",
        note=SIGN_ONLY,
    ),
    Claim(
        id="C6-gsm8k",
        statement="GSM8K's own calculations: best-of-16 without the reference is at most 3 points lower.",
        source=f"{PAPER}, Table 5",
        metric="gsm8k_bon16_without_minus_with_reference",
        criterion=AtLeast(-3.0),
        paper_text="+0.2 (DPO, mean of Table 1's columns)",
        scales=("laptop",),
        needs=(PROBLEMS,),
        unit="points",
    ),
    Claim(
        id="R1",
        statement="Over-optimisation: at temperature 1, what best-of-64 adds to best-of-4, with the "
        "reference.",
        source="ours",
        metric="t1_bon64_minus_bon4",
        criterion=NoRule(
            "there is no pass rule, because a fall is expected: rare tokens have the largest ratios"
        ),
        paper_text="KTO and CE fall from 4 to 64 for the 70B generator (Table 1)",
        scales=("laptop",),
        unit="points",
    ),
    Claim(
        id="R2",
        statement="How well the likelihood of the untrained model finds the first error by itself (AUC).",
        source="ours",
        metric="step_auc_untrained",
        criterion=NoRule("there is no pass rule, because it is what C1 is measured against"),
        paper_text="not measured",
    ),
    Claim(
        id="R3",
        statement="Which loss is best: best-of-16 with DPO less that with CE, 500 prompts x 8.",
        source=f"{PAPER}, Table 1",
        metric="bon16_dpo_minus_ce",
        criterion=NoRule("there is no pass rule, because the order of the losses may differ at this scale"),
        paper_text="50.4 DPO, 49.4 NCA, 48.4 CE, 45.7 KTO",
        unit="points",
    ),
    Claim(
        id="R4",
        statement="More prompts or more responses: best-of-16 from 4,000 prompts x 1 less that from 500 x 8.",
        source=f"{PAPER}, scaling study",
        metric="bon16_prompts_minus_responses",
        criterion=NoRule(
            "there is no pass rule, because a prototype showed the opposite of the paper's emphasis"
        ),
        paper_text="responses help more",
        scales=("laptop",),
        unit="points",
    ),
    Claim(
        id="R5",
        statement="Real solutions of GSM8K by GPT-3-class models, SmolLM2-135M trained with CE: AUROC of the "
        "reward over held-out responses.",
        source="ours",
        metric="smollm2_auroc",
        criterion=NoRule("there is no pass rule, because a null result is possible with so small a model"),
        paper_text="not measured",
        scales=("laptop",),
        needs=(PRIOR, SOLUTIONS),
    ),
)
