"""What a run leaves on disk: checkpoints that are whole or not there, its log, and a lock on its folder."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError

from implicit_prime.errors import PrimeError
from implicit_prime.learner import Learner, is_sharded
from implicit_prime.rollout.weights import base_model, whole_weights
from implicit_prm.pretrained import load_model

if TYPE_CHECKING:
    from accelerate import Accelerator

LOG = "metrics.jsonl"


def last_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint in a run's folder, or None; all that have the name are whole."""
    found = {int(path.name.rsplit("-", 1)[1]): path for path in Path(folder).glob("checkpoint-*[0-9]")}
    return found[max(found)] if found else None


def read_state(folder: Path) -> dict[str, Any]:
    """What a checkpoint tells of its run: state, settings, and the recipe, where there was one.

    Raises `PrimeError` if it is none.
    """
    try:
        told: dict[str, Any] = json.loads((folder / "state.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PrimeError(f"{folder} is no checkpoint of a PrimeTrainer: {error}") from error
    return told


def remove_run(folder: Path) -> None:
    """Remove the checkpoints and the models that a run left in its folder."""
    for path in folder.glob("checkpoint-*[0-9]"):
        shutil.rmtree(path, ignore_errors=True)
    remove_models(folder)


def remove_models(folder: Path) -> None:
    """Remove the models that a run left in its folder when it was over."""
    shutil.rmtree(folder / "final", ignore_errors=True)


class MainWriter:
    """Lets the main process alone write, and keeps its first failure, after which it writes no more.

    Between two writes all processes may meet to gather what is written next. An error that left one of them
    out of that would leave the others waiting.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._main = accelerator.is_main_process
        self.failure = ""

    def __call__(self, write: Callable[[], object]) -> None:
        """Call `write` on the main process, unless something could not be written before."""
        if not self._main or self.failure:
            return
        try:
            write()
        except (
            OSError,
            RuntimeError,
            SafetensorError,
        ) as error:  # a full disk, as Python, torch, safetensors say
            self.failure = f"{type(error).__name__}: {error}"


def write_whole(folder: Path, accelerator: Accelerator, fill: Callable[[Path, MainWriter], None]) -> None:
    """Let `fill` fill a folder beside `folder`, on all processes, and give it its name when all is on disk.

    What `fill` writes it gives to the `MainWriter`; what all processes gather it does outside of that.

    Raises `PrimeError`, on all processes, where something could not be written; what was there before stays.
    """
    beside = folder.with_name(f".{folder.name}.partial")
    put = MainWriter(accelerator)
    put(partial(_make_empty, beside))
    fill(beside, put)
    put(partial(_put_in_place, beside, folder))
    failures = [one for one in gather_object([put.failure]) if one]
    if failures and accelerator.is_main_process:
        shutil.rmtree(beside, ignore_errors=True)
    accelerator.wait_for_everyone()
    if failures:
        before = last_checkpoint(folder.parent)
        kept = f"{before.name} is whole: resume from it" if before else "there is no earlier one"
        raise PrimeError(f"{folder.name} could not be written ({failures[0]}); free some space; {kept}")


def save_weights(learner: Learner, folder: Path, put: MainWriter) -> None:
    """Save the model, or the learner's adapter of it, as `from_pretrained` reads it; all processes call."""
    model: Any = learner.model
    main = learner.accelerator.is_main_process
    if is_sharded(learner.accelerator):
        whole = {name: value.cpu() if main else None for name, value in whole_weights(model)}
        put(partial(cast(Any, base_model(model)).save_pretrained, folder, state_dict=whole))
    elif learner.adapter is not None:
        put(partial(_save_adapter, model, learner.adapter, folder))
    else:
        put(partial(model.save_pretrained, folder))


def _save_adapter(model: Any, adapter: str, folder: Path) -> None:
    model.save_pretrained(folder, selected_adapters=[adapter])
    if adapter != "default":
        _move_up(folder / adapter)


def _move_up(folder: Path) -> None:
    """Out of the folder that PEFT makes of an adapter's name; `from_pretrained` does not look into it."""
    for path in folder.iterdir():
        path.replace(folder.parent / path.name)
    folder.rmdir()


def load_weights(learner: Learner, folder: Path) -> None:
    """Take the weights back that `save_weights` wrote."""
    if learner.adapter is not None:
        from peft import load_peft_weights, set_peft_model_state_dict

        found = load_peft_weights(str(folder), device="cpu")
        set_peft_model_state_dict(learner.model, found, learner.adapter)
        return
    whole = load_model(str(folder)).state_dict()
    if is_sharded(learner.accelerator):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        set_model_state_dict(learner.model, whole, options=StateDictOptions(full_state_dict=True))
    else:
        learner.model.load_state_dict(whole)


def optimizer_state(learner: Learner) -> dict[str, Any]:
    """The optimiser's state, whole on the main process; all processes take part."""
    if not is_sharded(learner.accelerator):
        return learner.optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Any], get_optimizer_state_dict(learner.model, learner.optimizer, options=options))


def load_optimizer_state(learner: Learner, state: dict[str, Any]) -> None:
    """Take the state back that `optimizer_state` gave."""
    if not is_sharded(learner.accelerator):
        learner.optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(learner.model, learner.optimizer, state, options=options)


def random_states() -> dict[str, Any]:
    """The state of every random generator of this process, without an array: `torch.load` takes no NumPy."""
    name, keys, *rest = np.random.get_state()
    numpy_state = (name, np.asarray(keys).tolist(), *rest)
    states = {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def load_random_states(states: dict[str, Any]) -> None:
    """Take back what `random_states` gave."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def append_log(folder: Path, entry: dict[str, Any]) -> None:
    """Add a line to the run's log; NaN, which JSON has not, as null."""
    known = {key: None if value != value else value for key, value in entry.items()}
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(known) + "\n")


def cut_log(folder: Path, step: int) -> None:
    """Leave out what was logged after `step`, and what a kill cut in the middle."""
    path = folder / LOG
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["step"] <= step:
            kept.append(line + "\n")
    beside = path.with_suffix(".partial")
    beside.write_text("".join(kept), "utf-8")
    beside.replace(path)


@contextmanager
def locked(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Hold the folder for this run alone; the system lets go of it when the process ends, however it ends.

    Raises `PrimeError`, on all processes, if another run holds it.
    """
    held: list[str] = [""]
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        except BlockingIOError:
            file.seek(0)
            held = [f"process {file.read()}"]
    if accelerator.num_processes > 1:
        broadcast_object_list(held)
    try:
        if held[0]:
            raise PrimeError(
                f"another run ({held[0]}) writes to {folder}: give another output_dir, or end it"
            )
        yield
    finally:
        if accelerator.is_main_process:
            file.close()


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def _put_in_place(beside: Path, folder: Path) -> None:
    _flush(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)


def _flush(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
