"""A recipe carried out: a `PrimeTrainer` that trains, or the policy measured on the evaluation sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from implicit_prime import checkpoint
from implicit_prime.errors import PrimeError
from implicit_prime.evaluation import Measured, evaluate
from implicit_prime.recipe import ModelSettings, Recipe
from implicit_prime.tasks import Task, read_tasks
from implicit_prime.trainer import PrimeTrainer, free_settings
from implicit_prime.verifiers.named import named_verifier
from implicit_prm.pretrained import load_model, load_tokenizer
from implicit_prm.run_folder import ANEW, differences, plain_recipe

if TYPE_CHECKING:
    from torch import nn

# Of a run that goes on, these may differ beside `free_settings`: how it computes, and what is measured.
_FREE = (
    *("data.eval", "model.attn_implementation", "model.gradient_checkpointing"),
    *("verifier.code.workers", "verifier.code.url"),
)


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


def train_recipe(recipe: Recipe, *, resume: bool = True) -> Path:
    """Train, and return the folder with the policy and the PRM: it is there when all steps are made.

    A run goes on from its newest checkpoint, where there is one; without `resume` it is begun anew. Raises as
    `trainer_of` and `PrimeTrainer.train` do, and for checkpoints of another recipe, or of none.
    """
    folder = Path(recipe.training.output_dir)
    noted = plain_recipe(asdict(recipe))
    if found := checkpoint.last_checkpoint(folder):
        _check_recipe(found, noted, resume)
    trainer = trainer_of(recipe)
    trainer.recipe = noted
    trainer.train(resume_from_checkpoint=resume, overwrite=not resume)
    return folder / "final"


def _check_recipe(found: Path, recipe: Mapping[str, Any], resume: bool) -> None:
    there = checkpoint.read_state(found).get("recipe")
    if there is None:
        raise PrimeError(f"{found} is of a run without a recipe; give another training.output_dir")
    free = (*_FREE, *(f"training.{name}" for name in free_settings(recipe["training"]["loss_agg"])))
    if resume and (changed := differences(there, recipe, free)):
        raise PrimeError(f"{found.parent} holds another run: {changed}; {ANEW}")


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
    options: dict[str, Any] = {"dtype": settings.dtype}
    if settings.attn_implementation is not None:
        options["attn_implementation"] = settings.attn_implementation
    model = load_model(name, trainable=True, **options)  # an adapter is frozen otherwise
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model
