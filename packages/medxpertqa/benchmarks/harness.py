"""What asking through medxpertqa costs, beside inspect-ai, lm-eval and a bare client, on one stub endpoint.

    python benchmarks/harness.py [--repeats 3]

All ask the same invented questions in one turn each; they take turns, in one process, and the stub is in a
process of its own. Two loads:

- burst: 64 connections, replies after 50 ms, as no model gives them: items a second, as ratios to inspect-ai
  alone, on which medxpertqa is built; the goal is at least .9 of it and 25 calls a second.
- model: 8 connections, replies after 2 s: how much longer a question takes than the endpoint needs for it,
  from the difference of two runs, so that what every run costs once is not in it; the goal is below 5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from medxpertqa.adapters.lm_eval import task_folder
from medxpertqa.engine.running import evaluate
from medxpertqa.engine.stub_server import StubServer
from medxpertqa.protocols import get_protocol
from medxpertqa.questions import Question
from medxpertqa.synthetic import synthetic_questions

PROTOCOL = get_protocol("official-ao")


@dataclass(frozen=True)
class Load:
    """How many questions are asked, how many at once, of an endpoint that takes `delay` seconds a reply."""

    questions: int
    connections: int
    delay: float

    @property
    def needed(self) -> float:
        """Seconds that the endpoint itself needs."""
        return self.questions * self.delay / self.connections


BURST = Load(256, 64, 0.05)
MODEL = (Load(32, 8, 2.0), Load(96, 8, 2.0))

Harness = Callable[[Sequence[Question], str, int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for harness in HARNESSES.values():  # imports and first calls
        timed(harness, Load(4, 4, 0.0))
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in HARNESSES}
    for _ in range(repeats):
        for name, harness in HARNESSES.items():
            taken[name].append(timed(harness, BURST))
    print("burst       items/s, ratio to inspect-ai   processor ms a call, ratio")
    for name, times in taken.items():
        speed = median(peer[0] / own[0] for own, peer in zip(times, taken["inspect-ai"], strict=True))
        cost = median(own[1] / peer[1] for own, peer in zip(times, taken["inspect-ai"], strict=True))
        calls = median(BURST.questions / wall for wall, _ in times)
        each = 1000 * median(processor for _, processor in times) / BURST.questions
        print(f"{name:<12}{calls:>7.0f} {speed:>8.2f} {each:>25.1f} {cost:>8.2f}", flush=True)
    print("model       added to the endpoint's own time")
    for name, harness in HARNESSES.items():
        added = median(extra(harness) for _ in range(repeats))
        print(f"{name:<12}{100 * added:>6.1f} %", flush=True)


def extra(harness: Harness) -> float:
    """The share by which a further question takes longer than the endpoint needs."""
    short, long = (timed(harness, load)[0] for load in MODEL)
    return (long - short) / (MODEL[1].needed - MODEL[0].needed) - 1


def timed(harness: Harness, load: Load) -> tuple[float, float]:
    """Seconds and processor seconds of this process for a load; raises unless all questions were asked."""
    own, other = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    server = context.Process(target=serve, args=(other, load.delay), daemon=True)
    server.start()
    base_url = own.recv()
    questions = many(load.questions)
    start, processor = time.perf_counter(), time.process_time()
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        harness(questions, base_url, load.connections)
    found = time.perf_counter() - start, time.process_time() - processor
    own.send("stop")
    if own.recv() != load.questions:
        raise SystemExit("not every question was asked once")
    server.join()
    return found


def serve(line: Connection, delay: float) -> None:
    """Serve until told to stop, then say how many requests came."""
    with StubServer(delay=delay) as server:
        line.send(server.base_url)
        line.recv()
        line.send(len(server.requests))


def many(count: int) -> list[Question]:
    """So many questions, no two alike."""
    made = synthetic_questions("text")
    return [
        replace(made[n % len(made)], id=f"Text-{n}", stem=f"({n}) {made[n % len(made)].stem}")
        for n in range(count)
    ]


def bare(questions: Sequence[Question], base_url: str, connections: int) -> None:
    """The openai client and nothing else: replies are thrown away."""
    from openai import AsyncOpenAI

    async def ask() -> None:
        places = asyncio.Semaphore(connections)
        async with AsyncOpenAI(base_url=base_url, api_key="none") as client:

            async def one(question: Question) -> None:
                async with places:
                    await client.chat.completions.create(
                        model="m",
                        messages=PROTOCOL.first_turn(question),
                        temperature=0,
                        max_tokens=64,
                    )

            await asyncio.gather(*map(one, questions))

    asyncio.run(ask())


def inspect_alone(questions: Sequence[Question], base_url: str, connections: int) -> None:
    """A task of inspect-ai's own parts: system message, generate, pattern; logs as it writes them."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import pattern
    from inspect_ai.solver import generate, system_message

    samples = [
        Sample(input=PROTOCOL.first_turn(q)[-1]["content"][0]["text"], target=q.label, id=q.id)
        for q in questions
    ]
    task = Task(
        dataset=MemoryDataset(samples),
        solver=[system_message(PROTOCOL.system), generate()],
        scorer=pattern(r"\(([A-J])\)"),
    )
    model = get_model("openai-api/local/m", base_url=base_url, api_key="none", memoize=False)
    with tempfile.TemporaryDirectory() as folder:
        eval(
            task,
            model=model,
            log_dir=folder,
            display="none",
            max_connections=connections,
            temperature=0,
            max_tokens=64,
        )


def ours(questions: Sequence[Question], base_url: str, connections: int) -> None:
    """`evaluate`, with logs that resume and both parsers."""
    with tempfile.TemporaryDirectory() as folder:
        evaluate(
            questions,
            model="openai-api/local/m",
            base_url=base_url,
            log_dir=folder,
            protocol=PROTOCOL.name,
            max_tokens=64,
            max_connections=connections,
        )


def lm_eval(questions: Sequence[Question], base_url: str, connections: int) -> None:
    """The task for lm-eval through its chat API model; nothing is kept of the replies."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "questions.jsonl"
        data.write_text("".join(json.dumps(question.to_record()) + "\n" for question in questions))
        simple_evaluate(
            model="local-chat-completions",
            model_args={
                "model": "m",
                "base_url": f"{base_url}/chat/completions",
                "num_concurrent": connections,
            },
            tasks=["medxpertqa_text_cot"],
            task_manager=TaskManager(
                include_path=str(task_folder()), include_defaults=False, metadata={"data": str(data)}
            ),
            apply_chat_template=True,
            bootstrap_iters=0,
        )


HARNESSES: dict[str, Harness] = {
    "bare client": bare,
    "inspect-ai": inspect_alone,
    "lm-eval": lm_eval,
    "medxpertqa": ours,
}

if __name__ == "__main__":
    main()
