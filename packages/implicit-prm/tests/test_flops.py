"""The formula gives the FLOPs that torch counts while the models really run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification

from implicit_prm.encoding import encode_rows
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.flops import TokenCounts, compare_costs, measure_flops, reading_counts, writing_counts
from implicit_prm.sampling import HFSampler, Sample
from implicit_prm.shepherd import annotate_steps


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def model(request, tiny_llama) -> LlamaForCausalLM:
    # Eager attention: torch does not count what its fused kernel for CPUs does.
    return tiny_llama(attn_implementation="eager", head_dim=24, tie_word_embeddings=request.param)


def counted(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_reading_is_what_torch_counts_forward_and_in_training(model) -> None:
    ids = torch.randint(320, (3, 17))
    counts = reading_counts([17] * 3)
    with torch.no_grad():
        assert counted(lambda: model(ids)) == measure_flops(model, counts)
    assert counted(lambda: model(ids).logits.sum().backward()) == measure_flops(model, counts, training=True)


def test_a_classifier_of_tokens_has_its_small_head_at_every_token() -> None:
    shape = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "attn_implementation": "eager"}
    model = LlamaForTokenClassification(LlamaConfig(**shape, **heads))
    with torch.no_grad():
        found = counted(lambda: model(torch.randint(320, (2, 9))))
    assert found == measure_flops(model, reading_counts([9, 9]))


def test_writing_is_what_torch_counts_while_the_sampler_writes(model, tokenizer) -> None:
    sampler = HFSampler(model, tokenizer)
    prompt, found = [5, 6, 7, 8, 9], []
    flops = counted(lambda: found.extend(sampler.sample([prompt], 6, max_tokens=30, seed=0)))
    lengths = [len(sample.token_ids) for sample in found[0]]
    assert flops == measure_flops(model, writing_counts(5, lengths))


def test_a_large_model_costs_about_2_flops_a_weight_and_token() -> None:
    """Llama-3.1-8B: 8.03e9 weights, 0.525e9 of them the embeddings that are only looked up; no GPU needed."""
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    one = TokenCounts(tokens=1, outputs=1)
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336) + 4096 * 128256
    assert measure_flops(model, one) == 2 * linear
    assert linear == 7_504_658_432
    assert measure_flops(model, TokenCounts(pairs=1)) == 4 * 32 * 4096


def test_counts_by_hand() -> None:
    assert reading_counts([2, 3]) == TokenCounts(5, 13, 5)
    # a prompt of 4; a sample of 3 tokens reads 2 of them, which see 5 and 6 positions; one of 1 reads none
    assert writing_counts(4, [3, 1]) == TokenCounts(4 + 2, 16 + 5 + 6, 1 + 2)
    assert reading_counts([2]) + reading_counts([3]) == reading_counts([2, 3])
    assert reading_counts([2, 3]) * 3 == TokenCounts(15, 39, 15)


def test_mixtures_of_experts_are_refused(tiny_llama) -> None:
    model = tiny_llama()
    model.model.layers[0].experts = torch.nn.ParameterList([torch.zeros(4, 8, 8)])
    with pytest.raises(ImplicitPRMError, match="only dense models are counted"):
        measure_flops(model, TokenCounts(1))


class Repeater:
    """A policy that completes a prefix by what the response itself goes on with."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    def sample(self, prompts, n=1, **_):
        rests = [next(row[len(p) :] for row in self.rows if tuple(row[: len(p)]) == p) for p in prompts]
        return [[Sample("", tuple(rest), None, truncated=False)] * n for rest in rests]


def test_what_math_shepherd_is_expected_to_cost_is_what_such_completions_cost(model, tokenizer) -> None:
    rows = [
        {"prompt": "so", "completion": "4\n\n42\n\n4"},
        {"prompt": "so", "completion": "the answer\n\nis 4"},
        {"prompt": "4", "completion": "2\n\n2"},
    ]
    encoded = encode_rows(rows, tokenizer)
    policy = Repeater([list(row.input_ids) for row in encoded])
    found = list(annotate_steps(rows, policy, lambda *_: True, tokenizer, completions=5))
    costs = compare_costs(
        model, encoded, [one.step_ends for one in found], [1, 0, 1], completions=5, epochs=2
    )
    annotated = sum((one.counts for one in found), TokenCounts())
    first, second, third = ([len(row.prompt_ids), len(row.completion_ids)] for row in encoded)
    written = writing_counts(first[0], [first[1], second[1]]) + writing_counts(*third[:1], [third[1]])
    lengths = [sum(first), sum(second), sum(third)]
    assert costs["math-shepherd"].collection == measure_flops(model, written + annotated)
    assert costs["ce"].collection == costs["dpo"].collection == measure_flops(model, written)
    # twice forward and backward, and the reference once forward: 7 passes; Math-Shepherd has no reference
    assert costs["ce"].training == 7 * measure_flops(model, reading_counts(lengths))
    assert costs["math-shepherd"].training == 6 * measure_flops(model, reading_counts(lengths))
    # the only pair is of the first prompt
    assert costs["dpo"].training == 7 * measure_flops(model, reading_counts(lengths[:2]))
    assert costs["ce"].total == costs["ce"].collection + costs["ce"].training
    for labels in (
        None,
        [1, 1, 0],
    ):  # of the first prompt both are right, of the second its only one is wrong
        assert set(compare_costs(model, encoded, [[0]] * 3, labels)) == {"ce", "math-shepherd"}
