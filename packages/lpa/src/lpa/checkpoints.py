"""Checkpoints on disk: written whole or not at all, their ranks checked, loaded also without the plug-in."""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from lpa.errors import LPAError, LPAWarning
from lpa.layers import LowRankLinear

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def save_pretrained(model: PreTrainedModel, folder: str | os.PathLike[str], **settings: Any) -> None:
    """`model.save_pretrained(folder, **settings)`, so that an interruption or a full disk breaks nothing.

    All files are first written beside `folder`; a save that fails there leaves an earlier checkpoint as it
    was. Then they are moved into it, the weights first, and only then are earlier ones of other names
    removed. Files that a model does not have (a tokenizer's) stay.
    """
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
        written = Path(name)
        model.save_pretrained(written, **settings)
        files = {file.name: file for file in written.iterdir()}
        for file in files.values():
            _flush(file)
        target.mkdir(exist_ok=True)
        # The index says which weights are read, so it comes after the new ones and goes before the old ones.
        for name in sorted(files, key=lambda name: (name == "config.json", name == INDEX)):
            files[name].replace(target / name)
        for old in sorted(target.glob("model*.safetensors*"), key=lambda file: file.suffix == ".safetensors"):
            if old.name not in files:
                old.unlink()


def _flush(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def from_pretrained(
    path: str | os.PathLike[str], *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """Load a low-rank causal language model from a folder or the hub without transformers' plug-in.

    `AutoModelForCausalLM.from_pretrained` does the same and more (device maps, parallel plans); this one asks
    nothing of it but that a model can be built from a config, for versions of transformers in which plug-ins
    work otherwise. Weights are loaded as saved, or in `dtype`; the model is in evaluation mode.

    Raises `LPAError` if the folder has no low-rank model, or weights that its config does not describe.
    """
    from lpa.hf import recorded_config
    from lpa.surgery import apply_lpa

    folder = Path(path) if Path(path).is_dir() else Path(snapshot_download(str(path)))
    config = AutoConfig.from_pretrained(folder)
    lpa = recorded_config(config)
    if lpa is None:
        raise LPAError(
            f"{path} has no low-rank model: config.json has no LPA config under quantization_config. "
            "Load it by AutoModelForCausalLM.from_pretrained"
        )
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=dtype or config.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LPAWarning)  # said when the model was made
        apply_lpa(model, lpa)
    files = weight_files(folder)
    check_ranks(model, files)
    state = {name: values for file in files for name, values in load_file(file).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if name not in model.all_tied_weights_keys]
    if missing or unexpected:
        raise LPAError(
            f"the weights in {folder} do not fit its config.json: missing {missing or 'none'}, "
            f"not in the model {unexpected or 'none'}"
        )
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.to(device).eval()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint. Raises `LPAError` if there are none."""
    if (folder / INDEX).exists():
        names = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / name for name in sorted(names)]
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    raise LPAError(f"{folder} has neither {WEIGHTS} nor {INDEX}: was its save interrupted?")


def check_ranks(model: nn.Module, files: Iterable[str | os.PathLike[str]]) -> None:
    """Raise `LPAError` if a checkpoint's factors have other ranks than the model made from its config."""
    stored = _stored_ranks(files)
    for name, module in model.named_modules():
        if not isinstance(module, LowRankLinear):
            continue
        # A checkpoint of the whole model may be read into its inner one, and the other way round.
        rank = next((found for key, found in stored.items() if _same_layer(key, name)), module.rank)
        if rank != module.rank:
            raise LPAError(
                f"{name} has rank {rank} in the checkpoint and rank {module.rank} by the LPA config. Correct "
                "the config (config.json, quantization_config), or load the checkpoint it belongs to"
            )


def check_complete(model: nn.Module, files: Iterable[str | os.PathLike[str]]) -> None:
    """Raise `LPAError` if a factor of the model is in none of a checkpoint's safetensors files.

    Nothing else would give it values. Names are compared from the layer's number on: families may write
    what comes before it in another way than their modules have it.
    """
    keys = _keys(files)
    if not keys:
        return  # in another format, or given as a state dict
    stored = {_from_layer(key) for key in keys}
    factors: dict[int, str] = {}  # an A that q, k and v share is stored once
    for name, module in model.named_modules():
        if isinstance(module, LowRankLinear):
            for factor in ("down", "up"):
                factors.setdefault(id(getattr(module, factor).weight), f"{name}.{factor}.weight")
    missing = [
        name
        for name in factors.values()
        if _from_layer(name) not in stored and not any(_same_layer(key, name) for key in keys)
    ]
    if missing:
        raise LPAError(
            f"the checkpoint lacks {len(missing)} of the {len(factors)} factors that its LPA config says, "
            f"first {missing[0]}. Its weights and its config.json (quantization_config) are of two models: "
            "take that key out if the weights are dense, or save the model again"
        )


def _keys(files: Iterable[str | os.PathLike[str]]) -> list[str]:
    keys: list[str] = []
    for file in files:
        if str(file).endswith(".safetensors"):
            with safe_open(file, framework="pt") as tensors:
                keys += tensors.keys()
    return keys


def _from_layer(name: str) -> str:
    """The name from its layer's number on; all of it where it has none."""
    return re.sub(r"^.*?(?=\b\d+\.)", "", name)


def _stored_ranks(files: Iterable[str | os.PathLike[str]]) -> dict[str, int]:
    ranks = {}
    for file in files:
        if not str(file).endswith(".safetensors"):
            continue
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  # not a dict
                if key.endswith(".down.weight"):
                    ranks[key.removesuffix(".down.weight")] = tensors.get_slice(key).get_shape()[0]
    return ranks


def _same_layer(key: str, name: str) -> bool:
    return key == name or key.endswith(f".{name}") or name.endswith(f".{key}")
