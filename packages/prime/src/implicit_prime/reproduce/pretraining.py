"""A PRM that has seen more than the policy: right single steps first, then what the policy was fitted to."""

from __future__ import annotations

from pathlib import Path

import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM

import implicit_prm.tasks
from implicit_prime.errors import PrimeError
from implicit_prm import ImplicitPRM
from implicit_prm.reproduce.generation import FITTING, ChainConfig, Drawn
from implicit_prm.tasks.generators import build_generator, fine_tune
from implicit_prm.tasks.modchain import ModChain
from lmlab.cache import built_once, file_fingerprint, fingerprint

STEPS_DRAWN = 13
"""Which random numbers of a seed single steps come from."""


def pretrained_prm(chain: ChainConfig, steps: int, found: Drawn, seed: int, beta: float) -> ImplicitPRM:
    """The PRM, with a frozen copy of itself as reference: `steps` batches of single steps, then fitted.

    It knows every transition of the task before it sees the noisy teacher's chains, as the paper's PRM knows
    its subject from pre-training. Raises `PrimeError` for a task without single steps.
    """
    if chain.task != "modchain":
        raise PrimeError(f"task is {chain.task!r}; only 'modchain' has single steps to pre-train a PRM on")
    tasks = sorted(Path(implicit_prm.tasks.__file__).parent.glob("*.py"))
    code = file_fingerprint(*tasks, Path(__file__))
    versions = (torch.__version__, transformers.__version__, tokenizers.__version__)
    key = fingerprint(chain.model_dump(mode="json"), steps, seed, code, versions)
    folder = built_once(
        "implicit-prime-pretrained",
        f"modchain-{seed}",
        key,
        lambda folder: _build(chain, steps, found, seed, folder),
    )
    first, reference = (AutoModelForCausalLM.from_pretrained(folder).eval() for _ in range(2))
    return ImplicitPRM(first, found.tokenizer, reference, beta)


def single_steps(chain: ChainConfig, count: int, seed: int) -> list[tuple[str, str]]:
    """(prompt, response) of chains of one operation, from the same table as the task's, and all right."""
    task = ModChain(chain.mod, chain.operations, 1, chain.hard_share, seed, start_last=chain.start_last)
    return [(prompt, task.solve(prompt)) for prompt in task.prompts(count, STEPS_DRAWN)]


def _build(chain: ChainConfig, steps: int, found: Drawn, seed: int, folder: Path) -> None:
    batch = chain.generator.batch_size
    model = build_generator(found.tokenizer, chain.generator, seed)
    fine_tune(model, found.tokenizer, single_steps(chain, steps * batch, seed), chain.generator)
    demonstrations = found.task.demonstrations(chain.fitting_steps * batch, FITTING)
    fine_tune(model, found.tokenizer, demonstrations, chain.generator)
    model.save_pretrained(folder)
