"""C8: Math-Shepherd on the same responses: how good, and at what cost.

The generator completes every prefix of a response several times; a step's label is whether one of the
completions is right ("hard"), or how many are ("soft"). A head on the generator learns the labels at the ends
of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.nn import functional as F
from transformers import (
    LlamaForCausalLM,
    LlamaForTokenClassification,
    get_cosine_with_min_lr_schedule_with_warmup,
)

from implicit_prm.encoding import Encoded, encode_rows
from implicit_prm.flops import TokenCounts, measure_flops, reading_counts
from implicit_prm.reproduce.evaluation import Rewards, judged
from implicit_prm.reproduce.generation import DRAWN_AT_ONCE, ChainConfig, Drawn, Responses, drawn
from implicit_prm.reproduce.metrics import Metrics, Results, at, bon
from implicit_prm.reproduce.prm_study import RewardConfig, written
from implicit_prm.sampling import HFSampler
from implicit_prm.shepherd import AnnotatedResponse, annotate_steps
from implicit_prm.steps import token_steps
from tenfold import Trial, TrialContext

IGNORED = -1.0
WARM_UP = 0.03
ANNOTATED_AT_ONCE = 256


class ShepherdConfig(BaseModel):
    """Of which responses the steps are annotated, by how many completions each, and how long is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(gt=0)
    responses: int = Field(gt=0)
    completions: int = Field(gt=0)
    labels: Literal["hard", "soft"]
    epochs: int = Field(gt=0)


def shepherd_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Annotate, train, judge: `best` and so on as of `judged`, and the FLOPs of each part."""
    settings = trial.settings
    chain, reward = ChainConfig(**settings["chain"]), RewardConfig(**settings["reward"])
    config = ShepherdConfig(**settings["shepherd"])
    found = drawn(chain, trial.seed)
    rows = found.pool(config.prompts, config.responses)
    generator = found.generator()
    marked = annotated(generator, found, rows, config, chain.max_tokens, trial.seed, context)
    model = with_head(generator, trial.seed)
    train(model, marked, config, reward, trial.seed)
    read = [len(response.encoded.input_ids) for response in marked]
    completed = sum((response.counts for response in marked), TokenCounts())
    test = found.judged(chain.temperatures[0])
    return {
        **judged(found.task, test, step_scores(model, found, test)),
        "flops": {
            "responses": measure_flops(generator, written(found, rows)),
            "annotation": measure_flops(generator, completed),
            "training": measure_flops(model, reading_counts(read) * config.epochs, training=True),
        },
    }


def with_head(generator: LlamaForCausalLM, seed: int) -> LlamaForTokenClassification:
    """The generator with a head of one number a token instead of its output."""
    config = generator.config.__class__(**generator.config.to_dict() | {"num_labels": 1})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForTokenClassification(config)
    model.model.load_state_dict(generator.model.state_dict())
    return model


def annotated(
    generator: LlamaForCausalLM,
    found: Drawn,
    rows: Sequence[Responses],
    config: ShepherdConfig,
    max_tokens: int,
    seed: int,
    context: TrialContext,
) -> list[AnnotatedResponse]:
    """Every response with the labels of its steps, completed by the generator at temperature 1."""
    responses = flat(rows)
    marked = []
    for response in annotate_steps(
        responses,
        HFSampler(generator, found.tokenizer, batch_size=DRAWN_AT_ONCE),
        lambda row, text: found.task.grade(row["prompt"], text).correct,
        found.tokenizer,
        steps=found.task.splitter,
        completions=config.completions,
        max_tokens=max_tokens,
        seed=seed,
        batch_size=ANNOTATED_AT_ONCE,
    ):
        marked.append(response)
        context.progress(len(marked), len(responses))
    return marked


def train(
    model: LlamaForTokenClassification,
    marked: Sequence[AnnotatedResponse],
    config: ShepherdConfig,
    reward: RewardConfig,
    seed: int,
) -> None:
    """Binary cross-entropy at the ends of the steps, with the recipe of the implicit models."""
    batches = config.epochs * (len(marked) // reward.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=reward.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    warm_up = math.ceil(WARM_UP * batches)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(optimizer, warm_up, batches, min_lr_rate=0.1)
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(len(marked)) for _ in range(config.epochs)])
    model.train()
    for step in range(batches):
        chosen = [marked[place] for place in order[step * reward.batch_size :][: reward.batch_size]]
        input_ids, mask = padded([response.encoded for response in chosen])
        labels = torch.full(input_ids.shape, IGNORED)
        for row, response in enumerate(chosen):
            ends = [len(response.encoded.prompt_ids) + end for end in response.step_ends]
            labels[row, ends] = torch.tensor(getattr(response, config.labels), dtype=torch.float32)
        logits = model(input_ids=input_ids, attention_mask=mask).logits[..., 0]
        asked = labels != IGNORED
        loss = F.binary_cross_entropy_with_logits(logits[asked], labels[asked])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def step_scores(model: LlamaForTokenClassification, found: Drawn, rows: Sequence[Responses]) -> Rewards:
    """The probability that each step of every response is right."""
    encoded = encode_rows(flat(rows), found.tokenizer)
    scores = []
    for start in range(0, len(encoded), DRAWN_AT_ONCE):
        part = encoded[start : start + DRAWN_AT_ONCE]
        input_ids, mask = padded(part)
        probabilities = model(input_ids=input_ids, attention_mask=mask).logits[..., 0].sigmoid().numpy()
        for row, of_row in zip(part, probabilities, strict=True):
            _, ends = token_steps(row.completion, row.offsets, found.task.splitter)
            scores.append(of_row[[len(row.prompt_ids) + end for end in ends]])
    every = iter(scores)
    return [[next(every) for _ in row.ids] for row in rows]


def flat(rows: Sequence[Responses]) -> list[dict[str, Any]]:
    """A row a response."""
    return [{"prompt": row.prompt, "completion_ids": ids} for row in rows for ids in row.ids]


def padded(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, int64 [B, T], padded on the right."""
    length = max(len(row.input_ids) for row in rows)
    input_ids, mask = torch.zeros(2, len(rows), length, dtype=torch.long)
    for place, row in enumerate(rows):
        input_ids[place, : len(row.input_ids)] = torch.tensor(row.input_ids)
        mask[place, : len(row.input_ids)] = 1
    return input_ids, mask


def shepherd_metrics(results: Results, ours: Mapping[int, Mapping[str, Any]]) -> Metrics:
    """What C8 asks; `ours` are the results of the implicit model on as many responses."""
    if not results:
        return {}
    theirs = results["math-shepherd"]
    work = {seed: result["flops"] for seed, result in theirs.items()}
    best = {seed: (bon(at(ours[seed])["with"]), bon(result)) for seed, result in theirs.items()}
    data = [(flops["responses"] + flops["annotation"]) / flops["responses"] for flops in work.values()]
    return {
        "shepherd16": [shepherd for _, shepherd in best.values()],
        "shepherd_step_auc": [result["step_auc"] for result in theirs.values()],
        "bon16_minus_shepherd16": [implicit - shepherd for implicit, shepherd in best.values()],
        "flops_shepherd": [float(sum(flops.values())) for flops in work.values()],
        "shepherd_flops_ratio": [
            sum(flops.values()) / sum(ours[seed]["flops"].values()) for seed, flops in work.items()
        ],
        "shepherd_data_flops_ratio": data,
    }
