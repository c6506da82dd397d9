"""Scoring responses with `ImplicitPRM` (tests 3, 4, 6, 8 of section 7; bad input of section 9)."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from implicit_prm import ImplicitPRM, ImplicitPRMError, ImplicitPRMWarning, TokenizerMismatchError
from implicit_prm.backends.hf import HFBackend
from implicit_prm.backends.reading import read_rows
from implicit_prm.encoding import encode_rows
from implicit_prm.model import BASE

BETA = 0.05
ROWS = [
    {"id": "a", "prompt": "What is 40 + 2?\n", "completion": "Step 1: the answer.\n\nso it is 42"},
    {"id": "b", "prompt": "What is 40 + 2?\n", "completion": "the answer is 4.\n\n\n2. Or 42\r\n\r\nmaybe"},
    {"id": "c", "prompt": "caf\u00e9 \u2192 ?", "completion": "\u00bd. \U0001f642 Step 2: na\u00efve"},
    {"id": "d", "prompt": "Sum" * 50, "completion": "6"},
]


class Given:
    """A backend that knows its answers."""

    def __init__(self, *answers: list[float]) -> None:
        self.answers = [np.array(answer, np.float32) for answer in answers]

    def token_log_probs(self, input_ids: Any, completion_mask: Any) -> list[np.ndarray]:
        assert [sum(mask) for mask in completion_mask] == [len(answer) for answer in self.answers]
        return self.answers


@pytest.fixture(scope="module")
def models(tiny_llama: Any) -> tuple[Any, Any]:
    return tiny_llama(0), tiny_llama(1)


@pytest.fixture(scope="module")
def prm(models: tuple[Any, Any], tokenizer: Any) -> ImplicitPRM:
    return ImplicitPRM(models[0], tokenizer, models[1], BETA)


def by_definition(model: Any, prompt_ids: Any, completion_ids: Any) -> torch.Tensor:
    """log p of the completion's tokens: all logits of one row."""
    with torch.no_grad():
        scores = model(torch.tensor([[*prompt_ids, *completion_ids]])).logits[0].double().log_softmax(-1)
    first = len(prompt_ids)
    return torch.stack([scores[first + at - 1, token] for at, token in enumerate(completion_ids)])


def test_hand_values(tokenizer):
    """Test 1 of section 7: d = [2, -1 | -4]."""
    ids = tokenizer("a\n\nb", add_special_tokens=False)["input_ids"]
    assert len(ids) == 4
    row = {"prompt": "x", "completion_ids": [ids[0], ids[1], ids[3]]}
    policy, reference = Given([-1.0, -3.0, -5.0]), Given([-3.0, -2.0, -1.0])
    (scored,) = ImplicitPRM(policy, tokenizer, reference).score([row], steps="line")
    assert [step.text for step in scored.steps] == ["a\n", "b"]
    np.testing.assert_allclose(scored.token_rewards, [0.1, -0.05, -0.2], atol=1e-7)
    np.testing.assert_allclose(scored.q_values, [0.1, 0.05, -0.15], atol=1e-7)
    np.testing.assert_allclose(scored.step_rewards, [0.05, -0.2], atol=1e-7)
    assert scored.outcome_reward == pytest.approx(-0.15, abs=1e-12)
    (bare,) = ImplicitPRM(policy, tokenizer).score([row], steps="line")
    np.testing.assert_allclose(bare.q_values, [-0.05, -0.2, -0.45], atol=1e-7)


def test_a_reward_is_beta_times_the_ratio_of_the_two_models(prm, models, tokenizer):
    for scored, row in zip(prm.score(ROWS), encode_rows(ROWS, tokenizer), strict=True):
        ours, theirs = (by_definition(model, row.prompt_ids, row.completion_ids) for model in models)
        np.testing.assert_allclose(scored.token_rewards, BETA * (ours - theirs), atol=1e-6)
        assert scored.token_ids == row.completion_ids
        assert scored.id == row.id


@pytest.mark.parametrize(
    "steps",
    ["paragraph", "line", "step_header", "sentence", "token", r"regex:is\s", lambda text: [(0, len(text))]],
)
@pytest.mark.filterwarnings("ignore::implicit_prm.ImplicitPRMWarning")
def test_steps_sum_to_the_outcome_and_cover_the_response(prm, steps):
    """Test 3 of section 7."""
    for scored, row in zip(prm.score(ROWS, steps=steps, add_eos=True), ROWS, strict=True):
        assert len(scored.steps) == len(scored.step_rewards)
        assert float(scored.step_rewards.sum()) == pytest.approx(scored.outcome_reward, abs=1e-6)
        assert float(scored.q_values[-1]) == pytest.approx(scored.outcome_reward, abs=1e-6)
        np.testing.assert_allclose(np.cumsum(scored.token_rewards), scored.q_values, atol=1e-6)
        assert scored.completion == row["completion"]


