"""A training step of TRL's GRPOTrainer, and of ours: the same model, the same number of rollouts.

    python benchmarks/trainers.py [--prompts 32] [--samples 4] [--tokens 64] [--rounds 7] [--threads 1]

Four trainers of one small Llama take their steps in turns in this process, in an order that is drawn anew
each round: `GRPOTrainer`, `PrimeTrainer` with outcomes alone, `PrimeTrainer` and `PrimeGRPOTrainer` with
process rewards. All draw `prompts` x `samples` responses of `tokens` tokens by transformers' `generate`, in
one batch, judge them by the same function, keep all, and take one AdamW step in micro-batches of 32
responses, float32, without KL and without gradient checkpointing. A vocabulary of 4096 words keeps responses
from ending early. A round before those that count warms up.

Times are the process's own processor time (on a GPU the clock's), so that other work on the machine is not
counted: medians over rounds. Ratios are of steps of the same round, with their 95% interval. Goals (section
8): outcomes alone at least 1.5 times as fast as TRL, and a step of PRIME at most 1.22 of one with outcomes
alone.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import trl
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
)

from implicit_prime import PrimeConfig, PrimeTrainer
from implicit_prime.integrations.trl import PrimeGRPOTrainer, verifier_reward
from implicit_prm.tasks.vocabulary import word_tokenizer
from lmlab.accounting import median_interval

VOCABULARY = 4096
PROMPT = 16
MICRO_BATCH = 32
RATE = 1e-6
TRL, OUTCOMES, PRIME, IN_TRL = (
    "TRL, GRPOTrainer",
    "PrimeTrainer, outcomes",
    "PrimeTrainer",
    "PrimeGRPOTrainer",
)
ON_GPU = torch.accelerator.is_available()
clock = time.perf_counter if ON_GPU else time.process_time


def verify(completions: Sequence[str], references: Sequence[Any]) -> list[float]:
    """About half of what a random policy writes is right."""
    return [float(sum(map(ord, text)) % 2) for text in completions]


def model_of(tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=1 + PROMPT + options.tokens,  # a prompt begins with a token of its own
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(shape)


def rows_of(count: int) -> list[dict[str, Any]]:
    drawn = random.Random(0)
    return [
        {"prompt": " ".join(f"w{drawn.randrange(VOCABULARY)}" for _ in range(PROMPT)), "answer": 0}
        for _ in range(count)
    ]


Step = tuple[float, float]
"""Seconds of a step, and of its rollouts."""


def ours(
    options: argparse.Namespace, folder: Path, tokenizer: PreTrainedTokenizerFast, **settings: Any
) -> Iterator[Step]:
    """Steps of a `PrimeTrainer`."""
    size = options.prompts * options.samples
    args = PrimeConfig(
        output_dir=str(folder),
        max_steps=options.rounds + 1,
        prompts_per_step=options.prompts,
        num_generations=options.samples,
        mini_batch_size=size,
        micro_batch_size=MICRO_BATCH,
        rollout_batch_size=size,
        max_completion_length=options.tokens,
        accuracy_range=None,
        learning_rate=RATE,
        prm_learning_rate=RATE,
        save_steps=10**6,
        logging_steps=10**6,
        use_cpu=not ON_GPU,
        **settings,
    )
    rows = rows_of(4 * options.prompts)
    model = model_of(tokenizer, options)
    trainer = PrimeTrainer(model, args=args, train_dataset=rows, verifier=verify, processing_class=tokenizer)
    drawing = Stopwatch(trainer.engine, "generate")
    steps = trainer.steps()
    while True:
        start = now()
        if next(steps, None) is None:
            return
        yield now() - start, drawing.read()


class Stopwatch:
    """Adds up the time of a method."""

    def __init__(self, owner: Any, name: str) -> None:
        self.seconds = 0.0
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = now()
            found = method(*args, **kwargs)
            self.seconds += now() - start
            return found

        setattr(owner, name, timed)

    def read(self) -> float:
        """The seconds since the last call."""
        found, self.seconds = self.seconds, 0.0
        return found


def now() -> float:
    if ON_GPU:
        torch.accelerator.synchronize()
    return clock()


class Turns(TrainerCallback):
    """Lets a trainer go on for one step at a time."""

    def __init__(self) -> None:
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.done.release()
        self.go.acquire()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.done.release()
        self.go.acquire()


def theirs(
    options: argparse.Namespace,
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    kind: Callable[..., Any],
    **others: Any,
) -> Iterator[Step]:
    """Steps of a trainer of TRL: its loop runs in a thread of its own, that waits after each."""
    size = options.prompts * options.samples
    config = trl.GRPOConfig(
        output_dir=str(folder),
        max_steps=options.rounds + 1,
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=size // MICRO_BATCH,
        num_generations=options.samples,
        max_completion_length=options.tokens,
        loss_type="dapo",
        beta=0.0,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not ON_GPU,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
    )
    turns = Turns()
    trainer = kind(
        model_of(tokenizer, options),
        verifier_reward(verify),
        config,
        train_dataset=datasets.Dataset.from_list(rows_of(4 * options.prompts)),
        processing_class=tokenizer,
        callbacks=[turns],
        **others,
    )
    trainer.remove_callback(PrinterCallback)
    drawing = Stopwatch(trainer, "_generate_single_turn")
    failed: list[Exception] = []

    def train() -> None:
        try:
            trainer.train()
        except Exception as error:  # raised by `wait`, in the thread that would wait for ever
            failed.append(error)
            turns.done.release()

    def wait() -> None:
        turns.done.acquire()
        if failed:
            raise failed[0]

    loop = threading.Thread(target=train, daemon=True)
    loop.start()
    wait()
    for _ in range(options.rounds + 1):
        start = now()
        turns.go.release()
        wait()
        yield now() - start, drawing.read()
    turns.go.release()
    loop.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.rounds < 6:
        parser.error("--rounds must be at least 6, for a 95% interval")
    if options.prompts * options.samples % MICRO_BATCH:
        parser.error(f"prompts x samples must be a multiple of {MICRO_BATCH}, a micro-batch")
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    tokenizer = word_tokenizer([f"w{number}" for number in range(VOCABULARY - 3)], between=" ")
    prime = {"prime": {"accuracy_range": None, "prm_learning_rate": RATE}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arms = {
            TRL: theirs(options, folder / "trl", tokenizer, trl.GRPOTrainer),
            OUTCOMES: ours(options, folder / "outcomes", tokenizer, process_weight=0.0),
            PRIME: ours(options, folder / "prime", tokenizer),
            IN_TRL: theirs(options, folder / "in-trl", tokenizer, PrimeGRPOTrainer, **prime),
        }
        found: dict[str, list[Step]] = {arm: [] for arm in arms}
        for round_ in range(options.rounds + 1):
            order = list(arms)
            random.Random(round_).shuffle(order)
            for arm in order:
                step = next(arms[arm])
                if round_:
                    found[arm].append(step)
        for arm in arms.values():  # let every loop end before its folder goes
            next(arm, None)
    report(found, options)


def report(found: dict[str, list[Step]], options: argparse.Namespace) -> None:
    device = torch.accelerator.current_accelerator() if ON_GPU else "cpu"
    size = options.prompts * options.samples
    print(f"{device}, torch {torch.__version__}, trl {trl.__version__}, {size} responses of {options.tokens}")
    print(f"tokens, 4 layers of {options.hidden}, {options.threads} thread(s), {options.rounds} rounds\n")
    print("| trainer | step, s | rollouts, s | the rest, s | TRL / it | over outcomes alone |")
    print("|---|---|---|---|---|---|")
    for arm, steps in found.items():
        whole, drawing = (statistics.median(column) for column in zip(*steps, strict=True))
        rest = statistics.median(step - rollouts for step, rollouts in steps)
        faster = median_interval([base[0] / step[0] for base, step in zip(found[TRL], steps, strict=True)])
        more = median_interval([step[0] / base[0] for base, step in zip(found[OUTCOMES], steps, strict=True)])
        print(f"| {arm} | {whole:.2f} | {drawing:.2f} | {rest:.2f} | {faster} | {more} |", flush=True)


if __name__ == "__main__":
    main()
