"""PRIME, Algorithm 1, whole and in its order, hence over 400 lines: roll out, judge, filter, score, train."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from implicit_prime import checkpoint, core
from implicit_prime.clock import Clock
from implicit_prime.collection import Collector
from implicit_prime.config import PrimeConfig
from implicit_prime.credit import process_weight, token_advantages
from implicit_prime.dashboard import Dashboard
from implicit_prime.data import check_context, read_prompts
from implicit_prime.errors import PrimeError, PrimeWarning
from implicit_prime.models import prepare_models
from implicit_prime.online import OnlinePRM
from implicit_prime.overoptimization import OveroptimizationAlarm
from implicit_prime.policy import Policy
from implicit_prime.refill import PromptStream, Refilled, refill
from implicit_prime.responses import PromptGroup, Responses
from implicit_prime.rollout import check_drift, engine_for, log_prob_drift
from implicit_prime.termination import Termination
from implicit_prime.verifiers.base import Verifier
from implicit_prm import ImplicitPRM
from implicit_prm.pretrained import max_positions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Rows = Iterable[Mapping[str, Any]]

# Seeds of what is drawn come from (settings' seed, one of these, where the run is).
_TRAINING, _EVALUATION = 0, 1
_MOST_SKIPPED = 5
_FREE_SETTINGS = {
    "output_dir", "max_steps", "num_train_epochs", "save_steps", "eval_steps", "logging_steps", "report_to",
    "micro_batch_size", "rollout_batch_size", "vllm_gpu_memory_utilization", "vllm_server_url",
    "vllm_sync_folder", "use_cpu",
}  # fmt: skip


def free_settings(loss_agg: str) -> set[str]:
    """The settings that may differ in a run that goes on, with the loss that it has now.

    The official mean is over micro-batches: their size is then a part of the loss.
    """
    return _FREE_SETTINGS - ({"micro_batch_size"} if loss_agg == "micro-batch-mean" else set())


@dataclass(slots=True)
class TrainerState:
    """Where a run is: steps done, responses and tokens drawn, and policy updates skipped in a row."""

    step: int = 0
    responses: int = 0
    tokens: int = 0
    skipped: int = 0


class PrimeTrainer:
    """Trains a policy by reinforcement learning with implicit process rewards.

    model             the policy: a causal language model, a PEFT model of one, or a name to load it by
    prm               the PRM, the same or an `ImplicitPRM`; None begins as the policy (see `prepare_models`)
    args              all settings
    train_dataset     rows with "prompt" (text, messages or token ids) and "answer"
    verifier          (completions, answers) -> scores in [0, 1], or `VerifierResult`s
    eval_dataset      rows as those to train on, or several sets of them by name
    processing_class  the tokenizer; None: that of the model's name

    `model`, `prm` (an `ImplicitPRM`; None where outcomes alone are used), `state` and `args` may be read at
    any time; `last_batch` and `last_process` are the responses of the last step and the rewards of their
    tokens (None without a PRM). Launched by `accelerate launch`, all processes do the same with their share
    of the work.

    Raises `PrimeError` and `implicit_prm.ImplicitPRMError` for settings, data and models that do not fit.
    """

    def __init__(
        self,
        model: str | nn.Module,
        prm: str | nn.Module | ImplicitPRM | None = None,
        *,
        args: PrimeConfig,
        train_dataset: Rows,
        verifier: Verifier,
        eval_dataset: Rows | Mapping[str, Rows] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
    ) -> None:
        self.args = args
        self.accelerator = self._accelerator()
        args.check_world_size(self.accelerator.num_processes)
        models = prepare_models(model, prm, args, processing_class)
        self.processing_class = models.tokenizer
        self.rows = read_prompts(train_dataset, models.tokenizer, args.max_prompt_length)
        self.eval_rows = {
            name: read_prompts(rows, models.tokenizer, args.max_prompt_length, f"eval_dataset {name!r}")
            for name, rows in _named(eval_dataset).items()
        }
        context = max_positions(models.policy)
        check_context(self.rows, "train_dataset", args.max_completion_length, context)
        for name, prompts in self.eval_rows.items():
            check_context(prompts, f"eval_dataset {name!r}", args.max_completion_length, context)
        self.prm = models.prm
        self.online = (
            None if models.prm is None else OnlinePRM(models.prm, args, self.accelerator, models.prm_adapter)
        )
        self.policy = Policy(models.policy, args, self.accelerator, models.adapter)
        self.clock = Clock()
        self.engine = engine_for(args, self.model, models.tokenizer)
        self.collector = Collector(self.engine, verifier, args, self.accelerator, self.clock)
        epochs = args.num_train_epochs if args.max_steps is None else None
        self.stream = PromptStream(len(self.rows), args.seed, epochs)
        self.state = TrainerState()
        self.recipe: Mapping[str, Any] | None = None  # kept in checkpoints, for who trains from a file
        self.alarm = OveroptimizationAlarm()
        self.last_batch: Responses | None = None
        self.last_process: Tensor | None = None

    @property
    def model(self) -> Any:
        """The policy, with its weights of now."""
        return self.policy.learner.model

    def train(
        self, resume_from_checkpoint: bool | str | Path | None = None, *, overwrite: bool = False
    ) -> TrainerState:
        """Train to the end, or until SIGTERM; what was measured is in `output_dir`/metrics.jsonl.

        resume_from_checkpoint  a checkpoint, or True for the newest one, if there is one
        overwrite               where nothing is resumed, remove what an earlier run left in `output_dir`

        Policy and PRM are saved in `output_dir`/final in the end, and removed from there where a run goes on
        with further steps; a checkpoint that has `max_steps` steps or more is trained no further. Raises
        `PrimeError` where no step can be made (`NoPromptPassesError` where too few prompts pass the filter),
        numbers are not finite, a checkpoint cannot be written, another run holds `output_dir`, for a folder
        with checkpoints that are neither resumed nor overwritten, and for `overwrite` where this trainer has
        made steps already.
        """
        for _ in self.steps(resume_from_checkpoint, overwrite=overwrite):
            pass
        return self.state

    def steps(
        self, resume_from_checkpoint: bool | str | Path | None = None, *, overwrite: bool = False
    ) -> Iterator[dict[str, float]]:
        """`train`, one step at a time: yields the metrics of each, and may be left at any of them."""
        args, folder = self.args, Path(self.args.output_dir)
        board = Dashboard(args, args.max_steps, self.accelerator.is_main_process)
        with checkpoint.locked(folder, self.accelerator), Termination() as termination, board:
            self._resume(resume_from_checkpoint, overwrite)
            if self.state.step and self._steps_are_left and self.accelerator.is_main_process:
                checkpoint.remove_models(folder)  # else those of a shorter run would pass for this one's
            saved = self.state.step
            stopped = False
            while not stopped and self._steps_are_left:
                metrics = self._step()
                if metrics is None:
                    break
                if args.eval_steps and self.state.step % args.eval_steps == 0:
                    metrics |= self.evaluate()
                stopped = any(gather_object([termination.asked]))
                if self.accelerator.is_main_process:
                    checkpoint.append_log(folder, {"step": self.state.step, **metrics})
                board.log(self.state.step, metrics)
                if stopped or self.state.step % args.save_steps == 0:
                    self.save_checkpoint()
                    saved = self.state.step
                yield metrics
            if saved != self.state.step:
                self.save_checkpoint()
            if not stopped:
                self.save_model(folder / "final")

    @property
    def _steps_are_left(self) -> bool:
        return self.args.max_steps is None or self.state.step < self.args.max_steps

    # ---- one step

    def _step(self) -> dict[str, float] | None:
        """One iteration of Algorithm 1; None when the data is over."""
        try:
            with self.clock("step"):
                filled = self._roll_out()
                if filled is None:
                    return None
                metrics = self._learn(filled)
        except torch.OutOfMemoryError as error:
            raise PrimeError(
                f"out of memory in step {self.state.step + 1}: {error}. {_OUT_OF_MEMORY}"
            ) from error
        self.state.step += 1
        return metrics | {"rollout/total": float(self.state.responses)} | self.clock.read()

    def _roll_out(self) -> Refilled[PromptGroup] | None:
        """Draw and judge responses until enough prompts pass the filter (lines 3 to 6)."""
        args = self.args
        rounds = 0
        self.collector.statuses.clear()

        def roll_out(numbers: list[int]) -> list[PromptGroup]:
            nonlocal rounds
            seed = (args.seed, _TRAINING, self.state.step, rounds)
            rounds += 1
            return self.collector.draw(self.rows, numbers, seed, args.num_generations, args.temperature)

        with self.clock("rollout"):
            self.engine.sync_weights(self.model)
        filled = refill(
            self.stream,
            args.prompts_per_step,
            roll_out,
            self.collector.keep,
            args.max_refill_rounds,
            self.accelerator.num_processes,
            first=self.state.step == 0,
        )
        self.engine.rest()
        return filled

    def _learn(self, filled: Refilled[PromptGroup]) -> dict[str, float]:
        """Train PRM and policy on what was drawn (lines 7 to 10)."""
        args = self.args
        metrics = self._rollout_metrics(filled)
        batch, values, drift = self._read(Responses.from_groups(filled.kept))
        others = Responses.from_groups(filled.others) if args.prm_train_on == "all" else None
        process, weight = None, 1.0
        if self.online is not None:
            with self.clock("prm"):
                if args.kl_coef:
                    batch = self.online.with_reference(batch)
                found = self.online.step(batch, others)
            weight = process_weight(args, found.accuracy)
            metrics |= found.metrics | {"prm/weight": weight}
            if told := self.alarm.add(metrics["prm/outcome_reward"], metrics["reward/mean"]):
                warnings.warn(f"step {self.state.step + 1}: {told}", PrimeWarning, stacklevel=2)
            self.last_process = found.process
            process = core.normalize_process(found.process, batch.mask, args.process_norm)
        advantages = token_advantages(args, batch, process, weight, values)
        self.last_batch = batch
        targets = None if values is None else advantages + values
        advantages = core.whiten(advantages, batch.mask) if args.whiten else advantages
        with self.clock("policy"):
            metrics |= self._update_policy(batch, advantages, values, targets)
        return metrics | drift

    def _read(self, batch: Responses) -> tuple[Responses, Tensor | None, dict[str, float]]:
        """The trainer's own log-probs where the engine's will not do, values, and how far both are apart."""
        args = self.args
        foreign = args.rollout != "hf"
        if not (foreign or args.recompute_ref or args.advantage == "ppo"):
            return batch, None, {}
        with self.clock("policy"):
            log_probs, values = self.policy.read(batch)
        rows = [
            [x[row, mask].numpy() for row, mask in enumerate(batch.mask)]
            for x in (log_probs, batch.log_probs)
        ]
        drift = log_prob_drift(*rows)
        if foreign:
            check_drift(drift)
        return replace(batch, log_probs=log_probs), values, {"rollout/drift": drift}

    def _update_policy(
        self, batch: Responses, advantages: Tensor, values: Tensor | None, targets: Tensor | None
    ) -> dict[str, float]:
        whole = bool(advantages.isfinite().all())
        metrics = self.policy.update(batch, advantages, targets) if whole else {"policy/skipped": 1.0}
        if not metrics["policy/skipped"]:
            self.state.skipped = 0
            return metrics
        self.state.skipped += 1
        path = Path(self.args.output_dir) / f"not-finite-{self.state.step + 1}.pt"
        if self.accelerator.is_main_process:
            made_of = {"process": self.last_process, "values": values}
            torch.save({**asdict(batch), **made_of, "advantages": advantages}, path)
        told = (
            f"step {self.state.step + 1}: {'a gradient' if whole else 'an advantage'} is not finite, and "
            f"that update is left out; its batch is in {path}"
        )
        if self.state.skipped == _MOST_SKIPPED:
            raise PrimeError(f"{told}; {_MOST_SKIPPED} steps in a row: lower learning_rate")
        warnings.warn(told, PrimeWarning, stacklevel=2)
        return metrics

    def _rollout_metrics(self, filled: Refilled[PromptGroup]) -> dict[str, float]:
        groups = [*filled.kept, *filled.others]
        truncated = [cut for group in groups for cut in group.truncated]
        lengths = [len(ids) for group in groups for ids in group.ids]
        drawn = [group.accuracy for group in groups if group.accuracy == group.accuracy]
        self.state.responses += len(truncated)
        self.state.tokens += sum(lengths)
        if all(truncated):
            warnings.warn(
                f"all {len(truncated)} responses of the step were cut off at "
                f"{self.args.max_completion_length} tokens: raise max_completion_length",
                PrimeWarning,
                stacklevel=2,
            )
        return {
            "reward/mean": sum(drawn) / max(len(drawn), 1),
            "reward/kept": sum(group.accuracy for group in filled.kept) / len(filled.kept),
            "rollout/responses": float(len(truncated)),
            "rollout/length": sum(lengths) / len(lengths),
            "rollout/truncated": sum(truncated) / len(truncated),
            "rollout/pass_rate": filled.pass_rate,
            "rollout/rounds": float(filled.rounds),
            "rollout/prompts": float(len(filled.kept)),
            "rollout/epoch": float(self.stream.epoch),
            **{
                f"verify/{name}": float(self.collector.statuses[name])
                for name in ("timeout", "unparsed", "error")
            },
        }

    # ---- looking at it

    def evaluate(self, n: int = 1, temperature: float = 0.0, seed: int = 0) -> dict[str, float]:
        """Mean outcome of `n` responses to each row of every evaluation set, as "eval/<name>/accuracy".

        Temperature 0 is greedy, as in the paper. A response without a verdict counts as wrong. The same
        `seed` draws the same responses of the same weights.
        """
        metrics = {}
        self.engine.sync_weights(self.model)
        for name, rows in self.eval_rows.items():
            key = (self.args.seed, _EVALUATION, seed)
            groups = self.collector.draw(rows, range(len(rows)), key, n, temperature)
            found = torch.tensor([group.outcomes.tolist() for group in groups])
            metrics[f"eval/{name}/accuracy"] = float(found.nan_to_num(0.0).mean())
        self.engine.rest()
        self.clock.read()  # the next step does not pay for it
        return metrics

    # ---- keeping it

    def save_model(self, folder: str | Path) -> None:
        """Save policy and PRM, as `from_pretrained` reads them, in `folder`/policy and `folder`/prm."""
        checkpoint.write_whole(Path(folder), self.accelerator, self._write_models)

    def save_checkpoint(self) -> Path:
        """Save all that a run needs to go on bit for bit, in `output_dir`/checkpoint-<step>."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.step}"
        checkpoint.write_whole(folder, self.accelerator, self._write_checkpoint)
        return folder

    def _write_models(self, folder: Path, put: checkpoint.MainWriter) -> None:
        for name, learner in self._learners().items():
            checkpoint.save_weights(learner, folder / name, put)
            put(partial(self.processing_class.save_pretrained, folder / name))

    def _write_checkpoint(self, folder: Path, put: checkpoint.MainWriter) -> None:
        self._write_models(folder, put)
        learners = self._learners()
        states = {name: checkpoint.optimizer_state(learner) for name, learner in learners.items()}
        random = gather_object([checkpoint.random_states()])
        put(partial(self._write_state, folder, {"optimizers": states, "random": random}))

    def _write_state(self, folder: Path, gathered: dict[str, Any]) -> None:
        own = {
            "value": None if self.policy.value is None else self.policy.value.state_dict(),
            "online": None if self.online is None else self.online.state_dict(),
        }
        torch.save(gathered | own, folder / "training.pt")
        told = {
            "state": asdict(self.state),
            "stream": self.stream.state_dict(),
            "settings": self.args.to_dict(),
            "alarm": self.alarm.state_dict(),
            "recipe": self.recipe,
        }
        (folder / "state.json").write_text(json.dumps(told, indent=1), "utf-8")

    def _resume(self, source: bool | str | Path | None, overwrite: bool) -> None:
        folder = Path(self.args.output_dir)
        found = checkpoint.last_checkpoint(folder) if source in (True, None, False) else Path(str(source))
        if not source:
            if overwrite and self.state.step:
                raise PrimeError(
                    f"this trainer is at step {self.state.step}, and its models are those after it: to start "
                    "anew make another PrimeTrainer"
                )
            if found is not None and not overwrite:
                raise PrimeError(
                    f"{folder} has checkpoints of an earlier run: go on with resume_from_checkpoint=True, "
                    "start anew with overwrite=True, or give another output_dir"
                )
            if overwrite and self.accelerator.is_main_process:
                checkpoint.remove_run(folder)
            found = None
        if found is not None:
            self._load_checkpoint(found)
        if self.accelerator.is_main_process:
            checkpoint.cut_log(folder, self.state.step)

    def _load_checkpoint(self, folder: Path) -> None:
        told = checkpoint.read_state(folder)
        _warn_of_changes(told["settings"], self.args.to_dict())
        self.state = TrainerState(**told["state"])
        self.stream.load_state_dict(told["stream"])
        self.alarm.load_state_dict(told.get("alarm", ()))
        kept = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
        for name, learner in self._learners().items():
            if name not in kept["optimizers"]:
                raise PrimeError(f"{folder} has no {name}: resume with the models that the run began with")
            learner.optimizer.zero_grad(set_to_none=True)  # of a step that was interrupted
            checkpoint.load_weights(learner, folder / name)
            checkpoint.load_optimizer_state(learner, kept["optimizers"][name])
        if self.policy.value is not None and kept["value"] is not None:
            self.policy.value.load_state_dict(kept["value"])
        if self.online is not None and kept["online"] is not None:
            self.online.load_state_dict(kept["online"])
        if len(kept["random"]) == self.accelerator.num_processes:
            checkpoint.load_random_states(kept["random"][self.accelerator.process_index])

    def _learners(self) -> dict[str, Any]:
        prm = None if self.online is None else self.online.learner
        return {"policy": self.policy.learner} | ({} if prm is None else {"prm": prm})

    def _accelerator(self) -> Accelerator:
        return Accelerator(cpu=self.args.use_cpu)


_OUT_OF_MEMORY = (
    "Rollouts: lower rollout_batch_size (hf) or vllm_gpu_memory_utilization (vLLM). Training: lower "
    "micro_batch_size, call model.gradient_checkpointing_enable(), train an adapter (PEFT; PRM and reference "
    "then share the policy's weights), set ref='policy', or launch with FSDP2. The score of it all: lower "
    "max_completion_length"
)


def _named(dataset: Rows | Mapping[str, Rows] | None) -> dict[str, Rows]:
    if dataset is None:
        return {}
    return dict(dataset) if isinstance(dataset, Mapping) else {"eval": dataset}


def _warn_of_changes(before: dict[str, Any], now: dict[str, Any]) -> None:
    free = free_settings(now["loss_agg"])
    changed = [
        f"{name} was {before.get(name)!r} and is {value!r}"
        for name, value in now.items()
        if name not in free and before.get(name) != value
    ]
    if changed:
        warnings.warn(
            f"the run goes on with other settings: {'; '.join(changed)}", PrimeWarning, stacklevel=4
        )
