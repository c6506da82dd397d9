"""Checkpoints of the official code (airsoul) as models of this package.

The official blocks around softmax attention, GSA and GLA are this package's own, so their weights are taken
as they are; rotary positions turn neighbouring pairs there and halves here, which is an order of the rows.
Blocks that airsoul takes whole from flash-linear-attention (DeltaNet, RWKV, Mamba) are other ones: refused.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnirl.errors import OmniRLError
from omnirl.model.config import CPU_MIXERS, NUM_PROMPTS, OmniRLConfig
from omnirl.model.layouts import parse_layout
from omnirl.model.modeling import OmniRL

State = dict[str, Tensor]

# What a checkpoint has besides weights: buffers, and a vector that discrete states never use.
_UNUSED = re.compile(r"loss_weight|mask_query|.*\battn_mask")
_BLOCK = re.compile(r"causal_model\.layers\.(?:temporal_module\.)?layers\.(\d+)\.(.+)")
_LAYOUTS = {
    "ptr": "podtawr",
    "pt": "podtaw",
    "p": "podaw",
    "r": "odawr",
    "tr": "odtawr",
    "t": "odtaw",
    "": "odaw",
}
"""airsoul's layouts by their optional tokens; "opdtawr" has to be said."""
_TABLES = {"o": "s", "a": "a", "p": "p", "t": "t", "r": "r"}
_NAMES = {"o": "states", "a": "actions", "p": "prompts", "t": "tags", "r": "rewards"}


