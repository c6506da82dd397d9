"""A recipe carried out: data, models and settings become an `ImplicitPRMTrainer`, which trains and saves."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, get_type_hints

from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.pretrained import load_model, load_tokenizer
from implicit_prm.recipe import ModelSettings, Recipe
from implicit_prm.records import own_row, read_rows
from implicit_prm.run_folder import begin_run, check_run, is_finished, plain_recipe
from implicit_prm.trainer import ImplicitPRMTrainer
from implicit_prm.training_data import reward_dataset

if TYPE_CHECKING:
    from torch import nn

HUB = "hf:"

# Of a run that goes on, these may differ: where it writes and how often, what it tells, and how it loads.
_FREE = tuple(
    f"training.{name}"
    for name in (
        *("output_dir", "save_steps", "save_total_limit", "logging_steps", "report_to", "run_name"),
        *("disable_tqdm", "dataloader_num_workers", "per_device_eval_batch_size"),
    )
)

# The Trainer itself finds out in the middle of things that "5e-7" is no number.
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "left out",
}


def trainer_of(recipe: Recipe) -> ImplicitPRMTrainer:
    """The trainer of a recipe. Settings and data are checked before a model is loaded.

    Raises `ImplicitPRMError` for settings, data and models that do not fit.
    """
    args = _arguments(recipe.training)
    adapter = None if recipe.lora is None else _lora(recipe.lora)
    tokenizer = load_tokenizer(recipe.model.name)
    train, evaluated = (
        reward_dataset(_rows(sources), tokenizer, args) if sources else None
        for sources in (recipe.data.train, recipe.data.eval)
    )
    model = _load(recipe.model.name, recipe.model, trainable=True)
    reference = None if recipe.model.reference is None else _load(recipe.model.reference, recipe.model)
    if adapter is not None:
        model = _with_adapter(model, adapter)
    return ImplicitPRMTrainer(
        model,
        reference,
        args=args,
        train_dataset=cast(Any, train),
        eval_dataset=cast(Any, evaluated),
        processing_class=tokenizer,
    )


def train_recipe(recipe: Recipe, *, resume: bool = True) -> Path:
    """Train, evaluate if there is data for it, and save model and tokenizer; the folder is returned.

    A run that was interrupted goes on from its newest whole checkpoint, and one that is finished is not done
    again; without `resume` it is begun anew. What was measured is in the folder's `all_results.json`.
    Raises as `trainer_of` does, for an `output_dir` that is a file or holds a run of another recipe, and for
    checkpoints of which nothing says what made them.
    """
    folder = Path(str(recipe.training.get("output_dir", "trainer_output")))
    if folder.exists() and not folder.is_dir():
        raise ImplicitPRMError(f"training.output_dir = {str(folder)!r} is a file; give a folder")
    noted = plain_recipe(asdict(recipe))
    check_run(folder, noted, _FREE, resume)
    if resume and is_finished(folder):
        return folder
    trainer = trainer_of(recipe)
    if trainer.is_world_process_zero():
        begin_run(folder, noted, resume)
    done = trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model()
    trainer.save_state()
    if trainer.eval_dataset is not None:
        trainer.save_metrics("eval", trainer.evaluate())
    trainer.save_metrics("train", done.metrics)  # last: it says that the run is finished
    return folder


def _arguments(settings: Mapping[str, Any]) -> ImplicitPRMConfig:
    known = {each.name for each in fields(ImplicitPRMConfig) if each.init}
    if unknown := sorted(settings.keys() - known):
        raise ImplicitPRMError(
            f"[training] has {unknown[0]!r}, which is no setting of ImplicitPRMConfig or TrainingArguments"
        )
    hints = get_type_hints(ImplicitPRMConfig)
    for name, value in settings.items():
        kinds = set(get_args(hints[name]) or (hints[name],))
        if not kinds <= _KINDS.keys() or type(value) in kinds or (type(value) is int and float in kinds):
            continue
        told = " or ".join(words for kind, words in _KINDS.items() if kind in kinds)
        raise ImplicitPRMError(f"training.{name} is {value!r}; it must be {told}")
    try:
        # The Trainer's bars do not look whether there is a terminal.
        return ImplicitPRMConfig(**{"disable_tqdm": not sys.stderr.isatty(), **settings})
    except (TypeError, ValueError) as error:
        if isinstance(error, ImplicitPRMError):
            raise
        raise ImplicitPRMError(f"[training] does not fit: {error}") from error


def _lora(settings: Mapping[str, Any]) -> Any:
    from peft import LoraConfig

    try:
        return LoraConfig(task_type="CAUSAL_LM", **settings)
    except (TypeError, ValueError) as error:
        raise ImplicitPRMError(f"[lora] does not fit: {error}") from error


def _with_adapter(model: nn.Module, adapter: Any) -> nn.Module:
    from peft import get_peft_model

    if hasattr(model, "peft_config"):
        raise ImplicitPRMError(
            "model.name is an adapter already, which [lora] would put another one upon: leave [lora] out to "
            "go on training it, or name its base model"
        )
    try:
        return cast("nn.Module", get_peft_model(cast(Any, model), adapter))
    except ValueError as error:  # modules that the model does not have
        raise ImplicitPRMError(f"[lora] does not fit the model: {error}") from error


def _load(name: str, settings: ModelSettings, *, trainable: bool = False) -> nn.Module:
    options = {"dtype": settings.dtype}
    if settings.attn_implementation is not None:
        options["attn_implementation"] = settings.attn_implementation
    return cast("nn.Module", load_model(name, trainable=trainable, **options))


def _rows(sources: list[str]) -> Iterator[Mapping[str, Any]]:
    for source in sources:
        yield from _hub_rows(source.removeprefix(HUB)) if source.startswith(HUB) else read_rows(source)


def _hub_rows(source: str) -> Iterator[Mapping[str, Any]]:
    from datasets import load_dataset

    name, _, split = source.partition(":")
    try:
        rows = load_dataset(name, split=split or "train")
    except (OSError, ValueError) as error:
        raise ImplicitPRMError(
            f"cannot load the hub's data set {name!r}, split {split or 'train'!r}: {error}; write "
            "hf:owner/name:split, and log in with `hf auth login` if it is gated"
        ) from error
    yield from (own_row(row) for row in rows)
