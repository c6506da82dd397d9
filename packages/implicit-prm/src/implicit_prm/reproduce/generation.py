"""The task of an experiment, its generator, and what is drawn from it: made once a seed, then read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch
import transformers
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from implicit_prm.reproduce.claims import PROBLEMS
from implicit_prm.sampling import HFSampler
from implicit_prm.tasks.base import ChainTask, Grade
from implicit_prm.tasks.generators import GeneratorConfig, build_generator, fine_tune
from implicit_prm.tasks.gsm8k_chain import GSM8KChain
from implicit_prm.tasks.modchain import ModChain
from lmlab.cache import built_once, file_fingerprint, fingerprint
from tenfold import Trial, TrialContext
from tenfold.data import get

FITTING, POOL, JUDGED, TRIED = 1, 2, 3, 4
"""Which random numbers of a seed prompts come from."""

DRAWN_AT_ONCE = 512
TRIED_EVERY = 50
TRIED_PROMPTS, TRIED_RESPONSES = 64, 4


class ChainConfig(BaseModel):
    """A task, how its generator is fitted, and how much is drawn from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["modchain", "gsm8k"]
    mod: int = 23
    operations: int = 20
    steps: int = 6
    hard_share: float = 0.25
    start_last: bool = Field(default=False, description="the start state after the operations")
    generator: GeneratorConfig
    fitting_steps: int = Field(gt=0)
    enough: float | None = Field(default=None, description="pass@1 at which fitting ends early, in %")
    pool_prompts: int = Field(gt=0, description="prompts whose responses reward models are trained on")
    pool_responses: int = Field(gt=0, description="responses to each of them, at temperature 1")
    test_prompts: int = Field(gt=0)
    test_responses: int = Field(gt=0)
    temperatures: tuple[float, ...] = Field(min_length=1, description="at which test responses are drawn")
    max_tokens: int = Field(gt=0)


class Responses(BaseModel):
    """The responses to one prompt, as drawn, with the truth about them."""

    prompt: str
    completions: list[str]
    ids: list[list[int]]
    grades: list[Grade]


class Drawn:
    """A task with a fitted generator, and its samples."""

    def __init__(self, config: ChainConfig, seed: int, folder: Path) -> None:
        self.task = task_of(config, seed)
        self.folder = folder

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The task's own."""
        return self.task.tokenizer()

    def generator(self) -> LlamaForCausalLM:
        """A fresh copy of the generator, in evaluation mode."""
        return AutoModelForCausalLM.from_pretrained(self.folder / "generator").eval()

    def pool(self, prompts: int, responses: int) -> list[Responses]:
        """The first responses to the first prompts of the pool: smaller sets are parts of larger ones."""
        return [
            Responses(prompt=row.prompt, **{key: getattr(row, key)[:responses] for key in PARTS})
            for row in self._read("pool")[:prompts]
        ]

    def judged(self, temperature: float) -> list[Responses]:
        """The responses to the test prompts at one temperature."""
        return self._read(f"judged-{temperature:g}")

    def _read(self, name: str) -> list[Responses]:
        lines = (self.folder / f"{name}.jsonl").read_text("utf-8").splitlines()
        return [Responses.model_validate_json(line) for line in lines]


PARTS = ("completions", "ids", "grades")


def generation_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Fit a seed's generator and draw from it, unless that was done before; how good it is."""
    config = ChainConfig(**trial.settings)
    found = drawn(config, trial.seed, context)
    shares = {
        f"{temperature:g}": _share_right(found.judged(temperature)) for temperature in config.temperatures
    }
    losses = json.loads((found.folder / "losses.json").read_text("utf-8"))
    return {"pass1": shares, "pool_pass1": _share_right(found.pool(10**9, 10**9)), "losses": losses[::10]}


