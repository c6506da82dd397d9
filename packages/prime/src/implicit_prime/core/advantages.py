"""Advantages of every token from process rewards and outcomes (section 2.2): pure functions of tensors.

B responses, T tokens. `process` [B, T] is the reward of every token, r_t = beta log(p_prm / p_ref), or None
for outcomes alone; `outcome` [B] the verifier's score; `mask` [B, T] is 1 on the response's tokens. mu is a
response's mean process reward over its tokens, 0 for an empty response. `group_ids` [B] name each response's
prompt; groups may be of different sizes and need not stand together.

Results are [B, T], 0 outside the mask, float64 where an input is float64 and else float32; what stands
outside the mask is never read. Outcomes sit on a response's last token and are discounted from there by
`outcome_gamma`, process rewards by `gamma`; time is the position in the row. NaN inside the mask or in an
outcome comes out as NaN. All raise `PrimeError` for shapes that do not fit and for gammas outside [0, 1].
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from implicit_prime.core import normalization
from implicit_prime.core.groups import GroupIds, Groups
from implicit_prime.core.returns import discounted_returns
from implicit_prime.core.tensors import check_gamma, check_tokens, exact, masked, wide
from implicit_prime.errors import PrimeError

Baseline = Literal["paper", "official", "none"]


def rloo_advantage(
    process: Tensor | None,
    outcome: Tensor,
    mask: Tensor,
    group_ids: GroupIds,
    gamma: float = 1.0,
    outcome_gamma: float = 1.0,
    baseline: Baseline = "paper",
    whiten: bool = False,
) -> Tensor:
    """Leave-one-out advantages, Eq. 5: [B, T].

        A_t = sum_{s>=t} gamma^(s-t) [r_s - mean of the others' mu] + outcome - mean of the others' outcomes

    `baseline` is that of the process rewards alone: "paper" as above; "official" has
    r_s K/(K-1) - sum_j mu_j/(K-1) in the bracket, which is larger by (r_s - mu)/(K-1), the same in sum but
    not token by token; "none" has r_s. `whiten` then whitens over all tokens of the batch, as the official
    code does.

    Raises `PrimeError` too for a response alone in its group and another `baseline`.
    """
    if baseline not in ("paper", "official", "none"):
        raise PrimeError(f"process_baseline must be 'paper', 'official' or 'none', not {baseline!r}")
    _check(process, outcome, mask)
    groups = Groups(group_ids, len(outcome)).at_least_two()
    terms = process
    if process is not None and baseline != "none":
        means = _response_means(process, mask)
        if baseline == "paper":
            terms = _minus(process, groups.others(means))
        else:
            scale = (groups.sizes / (groups.sizes - 1)).to(wide(process))
            terms = _minus(wide(process) * scale[:, None], groups.total(means) / (groups.sizes - 1))
    advantages = _returns(terms, outcome, exact(outcome) - groups.others(outcome), mask, gamma, outcome_gamma)
    return normalization.whiten(advantages, mask) if whiten else advantages


def grpo_advantage(
    process: Tensor | None,
    outcome: Tensor,
    mask: Tensor,
    group_ids: GroupIds,
    gamma: float = 1.0,
    outcome_gamma: float = 1.0,
    eps: float = 1e-6,
) -> Tensor:
    """Advantages standardised in each group, Eq. 7: [B, T].

        A_t = sum_{s>=t} gamma^(s-t) [r_s - mean_j mu_j] / (std_j mu_j + eps) + (outcome - mean) / (std + eps)

    Standard deviations have n - 1. Raises `PrimeError` too for a response alone in its group.
    """
    _check(process, outcome, mask)
    groups = Groups(group_ids, len(outcome)).at_least_two()
    terms = process
    if process is not None:
        means = _response_means(process, mask)
        scale = (groups.std(means) + eps).to(wide(process))
        terms = _minus(process, groups.mean(means)) / scale[:, None]
    standard = (exact(outcome) - groups.mean(outcome)) / (groups.std(outcome) + eps)
    return _returns(terms, outcome, standard, mask, gamma, outcome_gamma)


def reinforce_advantage(
    process: Tensor | None,
    outcome: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    outcome_gamma: float = 1.0,
) -> Tensor:
    """Returns without any baseline, Eq. 8: A_t = sum_{s>=t} gamma^(s-t) r_s + outcome: [B, T].

    With gamma 1 the process rewards are a shaping by the potential q: A_1 - A_t = q_{t-1} (section 2.6).
    """
    _check(process, outcome, mask)
    return _returns(process, outcome, outcome, mask, gamma, outcome_gamma)


def gae_advantage(
    process: Tensor | None,
    outcome: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    lam: float = 1.0,
) -> Tensor:
    """Generalised advantage estimation on the sum of process rewards and outcome (PPO): [B, T].

        A_t = sum_{s>=t} (gamma lam)^(s-t) [R_s + gamma V_{s+1} - V_s]

    with R_s the process reward, plus the outcome on the last token, and V = 0 after it. `values` [B, T] are
    the critic's before each token; the critic's target is advantages + values. Raises `PrimeError` too for a
    mask with a hole, where there is no next value.
    """
    _check(process, outcome, mask)
    check_tokens(values=values, mask=mask)
    check_gamma("gamma", gamma)
    check_gamma("lam", lam)
    inside = mask.bool()
    holes = (inside[:, 1:] & ~inside[:, :-1]).sum(dim=1) + inside[:, :1].sum(dim=1) > 1
    if holes.any():
        raise PrimeError(
            f"the mask of response {int(holes.nonzero()[0])} has a hole; GAE needs one run of tokens"
        )
    worth = masked(values, mask)
    errors = gamma * torch.nn.functional.pad(worth[:, 1:], (0, 1)) - worth
    if process is not None:
        errors = errors + masked(process, mask)
    at_last = torch.arange(mask.shape[1], device=mask.device) == _last(mask)[:, None]
    errors = errors + at_last * wide(outcome)[:, None]
    return masked(discounted_returns(masked(errors, mask), gamma * lam), mask)


def implicit_value_advantage(process: Tensor, outcome: Tensor, mask: Tensor) -> Tensor:
    """The implicit PRM as a value model, A_t = outcome - q_{t-1}, q the running sum of rewards: [B, T].

    The paper's ablation: here the process rewards are the baseline, and the outcome the only reward.
    """
    _check(process, outcome, mask)
    rewards = masked(process, mask)
    before = torch.nn.functional.pad(rewards.cumsum(-1), (1, 0))[:, :-1]
    return masked(wide(outcome)[:, None] - before, mask)


def _check(process: Tensor | None, outcome: Tensor, mask: Tensor) -> None:
    check_tokens(mask=mask) if process is None else check_tokens(process=process, mask=mask)
    if outcome.shape != mask.shape[:1]:
        raise PrimeError(
            f"outcome {list(outcome.shape)} must have one score for each of the mask's {len(mask)} responses"
        )


def _response_means(process: Tensor, mask: Tensor) -> Tensor:
    """mu [B] in float64 on the CPU."""
    return exact(masked(process, mask).sum(dim=1)) / exact(mask.bool().sum(dim=1).clamp(min=1))


def _minus(process: Tensor, baseline: Tensor) -> Tensor:
    """Process rewards [B, T] less a baseline a response [B]."""
    return wide(process) - baseline.to(wide(process))[:, None]


def _returns(
    terms: Tensor | None, outcome: Tensor, score: Tensor, mask: Tensor, gamma: float, outcome_gamma: float
) -> Tensor:
    """Discounted returns of the token terms [B, T] plus those of a score [B] on the last token."""
    check_gamma("gamma", gamma)
    check_gamma("outcome_gamma", outcome_gamma)
    dtypes = {outcome.dtype} if terms is None else {outcome.dtype, terms.dtype}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    returns = score.to(outcome.device, dtype)[:, None]
    if outcome_gamma != 1:
        positions = torch.arange(mask.shape[1])
        powers = (outcome_gamma ** exact(positions)).to(returns)
        returns = returns * powers[(_last(mask)[:, None] - positions.to(mask.device)).clamp(min=0)]
    if terms is not None:
        returns = returns + discounted_returns(masked(terms, mask), gamma)
    return masked(returns.expand(mask.shape), mask)


def _last(mask: Tensor) -> Tensor:
    """The position of each response's last token [B]; 0 for an empty one."""
    if not mask.shape[1]:
        return mask.new_zeros(len(mask), dtype=torch.long)
    return (mask.bool() * torch.arange(mask.shape[1], device=mask.device)).amax(dim=1)