def convert_airsoul_checkpoint(
    path: str | Path, out: str | Path, *, num_heads: int = 8, layout: str | None = None
) -> OmniRLConfig:
    """Write the model of an official checkpoint to the folder `out`, for `OmniRL.from_pretrained`.

    Args:
        path: a `.safetensors`, or what airsoul's trainer saved by `torch.save`; read with weights_only, so
            that no code in it runs.
        out: a folder that is not there yet.
        num_heads: `nhead` of its config, which the weights do not tell; 8 in the official one.
        layout: its `rsa_type`; by default the one with the tokens that it has.

    Raises `OmniRLError` for a file that is no such checkpoint and for parts that have no place here.
    """
    out = Path(out)
    if out.exists():
        raise OmniRLError(f"{out} is there already; use another folder")
    config, state = converted(read_checkpoint(path), num_heads, layout)
    if config.mixer in CPU_MIXERS:  # the others can only be built on a GPU
        try:
            OmniRL(config).load_state_dict(state)
        except RuntimeError as error:
            raise OmniRLError(f"the weights in {path} do not fit together: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        save_file(state, part / "model.safetensors")
        (part / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
        part.chmod(0o755)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return config


def read_checkpoint(path: str | Path) -> State:
    """The tensors of a checkpoint file by their official names, without the prefix of parallel training."""
    path = Path(path)
    found: Any
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise OmniRLError(f"{path}: there is no such file") from None
    except pickle.UnpicklingError as error:  # torch's own words advise to read it with its code
        raise OmniRLError(
            f"{path} cannot be read as a checkpoint: it is no file of torch.save, or holds more than tensors"
        ) from error
    except (OSError, RuntimeError, EOFError, SafetensorError) as error:
        raise OmniRLError(f"{path} cannot be read as a checkpoint: {error}") from error
    if isinstance(found, Mapping):
        found = found.get("metadict_models", found)
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise OmniRLError(f"{path} holds no state dict: needed are tensors by name")
    return {name.removeprefix("module."): value for name, value in found.items()}


def converted(
    official: Mapping[str, Tensor], num_heads: int = 8, layout: str | None = None
) -> tuple[OmniRLConfig, State]:
    """The config and the state dict of an `OmniRL` with these weights; see `convert_airsoul_checkpoint`."""
    source = _Source({name: value for name, value in official.items() if not _UNUSED.fullmatch(name)})
    blocks = source.blocks()
    mixer = _mixer(blocks[0])
    optional = "".join(t for t in "ptr" if f"{t}_encoder.encoder_layer.weight" in official)
    name = layout or _LAYOUTS[optional]
    tokens = parse_layout(name).tokens
    if set(tokens) - set("oa") != set(optional):
        raise OmniRLError(
            f"layout {name!r} does not fit: the checkpoint's steps have the tokens oa{optional}"
        )
    state = _embeddings(source, tokens)
    for number, block in enumerate(blocks):
        moved = _attention_block(block, num_heads) if mixer == "attention" else _fla_block(block)
        state |= {f"trunk.blocks.{number}.{key}": value for key, value in moved.items()}
        block.finish(f"block {number}")
    has_norm = "causal_model.layer_norm.weight" in source.left
    if has_norm:
        state |= source.layer("causal_model.layer_norm", "trunk.final_norm")
    actions = len(state["embedding.actions.weight"]) - 2
    state |= _head(source, "a_decoder", "policy_head", actions)  # the last logit there is the filler's
    state |= _head(source, "s_decoder", "state_head")
    if "r" in tokens:
        state |= _head(source, "r_decoder", "reward_head")
    source.finish("the checkpoint")
    config = OmniRLConfig(
        num_states=len(state["embedding.states.weight"]) - 1,
        num_actions=actions,
        hidden_size=state["embedding.kinds"].shape[1],
        num_layers=len(blocks),
        num_heads=num_heads,
        layout=name,
        mixer=mixer,
        intermediate_size=len(state["trunk.blocks.0.up_proj.weight"]),
        attention_bias=mixer == "attention",
        final_norm=has_norm,
    )
    return config, {key: value.contiguous().clone() for key, value in state.items()}


@dataclass
class _Source:
    """Official tensors that have not been taken yet."""

    left: State

    def take(self, name: str) -> Tensor:
        if name not in self.left:
            raise OmniRLError(
                f"the checkpoint has no {name}: it is no OmniRL of airsoul with discrete spaces"
            )
        return self.left.pop(name)

    def layer(self, name: str, ours: str) -> State:
        return {f"{ours}.{part}": self.take(f"{name}.{part}") for part in ("weight", "bias")}

    def blocks(self) -> list[_Source]:
        found: dict[int, State] = {}
        for name in list(self.left):
            if matched := _BLOCK.fullmatch(name):
                found.setdefault(int(matched[1]), {})[matched[2]] = self.left.pop(name)
        if sorted(found) != list(range(len(found))) or not found:
            raise OmniRLError("the checkpoint has no causal_model.layers.*: it is no OmniRL of airsoul")
        return [_Source(found[number]) for number in range(len(found))]

    def finish(self, where: str) -> None:
        if self.left:
            raise OmniRLError(f"{where} has {next(iter(self.left))}, which has no place in this model")


def _mixer(block: _Source) -> str:
    names = " ".join(block.left)
    if "self_attn." in names:
        return "attention"
    if "temporal_encoder.encoder.f_proj" in names:
        return "gsa"
    if "temporal_encoder.encoder.gk_proj" in names:
        return "gla"
    raise OmniRLError(
        "the checkpoint's blocks are none of those that can be taken over, attention, GSA and GLA; they "
        f"begin with {next(iter(block.left))}"
    )


def _embeddings(source: _Source, tokens: str) -> State:
    state = {"embedding.kinds": source.take("type_query")[0, 0]}
    for token in tokens:
        official = f"{_TABLES[token]}_encoder.encoder_layer"
        weight = source.take(f"{official}.weight")
        # later official code has one reference; of its eight prompts the first four mean opt0 to opt3
        state[f"embedding.{_NAMES[token]}.weight"] = weight[:NUM_PROMPTS] if token == "p" else weight
        if token == "r":
            state["embedding.rewards.bias"] = source.take(f"{official}.bias")
    return state


def _shell(block: _Source) -> State:
    """Norms and feed-forward, which all blocks have alike."""
    names = {"norm1": "mixer_norm", "norm2": "norm", "linear1": "up_proj", "linear2": "down_proj"}
    return {key: value for name, ours in names.items() for key, value in block.layer(name, ours).items()}


def _attention_block(block: _Source, num_heads: int) -> State:
    q, k, v = (block.take(f"self_attn.{name}layer.weight") for name in "qkv")
    if len(q) % (2 * num_heads):
        raise OmniRLError(f"num_heads is {num_heads}, which does not go into a width of {len(q)}")
    qkv = torch.cat((_halves(q, num_heads), _halves(k, num_heads), v))
    out = block.layer("self_attn.att_proj_linear", "mixer.o_proj")
    return {"mixer.qkv_proj.weight": qkv, **out, **_shell(block)}


def _halves(weight: Tensor, num_heads: int) -> Tensor:
    """Rows (2i, 2i + 1) of each head become rows (i, i + D/2)."""
    pairs = weight.view(num_heads, -1, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _fla_block(block: _Source) -> State:
    inner = "temporal_encoder.encoder."
    names = [name for name in block.left if name.startswith(inner)]
    moved = {f"mixer.layer.{name.removeprefix(inner)}": block.take(name) for name in names}
    return moved | _shell(block)


def _head(source: _Source, official: str, ours: str, size: int | None = None) -> State:
    names = {"layer_norm": "norm", "decoder_pre.0": "up_proj", "decoder_pre.3": "down_proj"}
    layers: Iterable[State] = (
        source.layer(f"{official}.{name}", f"{ours}.{own}") for name, own in names.items()
    )
    state = {key: value for layer in layers for key, value in layer.items()}
    last = source.layer(f"{official}.decoder_post", f"{ours}.out_proj")
    return state | {key: value[:size] for key, value in last.items()}