def drawn(config: ChainConfig, seed: int, context: TrialContext | None = None) -> Drawn:
    """The generator and samples of a seed, from the cache if they are there."""
    code = file_fingerprint(*what_draws())
    versions = (torch.__version__, transformers.__version__, tokenizers.__version__)
    key = fingerprint(config.model_dump(mode="json"), seed, code, versions)
    name = f"{config.task}-{seed}"
    folder = built_once(
        "implicit-prm-generators", name, key, lambda folder: _build(config, seed, folder, context)
    )
    return Drawn(config, seed, folder)


def what_draws() -> list[Path]:
    """The modules on which samples depend: when one changes, they are drawn anew."""
    package = Path(__file__).parents[1]
    names = ("sampling", "decoding", "encoding", "offsets", "backends/prompts", "reproduce/generation")
    return [*sorted((package / "tasks").glob("*.py")), *(package / f"{name}.py" for name in names)]


def task_of(config: ChainConfig, seed: int) -> ChainTask:
    """The task; its operations, or what is drawn from GSM8K, change with the seed."""
    if config.task == "gsm8k":
        folder = get(PROBLEMS)
        return GSM8KChain.from_files(folder / "gsm8k_train.jsonl", folder / "gsm8k_test.jsonl", seed)
    return ModChain(
        config.mod, config.operations, config.steps, config.hard_share, seed, start_last=config.start_last
    )


def pass1(task: ChainTask, sampler: HFSampler, config: ChainConfig, seed: int) -> float:
    """How many of some responses to some prompts are right, in %, at temperature 1."""
    prompts = task.prompts(TRIED_PROMPTS, TRIED)
    found = sampler.sample(
        prompts, n=TRIED_RESPONSES, temperature=1.0, top_p=1.0, max_tokens=config.max_tokens, seed=seed
    )
    right = [
        task.grade(prompt, sample.text).correct
        for prompt, samples in zip(prompts, found, strict=True)
        for sample in samples
    ]
    return 100 * sum(right) / len(right)


def _build(config: ChainConfig, seed: int, folder: Path, context: TrialContext | None) -> None:
    task = task_of(config, seed)
    tokenizer = task.tokenizer()
    model = build_generator(tokenizer, config.generator, seed)
    demonstrations = task.demonstrations(config.fitting_steps * config.generator.batch_size, FITTING)
    sampler = HFSampler(model, tokenizer, batch_size=DRAWN_AT_ONCE)

    def is_enough(step: int) -> bool:
        if config.enough is None or step % TRIED_EVERY:
            return False
        found = pass1(task, sampler, config, seed)
        if context is not None:
            context.log(step, pass1=found)
        model.train()
        return found >= config.enough

    progress = None if context is None else context.progress
    losses = fine_tune(model, tokenizer, demonstrations, config.generator, progress, is_enough)
    (folder / "losses.json").write_text(json.dumps(losses))
    model.save_pretrained(folder / "generator")
    prompts = task.prompts(config.pool_prompts, POOL)
    _draw(task, sampler, prompts, config.pool_responses, 1.0, config, seed, folder / "pool.jsonl")
    prompts = task.test_prompts(config.test_prompts, JUDGED)
    for temperature in config.temperatures:
        path = folder / f"judged-{temperature:g}.jsonl"
        _draw(task, sampler, prompts, config.test_responses, temperature, config, seed, path)


def _draw(
    task: ChainTask,
    sampler: HFSampler,
    prompts: list[str],
    count: int,
    temperature: float,
    config: ChainConfig,
    seed: int,
    path: Path,
) -> None:
    found = sampler.sample(
        prompts, n=count, temperature=temperature, top_p=1.0, max_tokens=config.max_tokens, seed=seed
    )
    with path.open("w", encoding="utf-8") as file:
        for prompt, samples in zip(prompts, found, strict=True):
            texts = [sample.text for sample in samples]
            row = {
                "prompt": prompt,
                "completions": texts,
                "ids": [list(sample.token_ids) for sample in samples],
                "grades": [asdict(task.grade(prompt, text)) for text in texts],
            }
            file.write(json.dumps(row) + "\n")


def _share_right(rows: list[Responses]) -> float:
    right = [grade.correct for row in rows for grade in row.grades]
    return 100 * sum(right) / len(right)