def test_a_row_may_bring_the_spans_of_its_steps(prm):
    rows = [{**ROWS[0], "step_spans": [(0, 8), (8, 20), (20, 32)]}, ROWS[1]]
    cut, other = prm.score(rows)
    assert [(step.start, step.end) for step in cut.steps] == [(0, 8), (8, 20), (20, 32)]
    assert other == prm.score([ROWS[1]])[0] or len(other.steps) == 3
    with pytest.raises(ImplicitPRMError, match="row 'a'"):
        prm.score([{**ROWS[0], "step_spans": [(9, 3)]}])


def test_a_model_against_itself_is_rewarded_with_exactly_nothing(models, tokenizer):
    """Test 4 of section 7, also with a copy, whose numbers are the same."""
    for reference in (models[0], copy.deepcopy(models[0])):
        for scored in ImplicitPRM(models[0], tokenizer, reference).score(ROWS, batch_size=2):
            assert not scored.token_rewards.any()
            assert scored.outcome_reward == 0


def test_the_limit_of_a_backend_is_kept_and_its_errors_name_the_row(models, tokenizer):
    class Engine(HFBackend):
        def token_log_probs(self, input_ids: Any, completion_mask: Any) -> list[np.ndarray]:
            read_rows(input_ids, completion_mask, vocab_size=290, max_length=12)
            return super().token_log_probs(input_ids, completion_mask)

    engine = Engine(models[0])
    assert (
        engine.max_length
        == ImplicitPRM(engine, tokenizer).max_length
        == models[0].config.max_position_embeddings
    )
    engine.max_length = 12
    prm = ImplicitPRM(engine, tokenizer, models[1])
    assert prm.max_length == 12
    rows = [
        {"id": "ok", "prompt": "4", "completion": "2"},
        {"id": "Q17", "prompt": "4", "completion": "2" * 20},
    ]
    cut = prm.score(rows, truncate="right")[1]
    assert (cut.completion, cut.truncated) == ("2" * 11, True)
    with pytest.raises(ImplicitPRMError, match="row 'Q17' has 21 tokens, more than max_length=12"):
        prm.score(rows)
    with pytest.raises(ImplicitPRMError, match="row 'Q17' has 21 tokens, and 12 fit"):
        prm.score(rows, max_length=100)


def test_shuffled_rows_give_shuffled_results(prm):
    """Test 8 of section 7."""
    expected = {scored.id: scored for scored in prm.score(ROWS)}
    for scored in prm.score([ROWS[at] for at in (2, 0, 3, 1)], batch_size=3):
        np.testing.assert_allclose(scored.token_rewards, expected[scored.id].token_rewards, atol=1e-6)
        assert scored.steps == expected[scored.id].steps


