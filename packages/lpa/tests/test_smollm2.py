"""A real model: SmolLM2-135M (9 heads on 3 keys and values, 64 wide) on chapters of a book held out."""

import copy
import json
import lzma
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import lpa
from lpa import LPAConfig

data = pytest.importorskip("tenfold.data", reason="tenfold (the reproduce extra) is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:rank 48 is below the head width:lpa.LPAWarning"),
]

BLOCKS, LENGTH = 4, 512


def get(name: str):
    """The folder of a data set; without it the test is skipped, with the ways to get it."""
    try:
        return data.get(name)
    except data.DataUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    folder = get("smollm2-135m")
    (file,) = folder.glob("*.gguf")
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def blocks() -> torch.Tensor:
    """(BLOCKS, LENGTH) tokens of books-heldout."""
    folder = get("smollm2-135m")
    (file,) = folder.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    with lzma.open(get("books") / "books-heldout.jsonl.xz", "rt", encoding="utf-8") as lines:
        text = json.loads(next(lines))["text"]
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    assert len(ids) >= 2 * BLOCKS * LENGTH
    return ids[: 2 * BLOCKS * LENGTH].reshape(2 * BLOCKS, LENGTH)


@torch.no_grad()
def perplexity(model: PreTrainedModel, blocks: torch.Tensor) -> float:
    """exp of the mean next-token cross-entropy over the blocks."""
    losses = [float(model(block[None], labels=block[None]).loss) for block in blocks]
    return math.exp(sum(losses) / len(losses))


@pytest.fixture(scope="module")
def dense_perplexity(model, blocks) -> float:
    return perplexity(model, blocks[:BLOCKS])


@pytest.mark.long
def test_the_model_reads_english(dense_perplexity):
    assert dense_perplexity < 50


def test_full_rank_changes_nothing(model, blocks):
    before = perplexity(model, blocks[:1])
    low = lpa.factorize(copy.deepcopy(model), LPAConfig(1.0, allow_expand=True))
    assert perplexity(low, blocks[:1]) == pytest.approx(before, rel=1e-4)
    dense = lpa.merge(low)
    assert perplexity(dense, blocks[:1]) == pytest.approx(before, rel=1e-4)


@pytest.mark.long
def test_perplexity_falls_with_the_rank_and_whitening_helps(model, blocks, dense_perplexity):
    plain = {
        rank: perplexity(lpa.factorize(copy.deepcopy(model), LPAConfig(rank)), blocks[:BLOCKS])
        for rank in (48, 96, 140)
    }
    assert plain[48] > plain[96] > plain[140] > dense_perplexity
    whitened = lpa.factorize(
        copy.deepcopy(model), LPAConfig(96), method="whitened", calibration=blocks[BLOCKS:].split(1)
    )
    assert dense_perplexity < perplexity(whitened, blocks[:BLOCKS]) < plain[96]


def test_keys_and_values_break_even_at_144(model):
    with pytest.raises(lpa.RankError, match=r"k_proj: rank 144 saves nothing.*below rank 144"):
        lpa.apply_lpa(copy.deepcopy(model), LPAConfig(144))
