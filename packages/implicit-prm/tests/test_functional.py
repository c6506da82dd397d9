"""The rewards and the losses against hand values, closed forms and the two propositions on a whole tree."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from implicit_prm import ImplicitPRMError, ImplicitRewards
from implicit_prm.functional import (
    ce_loss,
    dpo_loss,
    implicit_rewards,
    kto_loss,
    log_ratio,
    nca_loss,
    step_loss,
    step_rewards,
    token_log_probs,
)

VOCABULARY, LENGTH = 3, 4


def softplus(x):
    return math.log1p(math.exp(x))


def random_outcomes(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Rewards


def test_two_steps_by_hand():
    # beta 0.05, d = [2, -1 | -4]: r = 0.05 d, q its running sum, R its sum by step.
    logps, ref = torch.tensor([[-1.0, -2.0, -5.0]]), torch.tensor([[-3.0, -1.0, -1.0]])
    rewards = implicit_rewards(logps, ref, torch.ones(1, 3), beta=0.05)
    torch.testing.assert_close(rewards.token_rewards, torch.tensor([[0.1, -0.05, -0.2]]))
    torch.testing.assert_close(rewards.q_values, torch.tensor([[0.1, 0.05, -0.15]]))
    torch.testing.assert_close(rewards.outcome, torch.tensor([-0.15]))
    steps = step_rewards(rewards.token_rewards[0], [1, 2])
    torch.testing.assert_close(steps, torch.tensor([0.05, -0.2]))
    right, wrong = ce_loss(rewards.outcome, torch.ones(1)), ce_loss(rewards.outcome, torch.zeros(1))
    torch.testing.assert_close(torch.stack([right, wrong]), torch.tensor([0.770956, 0.620956]))


def test_outside_the_mask_the_reward_is_zero_and_q_stands_still():
    logps = torch.tensor([[9.0, -1.0, -2.0, 7.0, -3.0, 9.0]])
    rewards = implicit_rewards(logps, None, torch.tensor([[0, 1, 1, 0, 1, 0]]), beta=1.0)
    assert rewards.token_rewards.tolist() == [[0, -1, -2, 0, -3, 0]]
    assert rewards.q_values.tolist() == [[0, -1, -3, -3, -6, -6]]
    assert rewards.outcome.tolist() == [-6]


def test_nan_outside_the_mask_reaches_neither_reward_nor_gradient():
    logps = torch.tensor([[float("nan"), -1.0, -float("inf")]], requires_grad=True)
    ref = torch.tensor([[0.0, -3.0, -float("inf")]])
    rewards = implicit_rewards(logps, ref, torch.tensor([[False, True, False]]), beta=0.5)
    assert rewards.outcome.tolist() == [1.0]
    rewards.outcome.sum().backward()
    assert logps.grad.tolist() == [[0, 0.5, 0]]


def test_equal_models_give_exactly_zero_and_ce_is_ln_2():
    logps = random_outcomes(4, 7).float()
    rewards = implicit_rewards(logps, logps.clone(), torch.ones(4, 7), beta=0.05)
    assert all((part == 0).all() for part in rewards)
    assert ce_loss(rewards.outcome, torch.tensor([0.0, 1, 1, 0])).item() == pytest.approx(math.log(2))


def test_left_and_right_padding_give_the_same_rewards():
    logps, ref = random_outcomes(2, 5), random_outcomes(2, 5, seed=1)
    ones, pad = torch.ones(2, 5), torch.full((2, 3), 99.0, dtype=torch.float64)
    left, right = (
        implicit_rewards(join(pad, logps), join(pad, ref), join(0 * pad, ones), beta=0.05)
        for join in (lambda p, x: torch.cat([p, x], 1), lambda p, x: torch.cat([x, p], 1))
    )
    torch.testing.assert_close(left.token_rewards[:, 3:], right.token_rewards[:, :5], rtol=0, atol=0)
    torch.testing.assert_close(left.outcome, right.outcome, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("given", "out"), [("bfloat16", "float32"), ("float64", "float64")])
def test_half_precision_is_widened_and_float64_stays(given, out):
    logps, labels = torch.zeros(2, 3, dtype=getattr(torch, given)), torch.ones(2)
    rewards = implicit_rewards(logps, logps, torch.ones(2, 3), beta=1.0)
    logits, targets = torch.zeros(2, 3, 8, dtype=logps.dtype), torch.zeros(2, 3, dtype=torch.long)
    results = [*rewards, log_ratio(logps), token_log_probs(logits, targets), ce_loss(rewards.outcome, labels)]
    results += [step_rewards(logps[0], [2]), step_loss(logps[0], torch.ones(3)), dpo_loss(logps, logps)]
    results += [nca_loss(logps, logps), kto_loss(logps[:, 0], labels, 0.0, beta=1.0)]
    assert {result.dtype for result in results} == {getattr(torch, out)}


def test_no_token_and_no_row_are_empty_sums():
    assert implicit_rewards(torch.zeros(2, 0), None, torch.zeros(2, 0), beta=1.0).outcome.tolist() == [0, 0]
    assert implicit_rewards(torch.zeros(0, 3), None, torch.zeros(0, 3), beta=1.0).outcome.shape == (0,)
    assert step_rewards(torch.zeros(0), []).shape == (0,)


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_step_rewards_are_sums_of_their_tokens_and_sum_to_the_outcome(lengths):
    tokens = random_outcomes(sum(lengths))
    steps = step_rewards(tokens, [end - 1 for end in torch.tensor(lengths).cumsum(0).tolist()])
    expected = torch.stack([part.sum() for part in tokens.split(lengths)])
    torch.testing.assert_close(steps, expected, rtol=0, atol=1e-14)
    outcome = implicit_rewards(tokens[None], None, torch.ones(1, len(tokens)), beta=1.0).outcome[0]
    torch.testing.assert_close(steps.sum(), outcome, rtol=0, atol=1e-13)


def test_gradient_of_a_step_reward_is_one_on_its_tokens():
    tokens = torch.zeros(5, requires_grad=True)
    step_rewards(tokens, [0, 3])[1].backward()
    assert tokens.grad.tolist() == [0, 1, 1, 1, 0]


# The propositions, on every sequence of LENGTH tokens over a vocabulary of VOCABULARY


def every_sequence():
    return torch.cartesian_prod(*[torch.arange(VOCABULARY)] * LENGTH)


def log_probs_on_the_tree(tables):
    """Log-probs of all sequences [V**T, T], from the logits `tables[t]` [V**t, V] after each t tokens."""
    spread = [table.repeat_interleave(VOCABULARY ** (LENGTH - t), 0) for t, table in enumerate(tables)]
    return token_log_probs(torch.stack(spread, 1), every_sequence())


def random_model(seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        3 * torch.randn(VOCABULARY**t, VOCABULARY, generator=generator, dtype=torch.float64)
        for t in range(LENGTH)
    ]


def continuations(values, t):
    """Values of all sequences [V**T] by their first t tokens: [V**t, V**(T - t)]."""
    return values.view(VOCABULARY**t, -1)


@pytest.mark.parametrize("beta", [0.01, 0.05, 1.0, 10.0])
def test_proposition_3_1_q_is_the_soft_value_under_the_reference(beta):
    logps, ref = log_probs_on_the_tree(random_model(1)), log_probs_on_the_tree(random_model(2))
    rewards = implicit_rewards(logps, ref, torch.ones_like(ref), beta)
    for t in range(1, LENGTH + 1):
        exponents = continuations(ref[:, t:].sum(1) + rewards.outcome / beta, t)
        soft_value = beta * exponents.logsumexp(1, keepdim=True)
        difference = continuations(rewards.q_values[:, t - 1], t) - soft_value
        assert difference.abs().max() < 1e-10
    # Before the first token q is 0: the soft mean of the reward over all responses of a prompt.
    assert abs((ref.sum(1) + rewards.outcome / beta).logsumexp(0)) < 1e-10


@pytest.mark.parametrize("beta", [1e-3, 0.3, 1e4])
def test_proposition_3_2_q_lies_between_the_mean_and_the_maximum(beta):
    """The policy whose implicit reward is a given r (less its soft mean) is p_ref(y) exp(r(y) / beta) / Z."""
    reward, ref = random_outcomes(VOCABULARY**LENGTH), log_probs_on_the_tree(random_model(3))
    weight = ref.sum(1) + reward / beta
    tables = [continuations(weight, t + 1).logsumexp(1).view(-1, VOCABULARY) for t in range(LENGTH)]
    rewards = implicit_rewards(log_probs_on_the_tree(tables), ref, torch.ones_like(ref), beta)
    q_values = rewards.q_values + beta * weight.logsumexp(0)
    torch.testing.assert_close(q_values[:, -1], reward, rtol=0, atol=1e-9)
    for t in range(1, LENGTH + 1):
        q = continuations(q_values[:, t - 1], t)[:, 0]
        mean = (continuations(ref[:, t:].sum(1).exp(), t) * continuations(reward, t)).sum(1)
        highest = continuations(reward, t).max(1).values
        assert (mean - 1e-9 <= q).all()
        assert (q <= highest + 1e-9).all()
        if beta == 1e4:  # The left bound is met as beta grows,
            torch.testing.assert_close(q, mean, rtol=0, atol=1e-3)
        if beta == 1e-3:  # the right one as beta goes to 0 (the highest reward has probability > e**-40).
            torch.testing.assert_close(q, highest, rtol=0, atol=0.04)


# Losses


def test_gradient_of_ce_is_beta_sigma_minus_label_over_b_on_the_response_only():
    logps = random_outcomes(3, 6).requires_grad_()
    ref, mask = random_outcomes(3, 6, seed=1), torch.tensor([[0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0], [1] * 6])
    labels, beta = torch.tensor([1.0, 0.0, 0.3]), 0.05
    outcome = implicit_rewards(logps, ref, mask, beta).outcome
    ce_loss(outcome, labels).backward()
    expected = beta * (outcome.detach().sigmoid() - labels)[:, None] / 3 * mask
    torch.testing.assert_close(logps.grad, expected, rtol=0, atol=1e-15)


def test_ce_still_learns_from_a_confidently_wrong_response_where_sigmoid_and_bce_do_not():
    gradients = []
    for loss in (ce_loss, lambda h, label: F.binary_cross_entropy(h.sigmoid(), label)):
        logps = torch.full((2, 1), 800.0, requires_grad=True)
        loss(implicit_rewards(logps, None, torch.ones(2, 1), beta=0.05).outcome, torch.zeros(2)).backward()
        gradients.append(logps.grad[0].item())
    assert gradients == [pytest.approx(0.05 / 2), 0.0]  # h = 40: beta / B, and the official form's 0


def test_ce_weights_multiply_and_its_reductions_agree():
    outcome, labels = torch.tensor([1.0, -2.0]), torch.tensor([1, 0])
    single = torch.tensor([softplus(-1), softplus(-2)])
    torch.testing.assert_close(ce_loss(outcome, labels, reduction="none"), single)
    weighted = ce_loss(outcome, labels, weight=torch.tensor([3.0, 0.5]), reduction="sum")
    torch.testing.assert_close(weighted, 3 * single[0] + 0.5 * single[1])
    torch.testing.assert_close(ce_loss(outcome, labels, torch.tensor([3.0, 0.5])), weighted / 2)


def test_ce_of_a_soft_label_is_least_where_sigma_is_the_label():
    outcome = torch.tensor([math.log(0.3 / 0.7)], requires_grad=True)
    ce_loss(outcome, torch.tensor([0.3])).backward()
    assert outcome.grad.item() == pytest.approx(0, abs=1e-7)


def test_dpo_and_nca_by_hand():
    chosen, rejected = torch.tensor([1.0, 0.5]), torch.tensor([-1.0, 2.0])
    assert dpo_loss(chosen, rejected).item() == pytest.approx((softplus(-2) + softplus(1.5)) / 2)
    expected = sum(softplus(-w) + 0.5 * softplus(w) + 0.5 * softplus(lo) for w, lo in [(1, -1), (0.5, 2)])
    assert nca_loss(chosen, rejected).item() == pytest.approx(expected / 2)


def test_dpo_sees_only_differences_within_a_prompt():
    chosen, rejected = random_outcomes(5), random_outcomes(5, seed=1)
    offset = random_outcomes(5, seed=2)
    torch.testing.assert_close(dpo_loss(chosen + offset, rejected + offset), dpo_loss(chosen, rejected))


def test_kto_by_hand_and_without_gradient_through_kl():
    outcome = torch.tensor([0.3, -0.2], requires_grad=True)
    kl = torch.tensor(4.0, requires_grad=True)
    loss = kto_loss(outcome, torch.tensor([1, 0]), kl, 0.05, desirable_weight=2.0, undesirable_weight=0.5)
    right, wrong = 1 / (1 + math.exp(-(0.3 - 0.2))), 1 / (1 + math.exp(-(0.2 + 0.2)))
    assert loss.item() == pytest.approx((2.0 * (1 - right) + 0.5 * (1 - wrong)) / 2)
    loss.backward()
    assert kl.grad is None
    slopes = [-2.0 * right * (1 - right) / 2, 0.5 * wrong * (1 - wrong) / 2]
    assert outcome.grad.tolist() == pytest.approx(slopes)


def test_kto_keeps_its_digits_where_the_sigmoid_is_one():
    loss = kto_loss(torch.tensor([40.0]), torch.tensor([1]), 0.0, beta=1.0)
    assert loss.item() == pytest.approx(math.exp(-40), rel=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_step_losses_by_hand_and_only_the_signed_one_turns_a_wrong_sign_round(sign):
    rewards, labels = torch.tensor([0.7 * sign], requires_grad=True), torch.tensor([1])
    assert step_loss(rewards, labels).item() == pytest.approx(softplus(-0.7 * sign))
    assert step_loss(rewards, -labels).item() == pytest.approx(softplus(0.7 * sign))
    assert step_loss(rewards, labels, form="absolute").item() == pytest.approx(softplus(-0.7))
    (signed,) = torch.autograd.grad(step_loss(rewards, labels), rewards)
    (absolute,) = torch.autograd.grad(step_loss(rewards, labels, form="absolute"), rewards)
    assert signed.item() < 0  # a right step's reward is raised, always
    assert absolute.sign().item() == -sign  # a negative one is pushed further down


@pytest.mark.parametrize(
    "loss",
    [
        lambda h: ce_loss(h[0], torch.tensor([1.0, 0, 0.4]), torch.tensor([1.0, 2, 3])),
        lambda h: dpo_loss(h[0], h[1]),
        lambda h: nca_loss(h[0], h[1]),
        lambda h: kto_loss(h[0], torch.tensor([1.0, 0, 0.4]), 0.7, 0.3, 1.5, 0.8),
        lambda h: step_loss(h[0], torch.tensor([1, -1, -1])),
        lambda h: step_loss(h[0], torch.tensor([1, -1, -1]), form="absolute"),
    ],
    ids=["ce", "dpo", "nca", "kto", "step", "step-absolute"],
)
def test_gradients_are_those_of_finite_differences(loss):
    def from_log_probs(logps):
        return loss(implicit_rewards(logps, None, torch.ones(6, 4), beta=0.6).outcome.view(2, 3))

    assert torch.autograd.gradcheck(from_log_probs, (random_outcomes(6, 4).requires_grad_(),))


# Bad input


def test_token_log_probs_are_those_of_log_softmax():
    logits, targets = random_outcomes(2, 3, 7), torch.tensor([[0, 6, 2], [3, 3, 1]])
    expected = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(token_log_probs(logits, targets), expected, rtol=0, atol=1e-14)


def test_the_result_is_named():
    assert ImplicitRewards._fields == ("token_rewards", "q_values", "outcome")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: implicit_rewards(torch.zeros(1, 2), None, torch.ones(1, 2), 0.0), "beta must be above 0"),
        (lambda: implicit_rewards(torch.zeros(1, 2), None, torch.ones(1, 2), math.nan), "beta must be above"),
        (lambda: implicit_rewards(torch.zeros(1, 2), None, torch.ones(2, 1), 1.0), r"\(1, 2\) .* \(2, 1\)"),
        (lambda: implicit_rewards(torch.zeros(2), None, torch.ones(2), 1.0), r"\[responses, tokens\]"),
        (lambda: log_ratio(torch.zeros(1, 2), torch.zeros(1, 3)), "reference"),
        (lambda: token_log_probs(torch.zeros(1, 3, 5), torch.zeros(1, 2).long()), "row of logits"),
        (lambda: step_rewards(torch.zeros(3), [1, 1]), "must rise"),
        (lambda: step_rewards(torch.zeros(3), [-1]), "must rise"),
        (lambda: step_rewards(torch.zeros(3), [3]), "response's 3 tokens"),
        (lambda: step_rewards(torch.zeros(1, 3), [0]), r"\[tokens\]"),
        (lambda: ce_loss(torch.zeros(3), torch.tensor([0, 1.5, 1])), "label 1 of the batch is 1.5"),
        (lambda: ce_loss(torch.zeros(2), torch.tensor([0, math.nan])), "label 1 of the batch is nan"),
        (lambda: ce_loss(torch.zeros(2), torch.zeros(2, 1)), "one shape"),
        (lambda: ce_loss(torch.zeros(0), torch.zeros(0)), "no response"),
        (lambda: ce_loss(torch.zeros(2), torch.zeros(2), torch.ones(1)), "the weights"),
        (lambda: dpo_loss(torch.zeros(2), torch.zeros(3)), "rejected outcomes"),
        (lambda: nca_loss(torch.zeros(0), torch.zeros(0)), "no pair"),
        (lambda: kto_loss(torch.zeros(1), torch.tensor([-1]), 0.0, 1.0), "label 0 of the batch is -1"),
        (lambda: kto_loss(torch.zeros(1), torch.tensor([1]), 0.0, -1.0), "beta must be above 0"),
        (lambda: step_loss(torch.zeros(2), torch.tensor([0, 1])), "2 \\* label - 1"),
        (lambda: step_loss(torch.zeros(0), torch.zeros(0)), "no step"),
        (lambda: step_loss(torch.zeros(1), torch.ones(1), form="abs"), "'signed' or 'absolute'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ImplicitPRMError, match=message):
        call()