def padded_rows(tokenizer: Any, side: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    encoded = encode_rows(ROWS, tokenizer)
    width = max(len(row.input_ids) for row in encoded)
    tensors = torch.zeros(3, len(encoded), width, dtype=torch.long)
    for at, row in enumerate(encoded):
        size = len(row.input_ids)
        inside = slice(0, size) if side == "right" else slice(width - size, width)
        tensors[:, at, inside] = torch.tensor([row.input_ids, [1] * size, row.completion_mask])
    return tensors[0], tensors[1], tensors[2].bool()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", ["left", "right"])
def test_rewards_of_tensors_are_those_of_rows_whatever_side_is_padded(models, tokenizer, side, dtype):
    """Test 6 of section 7."""
    here = ImplicitPRM(*(copy.deepcopy(models[0]).to(dtype), tokenizer, copy.deepcopy(models[1]).to(dtype)))
    ids, attention, completion = padded_rows(tokenizer, side)
    found = here.rewards(ids, attention, completion)
    assert found.token_rewards.dtype == dtype
    atol = 1e-6 if dtype == torch.float32 else 1e-10
    for at, row in enumerate(encode_rows(ROWS, tokenizer)):
        policy, reference = (
            by_definition(model, row.prompt_ids, row.completion_ids) for model in (here.model, here.ref_model)
        )
        expected = BETA * (policy - reference)
        torch.testing.assert_close(
            found.token_rewards[at][completion[at]].double(), expected, atol=atol, rtol=0
        )
        torch.testing.assert_close(found.outcome[at].double(), expected.sum(), atol=10 * atol, rtol=0)
    assert not found.token_rewards[~completion].any()


def test_gradients_reach_the_model_only(models, tokenizer):
    policy, reference = copy.deepcopy(models[0]).train(), copy.deepcopy(models[1]).train()
    here = ImplicitPRM(policy, tokenizer, reference)
    here.rewards(*padded_rows(tokenizer, "right")).outcome.sum().backward()
    assert all(weight.grad is not None for weight in policy.parameters())
    assert all(weight.grad is None for weight in reference.parameters())
    assert policy.training
    assert reference.training
    assert here.ref_log_probs(*padded_rows(tokenizer, "right")[:2]).requires_grad is False
    assert ImplicitPRM(policy, tokenizer).ref_log_probs(*padded_rows(tokenizer, "right")[:2]) is None


def test_bfloat16_weights_shift_a_reward_by_less_than_a_tenth_of_beta(models, tokenizer):
    """Test 6 of section 7: measured 0.063 beta at most."""
    exact = ImplicitPRM(*(models[0], tokenizer, models[1])).score(ROWS)
    coarse = ImplicitPRM(
        copy.deepcopy(models[0]).bfloat16(), tokenizer, copy.deepcopy(models[1]).bfloat16()
    ).score(ROWS)
    shift = max(np.abs(a.token_rewards - b.token_rewards).max() for a, b in zip(exact, coarse, strict=True))
    assert shift < BETA / 10


def test_an_adapter_switched_off_is_the_reference(models, tokenizer):
    from peft import LoraConfig, get_peft_model

    base = copy.deepcopy(models[0])
    tuned = get_peft_model(copy.deepcopy(models[0]), LoraConfig(r=2, target_modules=["q_proj"]))
    torch.manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    one, two = ImplicitPRM(tuned, tokenizer, BASE), ImplicitPRM(tuned, tokenizer, base)
    assert one.score(ROWS) == two.score(ROWS)
    assert one.score(ROWS)[0].token_rewards.any()
    batch = padded_rows(tokenizer, "left")
    assert torch.equal(one.rewards(*batch).outcome, two.rewards(*batch).outcome)
    with pytest.raises(ImplicitPRMError, match=r'the reference "base".*has none'):
        ImplicitPRM(base, tokenizer, BASE)


def test_from_pretrained_scores_as_the_models_in_memory(tmp_path: Path, prm, models, tokenizer):
    for model, name in zip(models, ("policy", "reference"), strict=True):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    policy, reference = str(tmp_path / "policy"), str(tmp_path / "reference")
    loaded = ImplicitPRM.from_pretrained(policy, ref=reference, beta=BETA, device="cpu")
    assert loaded.score(ROWS) == prm.score(ROWS)
    bare = ImplicitPRM.from_pretrained(policy, device="cpu", dtype=torch.bfloat16)
    assert bare.ref_model is None
    assert bare.model.dtype == torch.bfloat16


def test_what_is_no_causal_language_model_is_refused(tmp_path: Path, tiny_llama, tokenizer):
    classifier = LlamaForSequenceClassification(tiny_llama().config)
    with pytest.raises(ImplicitPRMError, match="causal language model"):
        ImplicitPRM(classifier, tokenizer)
    seq2seq = T5ForConditionalGeneration(
        T5Config(vocab_size=320, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    with pytest.raises(ImplicitPRMError, match="causal language model"):
        ImplicitPRM(seq2seq, tokenizer)
    classifier.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    with pytest.raises(ImplicitPRMError, match=r"LlamaForSequenceClassification.*causal language model"):
        ImplicitPRM.from_pretrained(str(tmp_path / "classifier"))
    tiny_llama().model.save_pretrained(tmp_path / "headless")
    tokenizer.save_pretrained(tmp_path / "headless")
    with pytest.raises(ImplicitPRMError, match=r"lm_head\.weight"):
        ImplicitPRM.from_pretrained(str(tmp_path / "headless"))
    with pytest.raises(ImplicitPRMError, match=r"cannot load .*nowhere"):
        ImplicitPRM.from_pretrained(str(tmp_path / "nowhere"))


def test_different_tokenizers_are_told_apart_by_the_first_probe(models, tokenizer):
    with pytest.raises(TokenizerMismatchError, match=r"'Step 1: 12 \+ 345"):
        ImplicitPRM(models[0], tokenizer, models[1], ref_tokenizer=other_tokenizer(tokenizer))
    padded = copy.deepcopy(tokenizer)
    padded.add_special_tokens({"pad_token": "<pad>"})
    ImplicitPRM(models[0], tokenizer, models[1], ref_tokenizer=padded)


def other_tokenizer(tokenizer: Any) -> PreTrainedTokenizerFast:
    """The same vocabulary, but digits are never part of a longer token."""
    from tokenizers import Tokenizer, pre_tokenizers

    changed = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    changed.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("e", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=changed, bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token
    )


def test_nan_is_reported_with_the_row_and_the_model(models, tokenizer):
    broken = copy.deepcopy(models[1])
    with torch.no_grad():
        broken.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids("6")] = float("nan")
    # Of the response's first token already: a NaN is 0 * NaN to the tokens that do not look at it.
    rows = [*ROWS[:3], {"id": "sick", "prompt": "1", "completion": "2666"}]
    with pytest.raises(ImplicitPRMError, match=r"row 'sick': the reference gives log-prob nan to token 0"):
        ImplicitPRM(models[0], tokenizer, broken).score(rows)


def test_settings_that_cannot_be_right_are_refused(prm, models, tokenizer, tiny_llama):
    for beta in (0, -0.05, float("nan")):
        with pytest.raises(ImplicitPRMError, match="beta must be above 0"):
            ImplicitPRM(models[0], tokenizer, beta=beta)
    with pytest.raises(TokenizerMismatchError, match="the model has 200 tokens, the tokenizer 278"):
        ImplicitPRM(tiny_llama(vocab_size=200), tokenizer)
    with pytest.raises(ImplicitPRMError, match=r"row 'long'.*max_length=512"):
        prm.score([{"id": "long", "prompt": "x", "completion": "?" * 600}])
    with pytest.raises(ImplicitPRMError, match="for tensors give a model of transformers"):
        ImplicitPRM(Given([-1.0]), tokenizer).log_probs(torch.ones(1, 2).long(), torch.ones(1, 2))
    with pytest.warns(ImplicitPRMWarning, match="different dtypes"):
        ImplicitPRM(copy.deepcopy(models[0]).bfloat16(), tokenizer, models[1])


@pytest.mark.gpu
def test_the_reference_may_lie_on_another_device(models, tokenizer):
    expected = ImplicitPRM(models[0], tokenizer, models[1]).score(ROWS)
    split = ImplicitPRM(copy.deepcopy(models[0]).cuda(), tokenizer, models[1])
    for ours, theirs in zip(split.score(ROWS), expected, strict=True):
        np.testing.assert_allclose(ours.token_rewards, theirs.token_rewards, atol=1e-4)
    ids, attention, completion = (part.cuda() for part in padded_rows(tokenizer, "right"))
    assert split.rewards(ids, attention, completion).outcome.is_cuda


@pytest.mark.slow
def test_smollm2_scores_real_solutions():
    """Test 12 of section 7: the real GGUF, dequantised, as its own reference in two dtypes' stead."""
    from tenfold.data import get

    folder = str(get("smollm2-135m"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prm = ImplicitPRM.from_pretrained(folder, device="cpu", dtype=torch.float32)
    question = "Natalia sold 48 clips in April, and half as many in May. How many did she sell altogether?"
    rows = [
        {"prompt": question, "completion": "\nIn May she sold 48/2 = 24.\n\nAltogether she sold 48+24 = 72."},
        {"prompt": question, "completion": "\nIn May she sold 48*2 = 96.\n\nzebra 48 quantum = 11 fish."},
    ]
    good, bad = prm.score(rows)
    for scored in (good, bad):
        assert np.isfinite(scored.token_rewards).all()
        assert len(scored.steps) == 2
        assert float(scored.step_rewards.sum()) == pytest.approx(scored.outcome_reward, abs=1e-5)
    assert good.step_rewards[1] > bad.step_rewards[1]


@pytest.mark.slow
def test_a_model_from_a_gguf_file_can_be_trained_and_saved(tmp_path):
    """Since 5.19 transformers calls it quantised, and refuses both, unless it is told to unpack."""
    from implicit_prm import ImplicitPRMConfig, ImplicitPRMTrainer
    from implicit_prm.pretrained import load_model, load_tokenizer
    from tenfold.data import get

    folder = str(get("smollm2-135m"))
    options = {"reference": "none", "learning_rate": 1e-3, "max_steps": 1, "report_to": [], "use_cpu": True}
    trainer = ImplicitPRMTrainer(
        load_model(folder, dtype=torch.float32),
        args=ImplicitPRMConfig(output_dir=str(tmp_path), save_strategy="no", **options),
        train_dataset=[{"prompt": "1 + 1 = ", "completion": str(n), "label": float(n == 2)} for n in (2, 3)],
        processing_class=load_tokenizer(folder),
    )
    trainer.train()
    trainer.save_model()
    for name, value in load_model(str(tmp_path)).state_dict().items():
        torch.testing.assert_close(value, trainer.model.state_dict()[name])
