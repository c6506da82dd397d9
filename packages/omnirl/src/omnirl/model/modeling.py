"""OmniRL: a model that learns a task inside its context (section 2.5).

`forward` reads whole histories at once, for training and demonstrations. `policy` and `commit` go one step at
a time: `policy` reads the state and says what to do, `commit` adds what was done and what came of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnirl.errors import MissingExtraError, OmniRLError
from omnirl.model.attention import Context, grow, look_back
from omnirl.model.config import NUM_PROMPTS, NUM_TAGS, OmniRLConfig, read_model_config
from omnirl.model.embeddings import FusedEmbedding, History, StarEmbedding, shift, start_of_history
from omnirl.model.heads import Head
from omnirl.model.layouts import FUSED, parse_layout
from omnirl.model.memory import Memory, check_memory, fingerprint
from omnirl.model.trunk import Trunk

try:
    from huggingface_hub import PyTorchModelHubMixin, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from safetensors import SafetensorError
    from safetensors.torch import load_file
except ImportError as error:  # torch alone is not enough
    raise MissingExtraError("models need the extra: pip install 'omnirl-icrl[train]'") from error

BUNDLED = {"omnirl/mini": "mini"}
_FILES = ("config.json", "model.safetensors")
_FIRST_PLACES = 64  # of a cache that grows step by step


@dataclass
class OmniRLOutput:
    """`policy_logits` (B, T, A); with a world model `next_state_logits` (B, T, n) and `reward` (B, T)."""

    policy_logits: Tensor
    next_state_logits: Tensor | None
    reward: Tensor | None
    memory: Memory


class OmniRL(nn.Module, PyTorchModelHubMixin, library_name="omnirl", tags=["in-context-rl"]):
    """The model. `OmniRL.from_pretrained("omnirl/mini")` is the one that comes with the package.

    A step of a history is (state s, tag g, action a, reward r); the filler step that ends an episode has
    action A. The policy at step t has seen s_t and everything of the steps before, not g_t, a_t or r_t.
    """

    def __init__(self, config: OmniRLConfig | Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config if isinstance(config, OmniRLConfig) else OmniRLConfig.from_dict(config)
        config = self.config
        self.layout = parse_layout(config.layout)
        self.fused = config.layout == FUSED
        self.embedding = FusedEmbedding(config) if self.fused else StarEmbedding(config, self.layout)
        self.trunk = Trunk(config)
        self.policy_head = Head(config.hidden_size, config.num_actions)
        if config.has_world_model:
            self.state_head = Head(config.hidden_size, config.num_states)
            if "r" in self.layout.tokens:
                self.reward_head = Head(config.hidden_size, 1)

    def forward(
        self,
        observations: Tensor,
        tags: Tensor,
        actions: Tensor,
        rewards: Tensor,
        memory: Memory | None = None,
        prompts: Tensor | None = None,
    ) -> OmniRLOutput:
        """Read T steps of B histories that go on from `memory`, or begin.

        observations, tags, actions (B, T) int64, rewards (B, T) float32; `prompts` (B, T), by default 3, for
        layouts that have them. In training mode `hide_states` comes first. The memory that comes back is a
        new one, and part of the graph.

        Raises `OmniRLError` for ids out of range (checked on the CPU only) and for a memory of another model
        or batch size.
        """
        return self.read(self.hide_states(observations), tags, actions, rewards, memory, prompts)

    def hide_states(self, observations: Tensor) -> Tensor:
        """In training mode, replace each id by the reserved one with probability `state_dropout`."""
        self._history(observations=observations)
        if not (self.training and self.config.state_dropout):
            return observations
        hidden = torch.rand(observations.shape, device=observations.device) < self.config.state_dropout
        return observations.masked_fill(hidden, self.config.num_states)

    def read(
        self,
        observations: Tensor,
        tags: Tensor,
        actions: Tensor,
        rewards: Tensor,
        memory: Memory | None = None,
        prompts: Tensor | None = None,
    ) -> OmniRLOutput:
        """`forward` that hides nothing itself; the reserved state id `num_states` is a hidden state."""
        history = self._history(observations, tags, actions, rewards, prompts, reserved=1)
        batch, length = observations.shape
        memory = self._memory(memory, batch)
        after = dict(memory)
        if self.fused:
            before, after["last"] = shift(history, memory["last"])
            tokens = self.embedding(history["observations"], before)
        else:
            tokens = self.embedding(history)
        hidden = self._mix(tokens, after, in_place=False)
        hidden = hidden.view(batch, length, self.layout.size, -1)
        states, reward = (
            self._world(hidden[:, :, self.layout.world_slot]) if self._has_world else (None, None)
        )
        return OmniRLOutput(self.policy_head(hidden[:, :, self.layout.policy_slot]), states, reward, after)

    @torch.no_grad()
    def policy(
        self, observations: Tensor, memory: Memory | None = None, prompts: Tensor | None = None
    ) -> tuple[Tensor, Memory]:
        """The policy's logits (B, A) in the states `observations` (B,), and the memory for `commit`.

        `memory` itself is as good as before, so `policy` may be asked again with other states.
        """
        history = self._history(observations=observations, prompts=prompts)
        memory = self._memory(memory, len(observations))
        if "open" in memory:
            raise OmniRLError("this memory waits for an action; give it to `commit` first")
        after = self._with_free_places(memory)
        columns = {key: value[:, None] for key, value in history.items()}
        if self.fused:
            before = {key: value[:, None] for key, value in memory["last"].items()}
            tokens = self.embedding(columns["observations"], before)
        else:
            tokens = self.embedding(columns, slice(0, self.layout.policy_slot + 1))
        hidden = self._mix(tokens, after, in_place=True)
        after["open"] = observations
        return self.policy_head(hidden[:, -1]), after

    @torch.no_grad()
    def commit(self, memory: Memory, tags: Tensor, actions: Tensor, rewards: Tensor) -> Memory:
        """The memory after the step that `policy` began: `tags`, `actions` and `rewards`, each (B,)."""
        return self._commit(memory, tags, actions, rewards)[0]

    @torch.no_grad()
    def step(
        self,
        observations: Tensor,
        tags: Tensor,
        actions: Tensor,
        rewards: Tensor,
        memory: Memory | None = None,
        prompts: Tensor | None = None,
    ) -> OmniRLOutput:
        """`forward` for one step, all arrays (B,) and no T in the output: `policy`, then `commit`."""
        logits, memory = self.policy(observations, memory, prompts)
        memory, world = self._commit(memory, tags, actions, rewards)
        states, reward = self._world(world) if world is not None else (None, None)
        return OmniRLOutput(logits, states, reward, memory)

    def empty_memory(self, batch_size: int) -> Memory:
        """The memory of `batch_size` histories that have not begun."""
        device = self.device
        memory: Memory = {
            "tokens": torch.zeros(batch_size, dtype=torch.int64, device=device),
            "config": torch.tensor(fingerprint(self.config)),
            "layers": self.trunk.empty_memory(batch_size),
        }
        if self.config.mixer == "attention":
            memory["used"] = torch.tensor(0)
        if self.fused:
            memory["last"] = start_of_history(self.config, batch_size, device)
        return memory

    def reset_rows(self, memory: Memory, rows: Tensor) -> Memory:
        """The memory with the histories `rows` (B,) bool emptied and the others untouched."""
        empty = self.empty_memory(len(rows))

        def emptied(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(rows.view(-1, *[1] * (old.dim() - 1)), new, old)

        after = {**memory, "tokens": emptied(memory["tokens"], empty["tokens"])}
        if self.fused:
            after["last"] = {key: emptied(memory["last"][key], empty["last"][key]) for key in empty["last"]}
        if "used" not in memory:  # the keys of a row without tokens are not looked at
            after["layers"] = [  # every recurrent mixer begins with zeros
                {key: emptied(state, torch.zeros_like(state)) for key, state in layer.items()}
                for layer in memory["layers"]
            ]
        return after

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.policy_head.out_proj.weight.device

    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> OmniRL:
        """Load "omnirl/mini" (in the package), a folder with config.json and model.safetensors, or a hub id.

        The model is in evaluation mode. Raises `OmniRLError` when there is no such folder and the hub cannot
        be asked, for files that are damaged and for weights that do not fit the config.
        """
        name = str(pretrained_model_name_or_path)
        if name in BUNDLED:
            folder = Path(str(files("omnirl"))) / "weights" / BUNDLED[name]
            if not folder.is_dir():
                raise OmniRLError(
                    f"this installation has no weights of {name}. `omnirl reproduce` trains a model in some "
                    "minutes and keeps it in results/omnirl/quick/models; pass its folder"
                )
        else:
            folder = Path(name)
        if not folder.is_dir():
            try:
                folder = Path(snapshot_download(name, allow_patterns=list(_FILES), **kwargs))
            except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
                raise OmniRLError(
                    f"there is no folder {name!r}, and the Hugging Face hub does not give it either "
                    f"({type(error).__name__}); pass a folder's path, or 'omnirl/mini', which needs no net"
                ) from error
        return cls._from_folder(folder)

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        text = json.dumps(self.config.to_dict(), indent=2) + "\n"
        (save_directory / "config.json").write_text(text)

    @classmethod
    def _from_folder(cls, folder: Path) -> OmniRL:
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise OmniRLError(f"{folder} is no model: it has no {' and no '.join(missing)}")
        model = cls(read_model_config(folder))
        try:
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except SafetensorError as error:
            raise OmniRLError(f"{folder / 'model.safetensors'} is damaged: {error}") from error
        except RuntimeError as error:
            raise OmniRLError(f"the weights in {folder} do not fit its config.json: {error}") from error
        return model.eval()

    @property
    def _has_world(self) -> bool:
        return self.config.has_world_model

    def _world(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        reward = self.reward_head(hidden)[..., 0] if "r" in self.layout.tokens else None
        return self.state_head(hidden), reward

    def _commit(
        self, memory: Memory, tags: Tensor, actions: Tensor, rewards: Tensor
    ) -> tuple[Memory, Tensor | None]:
        history = self._history(tags=tags, actions=actions, rewards=rewards)
        if "open" not in memory:
            raise OmniRLError("nothing to commit: ask `policy` first and pass on the memory that it returns")
        check_memory(memory, self.config, len(tags))
        after = {key: value for key, value in memory.items() if key != "open"}
        if self.fused:  # the token of this step is in the memory; its action belongs to the next token
            after["last"] = {**history, "observations": memory["open"]}
            return after, None
        rest = slice(self.layout.policy_slot + 1, None)
        tokens = self.embedding({key: value[:, None] for key, value in history.items()}, rest)
        hidden = self._mix(tokens, after, in_place=True)
        if not self._has_world:
            return after, None
        assert self.layout.world_slot is not None
        return after, hidden[:, self.layout.world_slot - self.layout.policy_slot - 1]

    def _mix(self, tokens: Tensor, memory: Memory, *, in_place: bool) -> Tensor:
        """Run the trunk and bring `memory` (a dict of our own) up to date."""
        length, window, used = tokens.shape[1], self._window, int(memory.get("used", 0))
        positions = memory["tokens"][:, None] + torch.arange(length, device=tokens.device)
        mask = look_back(memory["tokens"], used, length, window) if "used" in memory else None
        context = Context(used, mask, positions, in_place)
        hidden, layers = self.trunk(tokens, memory["layers"], context)
        if "used" in memory:
            used += length
            if window is not None and not in_place and used > window:
                layers = [
                    {key: cache[:, :, used - window : used] for key, cache in layer.items()}
                    for layer in layers
                ]
                used = window
            memory["used"] = torch.tensor(used)
        memory["layers"], memory["tokens"] = layers, memory["tokens"] + length
        return hidden

    @property
    def _window(self) -> int | None:
        return None if self.config.window is None else self.config.window * self.layout.size

    def _with_free_places(self, memory: Memory) -> Memory:
        """A memory whose caches have room for one more step; itself where there is room."""
        after = dict(memory)
        if "used" not in memory:
            return after
        used, places = int(memory["used"]), memory["layers"][0]["keys"].shape[2]
        if used + self.layout.size > places:
            kept = min(used, int(memory["tokens"].max()))  # what lies before belongs to no row
            kept = kept if self._window is None else min(kept, self._window)
            capacity = max(_FIRST_PLACES, 2 * kept + self.layout.size)
            after["layers"] = [grow(layer, used, kept, capacity) for layer in memory["layers"]]
            after["used"] = torch.tensor(kept)
        return after

    def _memory(self, memory: Memory | None, batch_size: int) -> Memory:
        if memory is None:
            return self.empty_memory(batch_size)
        check_memory(memory, self.config, batch_size)
        return memory

    def _history(self, *arrays: Tensor | None, reserved: int = 0, **named: Tensor | None) -> History:
        """The given arrays by name; on the CPU their ids are checked."""
        names = ("observations", "tags", "actions", "rewards", "prompts")
        given = {**dict(zip(names, arrays, strict=False)), **named}
        if "p" in self.layout.tokens and "observations" in given and given.get("prompts") is None:
            given["prompts"] = torch.full_like(given["observations"], NUM_PROMPTS - 1)  # type: ignore[arg-type]
        history = {key: value for key, value in given.items() if value is not None}
        shapes = {key: tuple(value.shape) for key, value in history.items()}
        if len(set(shapes.values())) > 1:
            raise OmniRLError(f"the arrays of a history differ in shape: {shapes}")
        limits = {
            "observations": self.config.num_states + reserved,
            "tags": NUM_TAGS,
            "actions": self.config.num_actions + 1,
            "prompts": NUM_PROMPTS,
        }
        for key, limit in limits.items():
            if key in history and history[key].device.type == "cpu":
                check_ids(key, history[key], limit)
        return history


def check_ids(key: str, ids: Tensor, limit: int) -> None:
    """Raise `OmniRLError` unless the `ids` (...), called `key` in its message, are 0 to `limit` - 1."""
    if not ids.numel():
        return
    low, high = (int(bound) for bound in ids.aminmax())
    if low < 0 or high >= limit:
        hint = (
            "; discretise the observations or use a model with more states" if key == "observations" else ""
        )
        raise OmniRLError(f"{key} has id {low if low < 0 else high}; this model knows 0 to {limit - 1}{hint}")
