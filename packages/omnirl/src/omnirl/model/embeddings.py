"""From the history's ids and rewards to the tokens of the trunk (section 2.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omnirl.model.config import NUM_PROMPTS, NUM_TAGS, OmniRLConfig
from omnirl.model.layouts import Layout

History = dict[str, Tensor]  # observations, tags, actions, rewards (B, T), prompts where the layout has them


class StarEmbedding(nn.Module):
    """One token for each part of a step, plus a learned vector for the kind of part. Tables are N(0, 1).

    The last state id, `num_states`, stands for a hidden state, action A for the filler step and A + 1 for
    "not yet chosen".
    """

    def __init__(self, config: OmniRLConfig, layout: Layout) -> None:
        super().__init__()
        width = config.hidden_size
        self.tokens = layout.tokens
        self.states = nn.Embedding(config.num_states + 1, width)
        self.actions = nn.Embedding(config.num_actions + 2, width)
        if "t" in self.tokens:
            self.tags = nn.Embedding(NUM_TAGS, width)
        if "p" in self.tokens:
            self.prompts = nn.Embedding(NUM_PROMPTS, width)
        if "r" in self.tokens:
            self.rewards = nn.Linear(1, width)
        self.kinds = nn.Parameter(torch.randn(len(self.tokens), width))

    def forward(self, history: History, slots: slice = slice(None)) -> Tensor:
        """Tokens (B, T * slots, hidden) of the parts `slots` of each step."""
        parts = [self._part(kind, history) for kind in self.tokens[slots]]
        tokens = torch.stack(parts, dim=2) + self.kinds[slots]
        return tokens.flatten(1, 2)

    def _part(self, kind: str, history: History) -> Tensor:
        if kind == "r":
            rewards: Tensor = self.rewards(history["rewards"].to(self.kinds.dtype)[..., None])
            return rewards
        table, key = {
            "o": ("states", "observations"),
            "t": ("tags", "tags"),
            "a": ("actions", "actions"),
            "p": ("prompts", "prompts"),
        }[kind]
        part: Tensor = self.get_submodule(table)(history[key])
        return part


class FusedEmbedding(nn.Module):
    """One token a step: this state, and state, action, tag and reward of the step before.

        token_t = E_s[s_t] + E_prev[s_{t-1}] + E_a[a_{t-1}] + E_g[g_{t-1}] + W φ(r_{t-1})

    The first token's step before has state n_max, action A + 1, tag 8 and reward 0. States are drawn from
    N(0, 0.6²), the other tables from N(0, 0.3²).
    """

    def __init__(self, config: OmniRLConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.states = nn.Embedding(config.num_states + 1, width)
        self.last_states = nn.Embedding(config.num_states + 1, width)
        self.actions = nn.Embedding(config.num_actions + 2, width)
        self.tags = nn.Embedding(NUM_TAGS + 1, width)
        self.rewards = nn.Linear(4, width)
        for table, deviation in (
            (self.states, 0.6),
            (self.last_states, 0.6),
            (self.actions, 0.3),
            (self.tags, 0.3),
        ):
            nn.init.normal_(table.weight, std=deviation)

    def forward(self, observations: Tensor, last: History) -> Tensor:
        """Tokens (B, T, hidden); `last` holds the steps before, observations to rewards, each (B, T)."""
        features = reward_features(last["rewards"].to(self.rewards.weight.dtype))
        tokens: Tensor = self.states(observations) + self.last_states(last["observations"])
        return tokens + self.actions(last["actions"]) + self.tags(last["tags"]) + self.rewards(features)


def reward_features(rewards: Tensor) -> Tensor:
    """φ(r) (..., 4): [clip(r, ±10) / 5, sign(r) log(1 + |r|), tanh 3r, sign(r) [|r| > 2]]."""
    size, sign = rewards.abs(), rewards.sign()
    large = sign * (size > 2)
    return torch.stack((rewards.clamp(-10, 10) / 5, sign * size.log1p(), (3 * rewards).tanh(), large), dim=-1)


def start_of_history(config: OmniRLConfig, batch_size: int, device: torch.device) -> History:
    """The step before the first one, as `FusedEmbedding` wants it, each (B,)."""
    ids = {"observations": config.num_states, "tags": NUM_TAGS, "actions": config.num_actions + 1}
    start = {key: torch.full((batch_size,), value, device=device) for key, value in ids.items()}
    return {**start, "rewards": torch.zeros(batch_size, device=device)}


def shift(history: History, last: History) -> tuple[History, History]:
    """The steps before each step (B, T), and the last step itself (B,), from `last`, the step before all."""
    before = {key: torch.cat((last[key][:, None], history[key][:, :-1]), dim=1) for key in last}
    return before, {key: history[key][:, -1] for key in last}
