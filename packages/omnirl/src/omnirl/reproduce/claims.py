"""The claims of the paper, and the checks that go with them, written down before any run.

A score is (reward per real step - random) / (oracle - random), exact ends, the mean over tasks that no
training task equals; "first 50" and "last 100" are steps of a context of 400. Start "online" is an empty
memory; "offline" and "noisy" begin after 200 steps of a uniformly random policy, or of an oracle whose action
is replaced by a random one with probability 0.7; "imitation" after 200 steps of the oracle. Teachers' tags
are shown. FrozenLake is the 4 x 4 map without slipping, its states and actions named anew in every run, 1,200
steps; success is the share of its episodes that reach the goal. Samples are tasks (runs for FrozenLake).

The paper trained on a billion steps with eight GPUs; here a few million are seen, so that the rules ask for
learning within the context and not for the paper's numbers.
"""

from __future__ import annotations

from tenfold import AllOf, AtLeast, AtMost, CIExcludes, Claim, Equals, On

PAPER = "Wang et al., arXiv 2502.02869 (NeurIPS 2025)"
LAPTOP = ("laptop",)
TASKS = "16 states, 5 actions, 128 unseen tasks"

QUICK = (
    Claim(
        id="Q1",
        statement="With no gradient the model gets better inside its context on unseen tasks: the score of "
        "its last 100 steps is at least 0.10 above that of the first 50, and its 95% interval above 0.15.",
        source=f"{PAPER}, Table 1 and Fig. 6",
        metric="online_gain",
        criterion=AllOf(AtLeast(0.10), On("online_last", CIExcludes(0.15, side="above"))),
        paper_text="62 to 101% after 190 episodes (Fig. 6)",
        note=TASKS,
    ),
    Claim(
        id="Q2",
        statement="It learns offline from random behaviour, and from its rewards: 0.20 or more, and at most "
        "half of that where rewards are hidden.",
        source=f"{PAPER}, Table 2",
        metric="offline_random",
        criterion=AllOf(AtLeast(0.20), On("offline_random_hidden", AtMost("offline_random", ratio=0.5))),
        paper_text="better than CQL from random demonstrations",
        note=TASKS,
    ),
    Claim(
        id="Q3",
        statement="It surpasses a noisy teacher: 0.25 or more above one that acts at random 70% of the time.",
        source=f"{PAPER}, Fig. 6",
        metric="noisy_gain",
        criterion=AtLeast(0.25),
        paper_text="63 to 73% after imperfect demonstrations (Fig. 6)",
        note=TASKS,
    ),
    Claim(
        id="Q4",
        statement="It imitates the oracle: 0.65 or more.",
        source=f"{PAPER}, Fig. 6",
        metric="imitation",
        criterion=AtLeast(0.65),
        paper_text="99 to 102% (Fig. 6)",
        note=TASKS,
    ),
    Claim(
        id="Q5",
        statement="It learns an unseen Gymnasium task: success on FrozenLake in the last 40% of 1,200 steps "
        "is 0.25 or more, and at most 0.10 where rewards are hidden.",
        source=f"{PAPER}, Table 1",
        metric="lake_success",
        criterion=AllOf(AtLeast(0.25), On("lake_success_hidden", AtMost(0.10))),
        paper_text="99.8% of the oracle within 300 steps",
        note="A random policy has 0.014, the oracle 1. States and actions have other names in every run.",
    ),
    Claim(
        id="Q6",
        statement="The parameters are the same, bit for bit, after all evaluations.",
        source="ours",
        metric="changed_parameters",
        criterion=Equals(0.0),
        unit="tensors",
    ),
    Claim(
        id="Q7",
        statement="AnyMDP's states are unequally easy to reach, Garnet's are not: log10 of the largest over "
        "the smallest stationary probability of a random policy is at least 2.5 on average, and at most "
        "1.0 for Garnet.",
        source=f"{PAPER}, Fig. 2",
        metric="rarity_anymdp",
        criterion=AllOf(AtLeast(2.5), On("rarity_garnet", AtMost(1.0))),
        paper_text="shown as a figure",
        note="64 tasks each: (16, 5) and (16, 5, 2). No training.",
    ),
    Claim(
        id="Q8",
        statement="No task of the tests is a task of the training.",
        source="ours",
        metric="shared_tasks",
        criterion=Equals(0.0),
        unit="tasks",
        note="By the hash of their transitions and rewards.",
    ),
)

LONG = (
    Claim(
        id="L1",
        statement="As Q1 after longer training: the score of the last 100 of 400 steps is 0.35 or more.",
        source=f"{PAPER}, Table 1",
        metric="online_last",
        criterion=AtLeast(0.35),
        paper_text="62 to 101% after 190 episodes (Fig. 6)",
        scales=LAPTOP,
        note="Every other rule of quick holds at this scale too, under its own name.",
    ),
    Claim(
        id="L2",
        statement="Labels of one reference policy teach more than those of DPT's and tags help: after the "
        "noisy teacher DPD is at least level with DPT, and 0.05 above itself without tags.",
        source=f"{PAPER}, Fig. 6",
        metric="noisy_dpd_minus_dpt",
        criterion=AllOf(AtLeast(0.0), On("noisy_dpd_minus_untagged", AtLeast(0.05))),
        paper_text="63 against 32 and 34 (offline, Fig. 6)",
        scales=LAPTOP,
        note="Five trainings with equal updates; differences are paired over tasks.",
    ),
    Claim(
        id="L3",
        statement="DPD is above AD and AD-eps in the online start.",
        source=f"{PAPER}, Fig. 6",
        metric="online_dpd_minus_ad",
        criterion=AllOf(
            CIExcludes(0.0, side="above"), On("online_dpd_minus_ad_eps", CIExcludes(0.0, side="above"))
        ),
        paper_text="62 against -23 and -3",
        scales=LAPTOP,
    ),
    Claim(
        id="L4",
        statement="More training tasks make unseen ones learnable: the gain within the context on unseen "
        "tasks rises from 16 to 256 to 4,096 tasks, and its distance from that on seen ones shrinks.",
        source=f"{PAPER}, Fig. 7",
        metric="unseen_gain_rise_low",
        criterion=AllOf(
            AtLeast(0.0),
            On("unseen_gain_rise_high", AtLeast(0.0)),
            On("seen_unseen_gap_fall_low", AtLeast(0.0)),
            On("seen_unseen_gap_fall_high", AtLeast(0.0)),
        ),
        paper_text="17.9, 38.0, 84.4 and 84.8% for 100, 1K, 10K and 128K tasks",
        scales=LAPTOP,
        note="Equal updates. The paper's effect takes 10,000 of them or more, far more than here.",
    ),
    Claim(
        id="G1",
        statement="Goal: the last quarter of 1,000 online steps scores 0.55 or more.",
        source="ours",
        metric="online_1000",
        criterion=AtLeast(0.55),
        scales=LAPTOP,
        note="Tuned tabular Q-learning has about this score at 400 steps.",
    ),
    Claim(
        id="G2",
        statement="Goal: success on FrozenLake is 0.7 or more without slipping, 0.10 or more with it.",
        source="ours",
        metric="lake_success",
        criterion=AllOf(AtLeast(0.7), On("lake_success_slippery", AtLeast(0.10))),
        scales=LAPTOP,
        note="The oracle has 1 and 0.744.",
    ),
)

CLAIMS = (*QUICK, *LONG)
