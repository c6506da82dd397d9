from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from implicit_prm.collation import RewardDataset
from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning
from implicit_prm.training_data import reward_dataset

TOKENISED = [
    {"prompt_ids": [5, 6], "completion_ids": [7, 8, 9], "label": 1},
    {"prompt_ids": [5], "completion_ids": [7], "label": 0.0, "id": "short"},
    {"prompt_ids": [5, 6], "completion_ids": [9, 9], "label": True},
    {"prompt_ids": [4, 4, 4], "completion_ids": [3], "label": 0.25},
]


def dataset(rows: list[dict[str, Any]], tokenizer: Any = None, **settings: Any) -> RewardDataset:
    return reward_dataset(rows, tokenizer, ImplicitPRMConfig(output_dir="unused", **settings))


def test_batch_is_padded_on_the_right_and_marks_the_completion() -> None:
    batch = dataset(TOKENISED).batch([1, 0])
    assert batch["input_ids"].tolist() == [[5, 7, 5, 5, 5], [5, 6, 7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["completion_mask"].long().tolist() == [[0, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    assert batch["label"].tolist() == [0.0, 1.0]
    assert batch["sequence"].tolist() == [1, 0]


def test_reference_log_probs_stand_at_their_tokens() -> None:
    data = dataset(TOKENISED)
    data.ref = -np.arange(1, 8, dtype=np.float32)  # 3 + 1 + 2 + 1 completion tokens, in the rows' order
    found = data.batch([2, 0, 3])["ref_log_probs"]
    expected = [[0, 0, -5, -6, 0], [0, 0, -1, -2, -3], [0, 0, 0, -7, 0]]
    assert torch.equal(found, torch.tensor(expected, dtype=torch.float32))


def test_equal_prompts_are_one_group() -> None:
    assert dataset(TOKENISED).groups.tolist() == [0, 1, 0, 2]


def test_a_length_sampler_sees_the_longest_sequence_of_an_example() -> None:
    data = dataset([{"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3, 4, 5]}], loss="dpo")
    assert [len(row["input_ids"]) for row in data] == [4]


def test_pairs_put_all_chosen_before_all_rejected() -> None:
    rows = [
        {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]},
        {"prompt_ids": [1, 1], "chosen_ids": [4], "rejected_ids": [5]},
    ]
    batch = dataset(rows, loss="nca").batch([0, 1])
    assert batch["input_ids"][:, :3].tolist() == [[1, 2, 1], [1, 1, 4], [1, 3, 1], [1, 1, 5]]
    assert batch["label"].tolist() == [1, 1, 0, 0]
    assert dataset(rows).batch([0, 1, 2, 3])["label"].tolist() == [1, 0, 1, 0]  # CE reads pairs as responses


@pytest.mark.parametrize("prompts", [[0, 0, 1, 1, 2, 2, 3], [0, 1], [0, 0, 0, 1, 1, 1], [0, 1, 2]])
@pytest.mark.parametrize("seed", range(4))
def test_kto_takes_every_response_once_with_the_prompt_of_another(prompts: list[int], seed: int) -> None:
    rows = [
        {"prompt_ids": [10 + prompt], "completion_ids": [50 + number], "label": number % 2}
        for number, prompt in enumerate(prompts)
    ]
    data = dataset(rows, loss="kto", seed=seed)
    assert data.examples.tolist() == [[i, i + len(rows)] for i in range(len(rows))]
    unmatched = [data.store.sequence(len(rows) + i).tolist() for i in range(len(rows))]
    assert [prompt for prompt, _ in unmatched] == [10 + prompt for prompt in prompts]
    assert sorted(completion for _, completion in unmatched) == [50 + i for i in range(len(rows))]
    of_prompt = {50 + number: 10 + prompt for number, prompt in enumerate(prompts)}
    assert all(of_prompt[completion] != prompt for prompt, completion in unmatched)


def test_steps_of_tokenised_rows() -> None:
    rows = [
        {"prompt_ids": [1], "completion_ids": [2, 3, 4], "step_ends": [1, 2], "step_labels": [True, False]},
        {"prompt_ids": [1, 1], "completion_ids": [5], "step_ends": [0], "step_labels": [-1]},
    ]
    batch = dataset(rows, loss="step").batch([0, 1])
    assert batch["step_index"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert batch["step_label"].tolist() == [[1, -1], [-1, 0]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": 1.5}, r"label of row 'bad' is 1\.5; labels lie in \[0, 1\]"),
        ({"label": float("nan")}, r"label of row 'bad' is nan"),
        ({"label": "yes"}, "label of row 'bad' is 'yes'"),
        ({"label": None}, "row 'bad' has no 'label'"),
        ({"completion_ids": []}, "row 'bad' has no token in its completion"),
        ({"prompt_ids": []}, "row 'bad' has no token in its prompt"),
        ({"completion_ids": None}, "row 'bad' has none of 'completion', 'completions', 'chosen'"),
        ({"prompt_ids": None}, "row 'bad' needs either 'prompt' or 'prompt_ids'"),
        ({"completion_ids": [1] * 9}, "row 'bad' has 10 tokens and max_length is 8"),
        ({"completion_ids": "ab"}, "row 'bad' has something else than token ids"),
        ({"completion_ids": [10**12]}, "row 'bad' has something else than token ids"),
        ({"completions": "ab", "labels": [0, 1]}, "'completions' of row 'bad' is 'ab'; it must be a list"),
    ],
)
def test_bad_rows_are_named(change: dict[str, Any], told: str) -> None:
    row = {"id": "bad", "prompt_ids": [1], "completion_ids": [2], "label": 1} | change
    with pytest.raises(ImplicitPRMError, match=told):
        dataset([*TOKENISED, {name: value for name, value in row.items() if value is not None}], max_length=8)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"step_ends": [0]}, "must rise and end with its last token, 1"),
        ({"step_ends": [1, 0]}, "must rise"),
        ({"step_labels": [1]}, "has 2 steps and 1 step labels"),
        ({"step_labels": [1, 0.5]}, r"must be 1 \(right\) or 0 or -1"),
        ({"step_labels": [1, "no"]}, r"are \[1, 'no'\]; they must be 1"),
        ({"step_labels": 1}, "'step_labels' of row '0' is 1; it must be a list"),
        ({"step_ends": 1}, "'step_ends' of row '0' is 1; it must be a list"),
    ],
)
def test_bad_steps_are_named(change: dict[str, Any], told: str) -> None:
    row = {"prompt_ids": [1], "completion_ids": [2, 3], "step_ends": [0, 1], "step_labels": [1, 0]} | change
    with pytest.raises(ImplicitPRMError, match=told):
        dataset([row], loss="step")


def test_steps_of_text(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [
        {
            "prompt": "4",
            "completions": ["Step 1: so", "the answer"],
            "labels": [True, False],
        },  # TRL's stepwise
        {"prompt": "4", "completion": "Step 1: so\n\nthe answer", "step_labels": [1, -1]},
    ]
    data = dataset(rows, tokenizer, loss="step", add_eos=True)
    batch = data.batch([0, 1])
    assert torch.equal(batch["input_ids"][0], batch["input_ids"][1])
    assert batch["step_label"].tolist() == [[1, -1], [1, -1]]
    steps = [
        tokenizer.decode(
            batch["input_ids"][0][batch["completion_mask"][0] & (batch["step_index"][0] == step)]
        )
        for step in (0, 1)
    ]
    assert steps == ["Step 1: so\n\n", "the answer<|im_end|>"]


def test_a_response_in_steps_that_was_cut_off_gets_no_end(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"prompt": "4", "completions": ["Step 1: so", "the answer"], "labels": [True, False]}
    ends = []
    for cut in (False, True):
        data = dataset([row | {"truncated": cut}], tokenizer, loss="step", add_eos=True)
        ends.append(data.batch([0])["input_ids"][0, -1] == tokenizer.eos_token_id)
    assert ends == [True, False]


STEPS = ["Step 1: so", "the answer", "is 4"]


@pytest.mark.parametrize(
    "row",
    [
        {"completions": STEPS, "labels": [1, 0, 1]},
        {"completion": "\n\n".join(STEPS), "step_labels": [1, 0, 1]},
        {"completion_ids": None, "step_ends": None, "step_labels": [1, 0, 1]},
    ],
    ids=["completions", "completion", "completion_ids"],
)
def test_of_a_response_that_is_cut_the_steps_that_are_left_are_learned_from(
    row: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    parts = [tokenizer(text)["input_ids"] for text in ("Step 1: so\n\n", "the answer\n\n", "is 4")]
    ends = (np.cumsum([len(part) for part in parts]) - 1).tolist()
    row = {"prompt": "4", **row}
    if "completion_ids" in row:
        row |= {"completion_ids": [token for part in parts for token in part], "step_ends": ends}
        row = {"prompt_ids": [3], **{key: value for key, value in row.items() if key != "prompt"}}
    whole = dataset([row], tokenizer, loss="step")
    assert whole.step_labels.ends[0].tolist() == ends
    # Prompt and completion: all of the second step; a token of it; all but the end; of the first step one.
    for room, left, known in (
        (ends[1] + 1, [ends[0], ends[1]], [1, -1]),
        (ends[0] + 2, [ends[0], ends[0] + 1], [1, -1]),
        (ends[2], [ends[0], ends[1], ends[2] - 1], [1, -1, 1]),
        (1, [0], [1]),
    ):
        data = dataset([row], tokenizer, loss="step", max_length=1 + room, truncate="right")
        assert data.store.completion_lengths.tolist() == [room]
        assert data.step_labels.ends[0].tolist() == left
        assert data.step_labels.labels[0].tolist() == known
    with pytest.raises(ImplicitPRMError, match=f"row '0' has {ends[2] + 2} tokens and max_length is 6"):
        dataset([row], tokenizer, loss="step", max_length=6)
    labels = "labels" if "labels" in row else "step_labels"
    with pytest.raises(ImplicitPRMError, match="row '0' has 3 steps and 2 step labels"):
        dataset([{**row, labels: [1, 0]}], tokenizer, loss="step", max_length=6, truncate="right")


def test_responses_are_paired_and_balanced() -> None:
    rows = [
        {"prompt_ids": [10 + prompt], "completion_ids": [50], "label": label}
        for prompt, labels in enumerate(["110", "000", "10"])
        for label in labels
    ]
    pairs = dataset(rows, loss="dpo").examples
    assert sorted(right for right, _ in pairs.tolist()) in ([0, 6], [1, 6])
    assert sorted(wrong for _, wrong in pairs.tolist()) == [2, 7]
    assert len(dataset(rows, loss="dpo", pairing="all")) == 3
    assert len(dataset(rows, loss="dpo", pairing="balanced", max_pairs_per_prompt=1)) == 2
    labels = [float(row["label"]) for row in rows]
    for balance, size in (("dataset", 6), ("instruction", 4)):
        kept = dataset(rows, balance=balance).examples[:, 0]
        assert len(kept) == size
        assert sum(labels[row] for row in kept) == size / 2


def test_pairs_beside_single_responses_are_refused_where_these_would_be_left_out() -> None:
    rows = [{"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}, *TOKENISED]
    with pytest.raises(ImplicitPRMError, match="1 rows are pairs and 4 responses are not, which loss='dpo'"):
        dataset(rows, loss="dpo")
    assert len(dataset(rows, loss="ce")) == 6


def test_columns_that_are_none_are_columns_that_a_row_does_not_have() -> None:
    names = ("prompt", "prompt_ids", "completion", "completion_ids", "completions", "chosen", "chosen_ids")
    nothing = dict.fromkeys((*names, "rejected", "rejected_ids", "label", "labels", "truncated"))
    pair = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
    assert len(dataset([nothing | row for row in TOKENISED])) == 4
    assert len(dataset([nothing | row for row in (*TOKENISED, pair)])) == 6
    assert len(dataset([nothing | pair], loss="dpo")) == 1


@pytest.mark.parametrize("loss", ["ce", "dpo"])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_pair_with_one_side_names_the_other(side: str, loss: str) -> None:
    other = {"chosen": "rejected", "rejected": "chosen"}[side]
    told = f"row 'x' has neither '{other}' nor '{other}_ids'; it has "
    for given in ({side: "4"}, {f"{side}_ids": [4], other: None}):
        with pytest.raises(ImplicitPRMError, match=told):
            dataset([{"id": "x", "prompt_ids": [1], **given}], loss=loss)


def test_two_conversations_are_a_pair_with_its_prompt_in_them(tokenizer: PreTrainedTokenizerFast) -> None:
    def said(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    asked, right, wrong = said("user", "2+2?"), said("assistant", "4"), said("assistant", "5")
    apart = {"prompt": [asked], "chosen": [right], "rejected": [wrong]}
    together = {"chosen": [asked, right], "rejected": [asked, wrong]}
    first, second = dataset([apart, together], tokenizer, loss="dpo").examples.tolist()
    store = dataset([apart, together], tokenizer, loss="dpo").store
    for one, other in zip(first, second, strict=True):
        assert store.sequence(one).tolist() == store.sequence(other).tolist()
    with pytest.raises(ImplicitPRMError, match="row 'x': a pair without a prompt must be two conversations"):
        dataset([{"id": "x", "chosen": "4", "rejected": "5"}], tokenizer, loss="dpo")


def test_truncation_on_the_right_keeps_the_prompt() -> None:
    data = dataset(TOKENISED, max_length=4, truncate="right")
    assert data.store.lengths.tolist() == [4, 2, 4, 4]
    assert data.store.sequence(0).tolist() == [5, 6, 7, 8]


def test_no_rows_and_labels_that_are_all_equal() -> None:
    with pytest.raises(ImplicitPRMError, match="no row"):
        dataset([])
    with pytest.warns(ImplicitPRMWarning, match="all 2 labels are 1"):
        dataset([TOKENISED[0], TOKENISED[2]])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"beta": 0}, "beta is 0; it must be a number above 0"),
        ({"loss": "orpo"}, "loss is 'orpo'; it must be one of ce, dpo, nca, kto, step"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"loss": "kto", "per_device_train_batch_size": 1}, "at least 2 with loss='kto'"),
        ({"pairing": "balanced"}, "max_pairs_per_prompt"),
        ({"loss": "dpo", "balance": "dataset"}, "balance is 'dataset'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ImplicitPRMError, match=told):
        ImplicitPRMConfig(output_dir="unused", **settings)


def test_the_recipe_is_the_papers() -> None:
    config = ImplicitPRMConfig(output_dir="unused")
    assert (config.beta, config.learning_rate, config.num_train_epochs) == (0.05, 5e-7, 1)
    assert (config.adam_beta1, config.adam_beta2, config.weight_decay) == (0.9, 0.95, 0)
    assert (config.lr_scheduler_type, config.lr_scheduler_kwargs) == (
        "cosine_with_min_lr",
        {"min_lr_rate": 0.1},
    )
    assert config.get_warmup_steps(1000) == 30
    assert ImplicitPRMConfig(output_dir="unused", lr_scheduler_type="linear").lr_scheduler_kwargs is None
