import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

import lpa
from lpa import ClassicConfig, ClassicForCausalLM, LowRankLinear, LPAConfig, LPAError, RankError

pytestmark = pytest.mark.filterwarnings("ignore:rank .* is below the head width:lpa.LPAWarning")

RANKS = pytest.mark.parametrize(
    "ranks", [{}, {"rank": 8}, {"ffn_rank": 10}, {"rank": 8, "ffn_rank": 10}], ids=str
)


def config(**changes) -> ClassicConfig:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "head_dim": 8,
        "max_position_embeddings": 32,
    }
    return ClassicConfig(**sizes | changes)


def build(**changes) -> ClassicForCausalLM:
    model = ClassicForCausalLM(config(**changes)).eval()
    with torch.no_grad():  # norms that do something, so that a wrong place shows
        for layer in model.model.layers:
            for norm in (layer.attn_norm, layer.mlp_norm):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(std=0.2)
    return model


def by_the_equations(model: ClassicForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Section 2 of the paper's setting 1, head by head, with the matrices multiplied out."""

    def apply(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if isinstance(module, LowRankLinear):
            return F.linear(x, module.effective_weight(), module.effective_bias())
        return x @ module.weight.T + module.bias

    body = model.model
    length = ids.shape[1]
    x = body.embed_tokens.weight[ids] + body.embed_positions.weight[:length]
    future = torch.ones(length, length).triu(1).bool()
    for layer in body.layers:
        attention = layer.self_attn
        q, k, v = (apply(matrix, x) for matrix in (attention.q_proj, attention.k_proj, attention.v_proj))
        heads = []
        for head in range(3):
            own = slice(8 * head, 8 * head + 8)
            scores = q[..., own] @ k[..., own].mT / 8**0.5
            heads.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v[..., own])
        x = x + layer.attn_norm(apply(attention.o_proj, torch.cat(heads, -1)))
        x = x + layer.mlp_norm(apply(layer.mlp.fc2, apply(layer.mlp.fc1, x).relu()))
    return x @ model.lm_head.weight.T + model.lm_head.bias


@RANKS
def test_the_model_is_the_equations(ranks, token_ids):
    model = build(**ranks)
    torch.testing.assert_close(
        model(token_ids).logits, by_the_equations(model, token_ids), rtol=1e-5, atol=1e-5
    )


def test_the_eager_form_is_the_same(token_ids):
    model = build(rank=8)
    expected = model(token_ids).logits
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(token_ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_mean_next_token_cross_entropy(token_ids):
    model = build(rank=8)
    logits = by_the_equations(model, token_ids)
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), token_ids[:, 1:].flatten())
    torch.testing.assert_close(model(token_ids, labels=token_ids).loss, expected)


def test_dropout_follows_the_norm_of_each_sub_layer(token_ids):
    model = build(dropout=0.999).train()  # nearly every sub-layer output is dropped: x passes
    body = model.model
    x = body.embed_tokens(token_ids) + body.embed_positions.weight[: token_ids.shape[1]]
    kept = torch.isclose(body(token_ids).last_hidden_state, x, atol=1e-5)
    assert 0.98 < float(kept.float().mean()) < 1
    assert body.layers[0].dropout.p == 0.999
    model.eval()
    torch.testing.assert_close(model(token_ids).logits, model(token_ids).logits)


def test_biases_are_where_the_official_code_has_them():
    layer = build(rank=8, ffn_rank=10).model.layers[0]
    attention = layer.self_attn
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj, layer.mlp.fc1):
        assert projection.down.bias is not None
        assert projection.up.bias is None
    for projection in (attention.o_proj, layer.mlp.fc2):
        assert projection.down.bias is None
        assert projection.up.bias is not None


def test_everything_starts_as_torch_starts_it():
    model = ClassicForCausalLM(config(vocab_size=512, hidden_size=64, num_attention_heads=8, rank=16))
    body = model.model
    assert float(body.embed_tokens.weight.detach().std()) == pytest.approx(1, rel=0.02)
    assert float(body.embed_positions.weight.detach().std()) == pytest.approx(1, rel=0.05)
    q = body.layers[0].self_attn.q_proj
    for linear in (q.down, q.up, body.layers[0].mlp.fc2, model.lm_head):
        bound = linear.in_features**-0.5
        assert 0.95 * bound < float(linear.weight.detach().abs().max()) <= bound
    assert float(model.lm_head.bias.detach().abs().max()) > 0


@RANKS
def test_it_saves_and_loads(ranks, tmp_path, token_ids):
    model = build(**ranks)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, ClassicForCausalLM)
    assert again.config.rank == ranks.get("rank")
    assert torch.equal(again(token_ids).logits, model(token_ids).logits)
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == again.config.to_dict()


@RANKS
def test_merging_gives_the_dense_setting_1_model(ranks, tmp_path, token_ids):
    model = build(**ranks)
    if not ranks:
        with pytest.raises(LPAError, match="nothing to merge"):
            lpa.merge(model)
        return
    dense = lpa.merge(model)
    torch.testing.assert_close(dense(token_ids).logits, model(token_ids).logits, rtol=1e-5, atol=1e-5)
    assert (dense.config.rank, dense.config.ffn_rank) == (None, None)
    assert model.config.rank == ranks.get("rank")
    dense.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not lpa.is_lpa(again)
    assert torch.equal(again(token_ids).logits, dense(token_ids).logits)
    assert set(again.state_dict()) == set(ClassicForCausalLM(config()).state_dict())


