"""The paper's pre-training runs: the values of its tables, and each of them trained, much narrower."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import PreTrainedModel

from fope.errors import FopeError
from fope.hf.config import read
from fope.reproduce.paper import paper_config, paper_names
from fope.reproduce.training import modify, plan
from lmlab.models import build_model
from lmlab.train import RunConfig
from lmlab.training import train
from tenfold.errors import UsageError

SIZES = {"60M": 59_318_784, "180M": 185_746_432, "1200M": 1_176_832_000}


@pytest.mark.parametrize("size", SIZES)
def test_sizes_and_budgets_are_the_paper_s(size: str) -> None:
    c4, books = plan(paper_config(f"{size}-c4-512-rope")), plan(paper_config(f"{size}-books-1024-rope"))
    assert c4.parameters_without_embeddings == SIZES[size]
    assert c4.tokens_per_step == books.tokens_per_step == 2**19
    assert c4.tokens == pytest.approx(10e9, rel=1e-4)
    assert books.tokens == pytest.approx(5e9, rel=1e-4)
    assert c4.state_bytes == 16 * c4.parameters


def test_kept_pairs_of_the_paper_s_shapes() -> None:
    """R of the specification: 16 of 32 pairs for 60M at 512, 31 of 64 for the others, 18 and 36 at 1024."""
    kept = {}
    for size in SIZES:
        for length in (512, 1024):
            stored = read(_narrow_model(paper_config(f"{size}-c4-{length}-fope"), head_dim_divisor=1).config)
            assert stored is not None
            assert stored.config.zero_sin == 1.0
            kept[size, length] = (stored.config.num_kept, stored.config.init_gain)
    assert kept == {
        ("60M", 512): (16, 0.3),
        ("60M", 1024): (18, 0.3),
        ("180M", 512): (31, 0.4),
        ("180M", 1024): (36, 0.4),
        ("1200M", 512): (31, 0.6),
        ("1200M", 1024): (36, 0.6),
    }


MARKS = {"60M-c4-512": (), "60M": pytest.mark.slow, "": pytest.mark.long}  # a second or two each
NAMES = [
    pytest.param(name, marks=next(marks for start, marks in MARKS.items() if name.startswith(start)))
    for name in paper_names()
]


@pytest.mark.parametrize("name", NAMES)
def test_every_run_trains_narrow(name: str) -> None:
    config = paper_config(name)
    model = _narrow_model(config)
    steps = {"max_steps": 2, "batch_size": 1, "gradient_accumulation_steps": 1, "warmup_steps": 0}
    training = config.training.model_copy(update=steps | {"checkpoint_every": 0})
    tokens = torch.randint(300, (2, 64), generator=torch.Generator().manual_seed(0))
    before = model.lm_head.weight.detach().clone()
    (entry,) = train(model, tokens, training).curve
    assert entry["loss"] == pytest.approx(math.log(300), abs=0.1)  # random tokens, a model that knows nothing
    assert not torch.equal(model.lm_head.weight, before)


def _narrow_model(config: RunConfig, head_dim_divisor: int = 16) -> PreTrainedModel:
    """The model of a run at a sixteenth of the width, with two layers and a small vocabulary."""
    settings = config.model | {"num_hidden_layers": 2, "vocab_size": 300}
    for key in ("hidden_size", "intermediate_size"):
        settings[key] //= 16
    settings["head_dim"] //= head_dim_divisor
    assert config.apply is not None
    return modify(build_model(settings, seed=config.seed), **config.apply.options)


def test_a_change_goes_into_the_run_and_a_mistake_names_the_key() -> None:
    changed = paper_config("60M-c4-512-fope", ["apply.options.oversample=4", "training.max_steps=3"])
    assert changed.apply is not None
    assert changed.apply.options["oversample"] == 4
    assert changed.training.max_steps == 3
    assert paper_config("60M-c4-512-fope").training.max_steps == 19073
    with pytest.raises(UsageError, match=r"60M-c4-512-fope.*training.max_step'.*training.max_steps"):
        paper_config("60M-c4-512-fope", ["training.max_step=3"])


@pytest.mark.parametrize("name", ["60M-c4-512", "70M-c4-512-fope", "60M-c4-512-fope-1", ""])
def test_other_names_are_told_the_parts(name: str) -> None:
    with pytest.raises(FopeError, match="size: 60M, 180M, 1200M; corpus: c4, books"):
        paper_config(name)
