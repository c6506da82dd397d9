"""Measured step times of LPA and dense, interleaved in one process, against the FLOP model (claim C4).

On an accelerator, if there is one, in bfloat16 (autocast), as the paper trains setting 2; else on the CPU in
float32.
"""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedModel

from lmlab.accounting import interleaved_ratio
from lpa import estimate
from lpa.reproduce.arms import dense, lpa
from tenfold import Trial, TrialContext


class TimingConfig(BaseModel):
    """Which shape is timed, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: dict[str, Any]
    rank: int = Field(gt=0)
    other_ranks: tuple[int, ...] = Field(
        (), description="ranks beside `rank` for the figure of time against rank"
    )
    block_layers: int = Field(gt=0, description="layers in the timed block stack")
    batch_size: int = Field(gt=0)
    length: int = Field(gt=0)
    repeats: int = Field(ge=6, description="interleaved pairs of steps in a round; fewer give no interval")
    rounds: int = Field(gt=0, description="rounds; their spread is the interval")
    whole_model: bool = Field(
        description="also time whole training steps of the full shape, optimiser included"
    )
    threads: int = Field(gt=0)

    def trials(self, measure: str) -> list[Trial]:
        """The trials of one measure, a round each; none for whole models where the scale leaves them out."""
        whole = measure == training_time_saved.__name__
        if whole and not self.whole_model:
            return []
        ranks = (self.rank,) if whole else (self.rank, *self.other_ranks)
        settings = self.model_dump(
            mode="json", exclude={"rank", "other_ranks", "rounds", "threads", "whole_model"}
        )
        return [
            Trial(arm=f"rank-{rank}", seed=number, settings=settings | {"rank": rank}, stage=measure)
            for rank in ranks
            for number in range(self.rounds)
        ]


def step_time_minus_prediction(trial: Trial, context: TrialContext) -> dict[str, float]:
    """Forward and backward through the block stack: measured LPA/dense time ratio and the FLOP model's."""
    settings = trial.settings
    shape = settings["shape"] | {"num_hidden_layers": settings["block_layers"]}
    size = (settings["batch_size"], settings["length"], shape["hidden_size"])
    hidden = torch.randn(size, device=device())
    models = (on_device(build(shape, settings["rank"], trial.seed)) for build in (lpa, dense))
    ours, base = (_block_step(model, hidden) for model in models)
    ratio = interleaved_ratio(ours, base, repeats=settings["repeats"]).median
    predicted = predicted_block_ratio(shape, settings["rank"], settings["length"])
    return {
        "step_time_ratio": ratio,
        "predicted_ratio": predicted,
        "step_time_minus_prediction": ratio - predicted,
    }


def training_time_saved(trial: Trial, context: TrialContext) -> dict[str, float]:
    """Whole training steps (forward, backward, clipping, AdamW) of the full shape: 1 - LPA / dense time."""
    settings = trial.settings
    size = (settings["batch_size"], settings["length"])
    tokens = torch.randint(settings["shape"]["vocab_size"], size, device=device())
    shape, rank = settings["shape"], settings["rank"]
    models = (on_device(build(shape, rank, trial.seed)) for build in (lpa, dense))
    ours, base = (training_step(model, tokens) for model in models)
    return {"training_time_saved": 1 - interleaved_ratio(ours, base, repeats=settings["repeats"]).median}


def predicted_block_ratio(shape: dict[str, Any], rank: int, length: int) -> float:
    """FLOPs of LPA over FLOPs of dense in the blocks: everything but the LM head."""
    with torch.device("meta"):
        model = lpa(shape, rank, seed=0)
    costs = estimate(model, seq_len=length)
    return (costs.flops["total"] - costs.flops["lm_head"]) / (
        costs.dense_flops["total"] - costs.dense_flops["lm_head"]
    )


def device() -> torch.device:
    """The accelerator, the CPU if there is none."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def on_device(model: PreTrainedModel) -> PreTrainedModel:
    """The model, moved to `device()`."""
    torch.nn.Module.to(model, device())
    return model


def _precision() -> torch.autocast:
    return torch.autocast(device().type, torch.bfloat16, enabled=torch.accelerator.is_available())


def _block_step(model: PreTrainedModel, hidden: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad(set_to_none=True)
        with _precision():
            output = model.model(inputs_embeds=hidden, use_cache=False).last_hidden_state
            loss = output.square().mean()
        loss.backward()

    return step


def training_step(model: PreTrainedModel, tokens: torch.Tensor) -> Callable[[], None]:
    """A step of the official recipe on one batch: forward, backward, clipping, AdamW."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-5, weight_decay=0, fused=True
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _precision():
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step
