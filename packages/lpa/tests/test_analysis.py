import math

import pytest
import torch
import transformers as tf
from torch import nn

import lpa
from lpa import LPAConfig, LPAError
from lpa.analysis import effective_rank, subspace_overlap
from lpa.architectures import sites

pytestmark = pytest.mark.filterwarnings("ignore:rank .* is below the head width:lpa.LPAWarning")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 4.0),
        ([5.0, 0.0, 0.0], 1.0),
        ([0.0, 0.0], 0.0),
        ([0.5, 0.25, 0.25], 2**1.5),  # entropy 0.5 log 2 + 2 x 0.25 log 4 = 1.5 log 2
    ],
)
def test_effective_rank_is_exp_of_the_entropy(values, expected):
    assert effective_rank(torch.tensor(values)) == pytest.approx(expected)


def test_overlap_of_a_space_with_itself_is_one_whatever_its_basis():
    rows = torch.randn(4, 16)
    assert subspace_overlap(rows, torch.randn(4, 4) @ rows) == pytest.approx(1)
    assert subspace_overlap(rows, torch.cat((rows, torch.randn(3, 16)))) == pytest.approx(1)


def test_overlap_of_orthogonal_spaces_is_zero():
    rows = torch.linalg.qr(torch.randn(16, 16)).Q
    assert subspace_overlap(rows[:4], rows[4:10]) == pytest.approx(0, abs=1e-10)


def test_overlap_is_the_mean_squared_cosine_of_the_angles():
    first = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]])
    second = torch.tensor([[math.cos(0.3), 0, math.sin(0.3), 0], [0, math.cos(1.1), 0, math.sin(1.1)]])
    expected = (math.cos(0.3) ** 2 + math.cos(1.1) ** 2) / 2
    assert subspace_overlap(first, second) == pytest.approx(expected)


def test_independent_spaces_overlap_by_r_over_n():
    overlaps = [subspace_overlap(torch.randn(6, 32), torch.randn(10, 32)) for _ in range(200)]
    assert sum(overlaps) / 200 == pytest.approx(10 / 32, rel=0.03)


def fused() -> nn.Module:
    config = tf.GPTNeoXConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    return tf.GPTNeoXForCausalLM(config).eval()


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_a_low_rank_model_uses_at_most_its_rank(kind, tiny_llama, token_ids):
    model = lpa.apply_lpa(tiny_llama() if kind == "llama" else fused(), LPAConfig(6))
    analysis = lpa.analyze(model, token_ids)
    assert [(item.layer, item.role) for item in sorted(analysis.projections, key=lambda p: p.layer)] == [
        (layer, role) for layer in range(2) for role in "qkvo"
    ]
    for projection in analysis.projections:
        assert projection.rank == 6
        assert 1 < projection.weight_rank <= 6.01
        # The bias of GPT-NeoX adds a direction.
        assert 1 < projection.output_rank <= (6.01 if kind == "llama" else 7.01)
    assert {layer: set(own) for layer, own in analysis.overlaps.items()} == {
        layer: {"q-k", "q-v", "k-v"} for layer in range(2)
    }
    assert all(0 < value < 1 for own in analysis.overlaps.values() for value in own.values())


def test_a_shared_a_overlaps_fully(tiny_llama, token_ids):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(6, share_down=True))
    overlaps = lpa.analyze(model, token_ids).overlaps
    assert all(value == pytest.approx(1) for own in overlaps.values() for value in own.values())


def test_a_dense_model_has_ranks_and_entropy_but_no_overlap(tiny_llama, token_ids):
    analysis = lpa.analyze(tiny_llama(), token_ids)
    assert analysis.overlaps == {}
    assert {projection.rank for projection in analysis.projections} == {None}
    assert max(projection.weight_rank for projection in analysis.projections) > 20


def test_ranks_are_those_of_the_matrices_and_outputs(tiny_llama, token_ids):
    model = tiny_llama()
    outputs = []
    k = model.model.layers[1].self_attn.k_proj
    handle = k.register_forward_hook(lambda module, args, output: outputs.append(output.flatten(0, 1)))
    model(token_ids)
    handle.remove()
    found = next(p for p in lpa.analyze(model, token_ids).projections if (p.layer, p.role) == (1, "k"))
    assert found.weight_rank == pytest.approx(
        effective_rank(torch.linalg.svdvals(k.weight.detach())), rel=1e-4
    )
    expected = effective_rank(torch.linalg.svdvals(outputs[0].detach().double()))
    assert found.output_rank == pytest.approx(expected, rel=1e-4)


def test_even_attention_has_the_entropy_of_the_number_of_tokens(tiny_llama, token_ids):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.zero_()
    entropy = lpa.analyze(model, token_ids).attention_entropy
    assert entropy.shape == (2, 4)
    expected = sum(math.log(seen) for seen in range(1, 21)) / 20
    torch.testing.assert_close(entropy[0], torch.full((4,), expected))
    assert (entropy[1] < expected).all()


def test_padding_does_not_count(tiny_llama, token_ids):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8))
    mask = torch.ones_like(token_ids)
    mask[:, 14:] = 0
    padded = lpa.analyze(model, {"input_ids": token_ids, "attention_mask": mask})
    short = lpa.analyze(model, token_ids[:, :14])
    torch.testing.assert_close(padded.attention_entropy, short.attention_entropy, rtol=1e-4, atol=1e-5)
    for first, second in zip(padded.projections, short.projections, strict=True):
        assert first.output_rank == pytest.approx(second.output_rank, rel=1e-3)


def site_hooks(model: nn.Module) -> list[int]:
    return [len(model.get_submodule(site.name)._forward_hooks) for site in sites(model)]


def test_the_model_is_left_as_it_was(tiny_llama, token_ids):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8)).train()
    lpa.analyze(model, token_ids)
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    # transformers leaves its own recording hooks on the attention modules; ours were on the projections.
    assert not any(site_hooks(model))


def test_setting_1_can_be_looked_at(token_ids):
    config = lpa.ClassicConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        head_dim=8,
        max_position_embeddings=32,
        rank=8,
    )
    analysis = lpa.analyze(lpa.ClassicForCausalLM(config), token_ids)
    assert analysis.attention_entropy.shape == (2, 3)
    assert len(analysis.projections) == 8


def test_the_table_has_a_line_a_layer(tiny_llama, token_ids):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8, layers=(0,)))
    lines = str(lpa.analyze(model, token_ids)).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("layer | effective rank of W")
    columns = [line.split("|") for line in lines]
    assert {len(row) for row in columns} == {5}
    assert columns[2][3].split() == ["-", "-", "-"]  # layer 1 is dense
    assert all(0 < float(value) < 1 for value in columns[1][3].split())


def test_a_model_without_attention_is_refused():
    class Plain(tf.PreTrainedModel):
        config_class = tf.PreTrainedConfig

        def __init__(self, config):
            super().__init__(config)
            self.layer = nn.Linear(4, 4)

    with pytest.raises(LPAError, match="Plain has no q, k, v or o that is known here"):
        lpa.analyze(Plain(tf.PreTrainedConfig()), torch.zeros(1, 4, dtype=torch.long))
