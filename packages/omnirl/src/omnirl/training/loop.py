"""The training loop: resumes bit for bit, steps over numbers that are not finite, stops well when told to."""

from __future__ import annotations

import contextlib
import inspect
import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnirl.data.dataset_stream import DatasetStream
from omnirl.data.stream import TaskStream
from omnirl.errors import OmniRLError, TrainingError
from omnirl.model.config import check_keys
from omnirl.model.modeling import OmniRL
from omnirl.training.checkpoints import LAST, load_state, save_state
from omnirl.training.config import TrainConfig
from omnirl.training.distributed import Processes
from omnirl.training.optimizers import make_optimizers, set_rate
from omnirl.training.segments import Batch, LossPlan, batch_gradients

METRICS = "metrics.jsonl"
COLUMNS = ("observations", "tags", "actions", "labels", "rewards")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Progress:
    """Where a run is. `on_update` gets it after every update."""

    model: OmniRL
    update: int = 0
    steps: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0
    loss: float = float("nan")
    terms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gradient_norm: float = float("nan")
    rate: float = 0.0


@dataclass(frozen=True)
class TrainResult:
    """The trained model, in evaluation mode, and the folder that holds it as `model/`."""

    model: OmniRL
    folder: Path
    updates: int
    steps: int
    skipped: int
    seconds: float


