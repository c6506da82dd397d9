"""A recipe carried out: a `PrimeTrainer` that trains, or the policy measured on the evaluation sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from implicit_prime import checkpoint
from implicit_prime.errors import PrimeError
from implicit_prime.evaluation import Measured, evaluate
from implicit_prime.recipe import ModelSettings, Recipe
from implicit_prime.tasks import Task, read_tasks
from implicit_prime.trainer import PrimeTrainer
from implicit_prime.verifiers.named import named_verifier
from implicit_prm.pretrained import load_model, load_tokenizer

if TYPE_CHECKING:
    from torch import nn


def trainer_of(recipe: Recipe) -> PrimeTrainer:
    """The trainer of a recipe. Verifiers and data are made ready before a model is loaded.

    Raises `PrimeError` and `implicit_prm.ImplicitPRMError` for settings, data and models that do not fit.
    """
    if not recipe.data.train:
        raise PrimeError("data.train is missing: the files or hub data sets to train on")
    verifier = named_verifier(recipe.verifier)
    train, evaluated = _tasks(recipe, recipe.data.train), evaluation_tasks(recipe)
    tokenizer = load_tokenizer(recipe.model.name)
    prm = recipe.model.prm
    return PrimeTrainer(
        load_policy(recipe),
        None if prm is None else _load(prm, recipe.model),
        args=recipe.training,
        train_dataset=train,
        verifier=verifier,
        eval_dataset=evaluated,
        processing_class=tokenizer,
    )


def train_recipe(recipe: Recipe, *, resume: bool = False) -> Path:
    """Train, and return the folder with the policy and the PRM; with `resume` from the newest checkpoint.

    Raises as `trainer_of` and `PrimeTrainer.train` do, and without `resume` for a folder with checkpoints.
    """
    folder = Path(recipe.training.output_dir)
    if not resume and (found := checkpoint.last_checkpoint(folder)):
        raise PrimeError(
            f"{folder} has {found.name} of an earlier run: go on from it with --resume (resume=True), "
            "or give another training.output_dir"
        )
    trainer_of(recipe).train(resume_from_checkpoint=resume)
    return folder / "final"


def evaluate_recipe(
    recipe: Recipe, model: str | None = None, n: int = 1, temperature: float = 0.0
) -> tuple[list[Measured], list[dict[str, Any]]]:
    """The recipe's model, or another one by name, measured on its evaluation sets, and all responses.

    Raises as `evaluate` and `read_tasks` do.
    """
    name = recipe.model.name if model is None else model
    verifier = named_verifier(recipe.verifier)
    sets = evaluation_tasks(recipe)
    tokenizer = load_tokenizer(name)
    found = list(
        evaluate(_load(name, recipe.model), tokenizer, sets, verifier, recipe.training, n, temperature)
    )
    return [measured for measured, _ in found], [row for _, rows in found for row in rows]


def load_policy(recipe: Recipe) -> nn.Module:
    """The recipe's policy, with a new adapter if it asks for one."""
    model = _load(recipe.model.name, recipe.model)
    if recipe.lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    if recipe.model.gradient_checkpointing:
        model.enable_input_require_grads()  # else the gradients end at the frozen embedding
    try:
        adapter = LoraConfig(task_type="CAUSAL_LM", **recipe.lora)
        return get_peft_model(model, adapter)
    except (TypeError, ValueError) as error:
        raise PrimeError(f"[lora] does not fit: {error}") from error


def evaluation_tasks(recipe: Recipe) -> dict[str, list[Task]]:
    """The recipe's evaluation sets by name."""
    return {
        name: _tasks(recipe, [source] if isinstance(source, str) else source)
        for name, source in recipe.data.eval.items()
    }


def _tasks(recipe: Recipe, sources: list[str]) -> list[Task]:
    return read_tasks(sources, recipe.verifier, recipe.data.system, recipe.data.suffix)


def _load(name: str, settings: ModelSettings) -> Any:
    options = {"dtype": settings.dtype}
    if settings.attn_implementation is not None:
        options["attn_implementation"] = settings.attn_implementation
    model = load_model(name, **options)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model