def test_merged_and_factorised_again_it_is_the_same(token_ids, tmp_path):
    model = build(rank=8)
    again = lpa.factorize(lpa.merge(model), LPAConfig(8))
    torch.testing.assert_close(again(token_ids).logits, model(token_ids).logits, rtol=1e-4, atol=1e-4)
    again.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(token_ids).logits, again(token_ids).logits)


def test_the_two_ways_to_low_rank_do_not_mix():
    assert lpa.is_lpa(build(rank=8))
    assert not lpa.is_lpa(build())
    with pytest.raises(LPAError, match="low-rank already"):
        lpa.apply_lpa(build(rank=8), LPAConfig(8))
    superset = lpa.apply_lpa(build(), LPAConfig(8)).model.layers[0].self_attn.q_proj
    assert superset.up.bias is not None
    assert superset.down.bias is None


def test_estimate_counts_it_as_torch_does():
    cost = lpa.estimate(build(rank=8, ffn_rank=10), 16)
    assert cost.dense_params == sum(p.numel() for p in build().parameters())
    assert cost.params == sum(p.numel() for p in build(rank=8, ffn_rank=10).parameters())
    assert cost.latent_kv_elements_per_token == 2 * 2 * 8


# Generation


@RANKS
def test_generation_with_and_without_a_cache_is_equal(ranks, token_ids):
    model = build(**ranks)
    start = token_ids[:, :6]
    texts = [
        model.generate(start, max_new_tokens=20, do_sample=False, use_cache=use) for use in (True, False)
    ]
    assert texts[0].shape == (3, 26)
    assert torch.equal(*texts)


@pytest.mark.parametrize("name", ["past_key_values", "cache"])  # before transformers 5.24, and since
def test_a_text_read_in_pieces_gives_the_same_logits(token_ids, name):
    model = build(rank=8)
    cache = DynamicCache(config=model.config)
    pieces = [model(piece, **{name: cache}).logits for piece in token_ids.split((5, 1, 14), dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(token_ids).logits, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing(token_ids):
    model = build(rank=8)
    short = token_ids[:, :7]
    alone = model.generate(short, max_new_tokens=8, do_sample=False)
    padded = torch.cat((torch.zeros(3, 4, dtype=torch.long), short), 1)
    mask = (torch.arange(11) >= 4).long().expand(3, 11)
    together = model.generate(padded, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert torch.equal(together[:, 4:], alone)
    right = torch.cat((short, torch.zeros(3, 4, dtype=torch.long)), 1)
    logits = model(right, attention_mask=mask.flip(1)).logits[:, :7]
    torch.testing.assert_close(logits, model(short).logits, rtol=1e-5, atol=1e-5)


def test_it_keeps_only_the_logits_that_are_asked_for(token_ids):
    model = build()
    torch.testing.assert_close(
        model(token_ids, logits_to_keep=1).logits, model(token_ids).logits[:, -1:], rtol=1e-5, atol=1e-5
    )


def test_attentions_and_hidden_states_are_to_be_had(token_ids):
    model = build()
    model.set_attn_implementation("eager")
    outputs = model(token_ids, output_attentions=True, output_hidden_states=True)
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(3, 3, 20, 20)] * 2
    assert len(outputs.hidden_states) == 3


def test_gradient_checkpointing_gives_the_same_gradients(token_ids):
    model = build(rank=8, dropout=0.0).train()
    gradients = []
    for use in (False, True):
        if use:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(token_ids, labels=token_ids).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


# Bad input


def test_a_text_longer_than_the_positions_is_refused():
    message = "the text has 33 tokens; the model has learned positions for 32"
    model = build()
    with pytest.raises(LPAError, match=message):
        model(torch.zeros(1, 33, dtype=torch.long))
    cache = model(torch.zeros(1, 32, dtype=torch.long), use_cache=True).past_key_values
    with pytest.raises(LPAError, match=message):
        model(torch.zeros(1, 1, dtype=torch.long), past_key_values=cache)
    with pytest.raises(LPAError, match=message):
        model.generate(torch.zeros(1, 30, dtype=torch.long), max_new_tokens=8, do_sample=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 14}, r"rank is 14; for 24 x 32 matrices .* below break-even, 13\.7143"),
        ({"rank": 0}, "rank is 0; it must be a positive whole number"),
        ({"rank": 0.5}, r"rank is 0\.5; for 24 x 32 matrices it must be a whole number"),
        ({"ffn_rank": 20}, r"ffn_rank is 20; for 48 x 32 matrices .* break-even, 19\.2"),
    ],
)
def test_an_impossible_rank_is_refused(changes, message):
    with pytest.raises(RankError, match=message):
        config(**changes)


def test_an_impossible_size_is_refused():
    with pytest.raises(LPAError, match="head_dim is 0; it must be at least 1"):
        config(head_dim=0)


def test_ids_or_embeddings_are_needed(token_ids):
    with pytest.raises(LPAError, match="give either input_ids or inputs_embeds"):
        build().model()