def train(
    config: TrainConfig | str | Path,
    batches: Iterable[Mapping[str, Any]] | None = None,
    *,
    resume: bool = True,
    on_update: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Meta-train a model (sections 2.7 and 6.2); `config` may be a TOML file.

    `batches` are dictionaries of `observations, tags, actions, labels` (B, T) integers and `rewards` (B, T),
    and perhaps `targets` (B, T, A), arrays or tensors; longer ones than `config.length(update)` are cut. By
    default they come from `omnirl.data.TaskStream(**config.data)`, or from the data set on disk where
    `config.data` has a `folder`: `omnirl.data.DatasetStream`. With `resume` the run goes on from `out`
    and ends with the same bits as one that was never stopped (on a CPU); the batches already used are passed
    over, by `batches.seek(update)` where there is such a method. Without `resume`, or where `out` has no
    checkpoint, the run begins anew and replaces the checkpoint and metrics in `out`. SIGINT and SIGTERM write
    a checkpoint, then do what they do; of several processes in all, whichever was told.

    Raises `OmniRLError` for a config that does not fit the checkpoint or the batches, `TrainingError` after
    `max_bad_updates` updates in a row that are not finite.
    """
    if not isinstance(config, TrainConfig):
        config = TrainConfig.from_toml(config)
    with torch.random.fork_rng(devices=[]), _threads(config), _Interrupts() as interrupts:
        run = _Run(config, Processes(config.device))
        if resume:
            run.restore()
        run.load_initial()
        if batches is None:
            batches = _stream(config, run.processes)
        return run.finish(run.go(_after(batches, run.progress.update), interrupts, on_update))


@dataclass
class _Run:
    config: TrainConfig
    processes: Processes
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(self.config.seed)
        device = self.processes.device(self.config.device)
        model = OmniRL(self.config.model).to(device).train()
        self.progress = Progress(model)
        self.optimizers = make_optimizers(model, self.config)
        self.folder = Path(self.config.out)
        self.folder.mkdir(parents=True, exist_ok=True)

    def load_initial(self) -> None:
        """Begin with the weights of `initial`, where this is the beginning and the config has it."""
        name = self.config.initial
        if name is None or self.progress.update:
            return
        given, ours = OmniRL.from_pretrained(name), self.config.model.to_dict()
        for key, value in given.config.to_dict().items():
            if ours[key] != value:
                raise OmniRLError(f"the model of initial {name!r} has {key} {value!r}, not {ours[key]!r}")
        self.progress.model.load_state_dict(given.state_dict())

    def go(
        self, batches: Iterator[Mapping[str, Any]], interrupts: _Interrupts, report: Callable | None
    ) -> float:
        """Update until done; returns the seconds that took."""
        config, progress = self.config, self.progress
        begin = saved = time.monotonic()
        if not progress.update:
            self._write(self._begin_anew)
        while progress.update < config.updates:
            batch = self._batch(next(batches, None))
            self._update(batch, interrupts)
            if progress.update % config.log_every == 0 or progress.update == config.updates:
                self._log(time.monotonic() - begin)
            if report is not None:
                report(progress)
            if progress.bad_in_a_row >= config.max_bad_updates:
                raise TrainingError(self._gone_bad())
            if self.processes.count == 1:  # nobody else to wait for: a signal that came since counts too
                interrupts.agree(interrupts.told())
            due = time.monotonic() - saved > 60 * config.checkpoint_minutes
            if interrupts.agreed or (due and not progress.bad_in_a_row):
                self.save()
                saved = time.monotonic()
            if interrupts.agreed:
                self.processes.wait()  # for the checkpoint, which the first process writes
                interrupts.obey()
        return time.monotonic() - begin

    def finish(self, seconds: float) -> TrainResult:
        """Write the checkpoint and the model."""
        self.save()
        model, progress = self.progress.model.eval(), self.progress
        self._write(model.save_pretrained, self.folder / "model")
        self.processes.wait()
        return TrainResult(model, self.folder, progress.update, progress.steps, progress.skipped, seconds)

    def save(self) -> None:
        """Everything that the next update depends on."""
        progress = self.progress
        state = {
            "config": self._fixed(),
            "model": progress.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counts": [progress.update, progress.steps, progress.skipped, progress.bad_in_a_row],
        }
        self._write(save_state, self.folder, state)

    def restore(self) -> None:
        """Go on from the last checkpoint, where there is one."""
        state = load_state(self.folder)
        if state is None:
            return
        changed = [key for key, value in self._fixed().items() if state["config"].get(key) != value]
        if changed:
            key = changed[0]
            raise OmniRLError(
                f"{self.folder / LAST} was made with {key} = {state['config'].get(key)!r}, not "
                f"{self._fixed()[key]!r}; give another `out`, or resume=False to begin anew"
            )
        progress = self.progress
        progress.model.load_state_dict(state["model"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        progress.update, progress.steps, progress.skipped, progress.bad_in_a_row = state["counts"]
        self._write(self._cut_metrics)

    def _update(self, batch: Batch, interrupts: _Interrupts) -> None:
        config, progress, model = self.config, self.progress, self.progress.model
        torch.manual_seed(_seed(config.seed, self.processes.rank, progress.update))  # what is hidden, dropped
        warmup, segment = config.context_warmup, config.segment
        plan = LossPlan.of(
            batch, config.model.num_actions, config.loss_weights, warmup, segment, config.precision
        )
        policy, world = self.processes.total([plan.policy_total, plan.world_total])
        plan = replace(plan, policy_total=policy, world_total=world)
        gradients, terms = batch_gradients(model, batch, plan, config.threads)
        told = interrupts.told().to(terms.device)
        *gradients, terms, told = self.processes.total([*gradients, terms, told])
        interrupts.agree(told)
        norm = torch.nn.utils.get_total_norm(gradients)
        loss = sum(weight * term for weight, term in zip(config.loss_weights, terms.tolist(), strict=True))
        progress.rate = config.rate(progress.update)
        progress.update += 1
        progress.steps += batch["labels"].numel() * self.processes.count
        progress.loss, progress.terms, progress.gradient_norm = loss, tuple(terms.tolist()), float(norm)
        if not (torch.isfinite(norm) and abs(loss) < float("inf")):
            progress.skipped += 1
            progress.bad_in_a_row += 1
            return
        progress.bad_in_a_row = 0
        torch._foreach_mul_(gradients, float((config.clip / (norm + 1e-6)).clamp(max=1.0)))
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        set_rate(self.optimizers, progress.rate)
        for optimizer in self.optimizers:
            optimizer.step()

    def _batch(self, batch: Mapping[str, Any] | None) -> Batch:
        """Tensors on the device, cut to the length of this update; checked."""
        config, update = self.config, self.progress.update
        if batch is None:
            raise OmniRLError(f"the batches ended after {update} of {config.updates} updates")
        missing = [name for name in COLUMNS if name not in batch]
        if missing:
            raise OmniRLError(
                f"the batch of update {update} has no {', '.join(missing)}; it has {', '.join(batch)}"
            )
        names = [*COLUMNS, *(["targets"] if "targets" in batch else [])]
        tensors = {name: torch.as_tensor(batch[name]) for name in names}
        shapes = {name: tuple(tensor.shape[:2]) for name, tensor in tensors.items()}
        if len(set(shapes.values())) > 1 or len(shapes["labels"]) != 2:
            raise OmniRLError(f"the arrays of update {update} differ in shape: {shapes}")
        _check_labels(tensors["labels"], config.model.num_actions, update)
        device, length = self.progress.model.device, config.length(update)
        whole = {name: tensor[:, :length].to(device) for name, tensor in tensors.items()}
        return {
            name: tensor.float() if name in ("rewards", "targets") else tensor.long()
            for name, tensor in whole.items()
        }

    def _fixed(self) -> dict[str, Any]:
        """The settings that a resumed run must share; where it writes and how often is its own affair."""
        free = ("out", "threads", "checkpoint_minutes", "log_every", "device")
        return {key: value for key, value in self.config.to_dict().items() if key not in free}

    def _log(self, seconds: float) -> None:
        progress = self.progress
        policy, state, reward = progress.terms
        record = {
            "update": progress.update,
            "steps": progress.steps,
            "loss": progress.loss,
            "policy_loss": policy,
            "state_loss": state,
            "reward_loss": reward,
            "gradient_norm": progress.gradient_norm,
            "rate": progress.rate,
            "skipped": progress.skipped,
            "seconds": round(seconds, 3),
        }
        self._write(self._append, json.dumps(record) + "\n")

    def _append(self, line: str) -> None:
        with (self.folder / METRICS).open("a") as stream:
            stream.write(line)

    def _begin_anew(self) -> None:
        """Leave nothing of an earlier run: its metrics would mix, a restart go on from its checkpoint."""
        for name in (METRICS, LAST):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "config.toml").write_text(self.config.to_toml())

    def _cut_metrics(self) -> None:
        """Drop what was logged after the checkpoint: it will be logged again."""
        path = self.folder / METRICS
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["update"] <= self.progress.update]
            path.write_text("".join(f"{line}\n" for line in kept))

    def _gone_bad(self) -> str:
        last = self.folder / LAST
        where = f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint yet"
        return (
            f"loss or gradient was not finite in {self.progress.bad_in_a_row} updates in a row, up to update "
            f"{self.progress.update}; {where}. A lower learning rate, or data without NaN, is needed"
        )

    def _write(self, write: Callable[..., Any], *arguments: Any) -> None:
        """Only the first process writes."""
        if not self.processes.rank:
            write(*arguments)


class _Interrupts:
    """Remembers SIGINT and SIGTERM until the update is done and its checkpoint written.

    A signal may reach one process of many: what each was told travels with the sums of an update, so that all
    of them stop after the same one.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.agreed: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self.previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def told(self) -> Tensor:
        """(2,) float: 1 for the signal that this process received."""
        return torch.tensor([float(number == self.received) for number in _SIGNALS])

    def agree(self, told: Tensor) -> None:
        """Stop for a signal that any process was `told` (2,), the sum over all."""
        self.agreed = next((n for n, heard in zip(_SIGNALS, told.tolist(), strict=True) if heard), None)

    def obey(self) -> None:
        """Do what the signal would have done; go on if that was nothing."""
        if self.agreed is not None:
            number, self.received, self.agreed = self.agreed, None, None
            self.__exit__()
            signal.raise_signal(number)
            self.__enter__()


@contextlib.contextmanager
def _threads(config: TrainConfig) -> Iterator[None]:
    """While several threads read parts of a batch, each operation has one thread."""
    before = torch.get_num_threads()
    if config.threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seed(*parts: int) -> int:
    """A seed of its own for each update of each process, so that a checkpoint needs no generator's state."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def _stream(config: TrainConfig, processes: Processes) -> TaskStream | DatasetStream:
    """The batches that `config.data` describes; lengths, sizes and this process's share come from the run."""
    ours: dict[str, Any] = {"steps": config.length, "longest": config.context}
    ours |= {"batch_size": config.batch_size, "rank": processes.rank, "world_size": processes.count}
    stream: type[TaskStream | DatasetStream] = TaskStream
    if "folder" in config.data:
        stream = DatasetStream
        ours |= {"num_observations": config.model.num_states, "num_actions": config.model.num_actions}
    known = [name for name in inspect.signature(stream).parameters if name not in ours]
    check_keys(config.data, known, "the table [data] of the training config")
    return stream(**{"seed": config.seed, **config.data}, **ours)


def _after(batches: Iterable[Mapping[str, Any]], update: int) -> Iterator[Mapping[str, Any]]:
    seek = getattr(batches, "seek", None)
    if seek is not None:
        seek(update)
        return iter(batches)
    return islice(batches, update, None)


def _check_labels(labels: Tensor, num_actions: int, update: int) -> None:
    if labels.device.type == "cpu":
        wrong = labels[((labels < 0) | (labels > num_actions)) & (labels != -100)]
        if len(wrong):
            raise OmniRLError(
                f"the batch of update {update} has label {int(wrong[0])}; a label is an action below "
                f"{num_actions}, or -100 or {num_actions} where there is none"
            )
