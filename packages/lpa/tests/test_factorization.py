import copy
import itertools
import re
import warnings

import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lpa
from lpa import LowRankLinear, LPAConfig, LPAError, LPAWarning, RankError
from lpa.architectures import sites
from lpa.factorization import factors, second_moment, second_moments
from lpa.surgery import part_weights

pytestmark = pytest.mark.filterwarnings("ignore:rank .* is below the head width:lpa.LPAWarning")


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(2, 20), st.integers(2, 20))
def test_the_error_of_the_plain_factors_is_the_tail_of_the_spectrum(data, n_in, n_out):
    rank = data.draw(st.integers(1, min(n_in, n_out)))
    weight = torch.randn(n_out, n_in, dtype=torch.float64)
    down, up = factors(weight, rank)
    assert down.shape == (rank, n_in)
    assert up.shape == (n_out, rank)
    tail = torch.linalg.svdvals(weight)[rank:].norm()
    torch.testing.assert_close((weight - up @ down).norm(), tail, rtol=1e-5, atol=1e-12)


def test_the_error_in_float32_is_the_tail_too():
    weight = torch.randn(96, 64)
    down, up = factors(weight, 20)
    tail = torch.linalg.svdvals(weight.double())[20:].norm()
    assert float((weight - up @ down).norm()) == pytest.approx(float(tail), rel=1e-5)


def correlated(tokens: int, n_in: int) -> torch.Tensor:
    """Inputs whose directions differ in scale by four orders of magnitude."""
    basis = torch.linalg.qr(torch.randn(n_in, n_in, dtype=torch.float64)).Q
    return torch.randn(tokens, n_in, dtype=torch.float64) * torch.logspace(0, -4, n_in) @ basis


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 11), st.integers(0, 10_000))
def test_whitened_is_never_worse_than_plain_on_the_inputs(rank, seed):
    torch.manual_seed(seed)
    weight, inputs = torch.randn(16, 12, dtype=torch.float64), correlated(200, 12)
    plain = factors(weight, rank)
    whitened = factors(weight, rank, "whitened", second_moment(inputs))
    errors = [float(((weight - up @ down) @ inputs.T).norm()) for down, up in (plain, whitened)]
    assert errors[1] <= errors[0] * (1 + 1e-9)


def test_whitened_reaches_the_best_error_there_is():
    weight, inputs = torch.randn(16, 12, dtype=torch.float64), correlated(200, 12)
    down, up = factors(weight, 5, "whitened", second_moment(inputs))
    # The outputs X W^T of rank 5 that are nearest: Eckart and Young again.
    best = torch.linalg.svdvals(inputs @ weight.T)[5:].norm()
    torch.testing.assert_close(((weight - up @ down) @ inputs.T).norm(), best, rtol=1e-6, atol=0)
    plain_down, plain_up = factors(weight, 5)
    assert ((weight - plain_up @ plain_down) @ inputs.T).norm() > 1.5 * best


def test_whitened_with_white_inputs_is_the_plain_product():
    weight = torch.randn(10, 8, dtype=torch.float64)
    down, up = factors(weight, 3, "whitened", torch.eye(8))
    plain_down, plain_up = factors(weight, 3)
    torch.testing.assert_close(up @ down, plain_up @ plain_down)


def test_factors_keep_the_dtype_and_are_computed_in_a_better_one():
    weight = torch.randn(32, 24).to(torch.bfloat16)
    down, up = factors(weight, 24)
    assert down.dtype == up.dtype == torch.bfloat16
    assert (weight.float() - up.float() @ down.float()).norm() / weight.float().norm() < 0.01


def test_the_second_moment_is_the_mean_of_x_xt():
    inputs = torch.randn(3, 7, 5)
    rows = inputs.reshape(-1, 5).double()
    torch.testing.assert_close(second_moment(inputs), rows.T @ rows / 21)


def test_a_singular_moment_is_damped_and_that_is_said():
    inputs = torch.randn(100, 8, dtype=torch.float64)
    inputs[:, 5] = inputs[:, 4]
    with pytest.warns(
        LPAWarning, match=r"second moment of 8 inputs is singular.*\(1e-06 of the mean eigenvalue\)"
    ):
        down, up = factors(torch.eye(8, dtype=torch.float64), 8, "whitened", second_moment(inputs))
    torch.testing.assert_close(up @ down, torch.eye(8, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_a_regular_moment_is_not_damped():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        factors(torch.randn(8, 8), 4, "whitened", second_moment(correlated(100, 8)))


@pytest.mark.parametrize("rank", [0, 9])
def test_an_impossible_rank_is_refused(rank):
    with pytest.raises(RankError, match=f"rank is {rank}; a 8 x 10 matrix has factors of rank 1 to 8"):
        factors(torch.randn(8, 10), rank)


@pytest.mark.parametrize(
    ("method", "moment", "message"),
    [
        ("qr", None, "method is 'qr'; it may be 'svd' or 'whitened'"),
        ("whitened", None, "method 'whitened' needs inputs"),
        ("svd", torch.eye(4), "method 'svd' does not look at inputs"),
        ("whitened", torch.eye(5), r"the second moment is \(5, 5\); for 4 inputs it must be \(4, 4\)"),
        ("whitened", torch.zeros(4, 4), "the inputs are all zero"),
    ],
)
def test_a_method_and_what_it_needs_belong_together(method, moment, message):
    with pytest.raises(LPAError, match=message):
        factors(torch.randn(6, 4), 2, method, moment)


def test_no_inputs_are_refused():
    with pytest.raises(LPAError, match="no calibration token"):
        second_moment(torch.zeros(0, 4))


# Whole models


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        site.full_name(part): weight.detach().clone()
        for site in sites(model)
        for part, weight in part_weights(model, site).items()
    }


def recorded_inputs(model: nn.Module, name: str, ids: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(ids)
    handle.remove()
    return torch.cat([x.reshape(-1, x.shape[-1]) for x in seen]).double()


def test_whitened_factors_of_a_model_are_those_of_its_own_inputs(tiny_llama, token_ids):
    model = tiny_llama()
    names = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.o_proj"]
    inputs = {name: recorded_inputs(model, name, token_ids) for name in names}
    dense = whole(model)
    lpa.factorize(model, LPAConfig(8), method="whitened", calibration=token_ids.split(1))
    low = whole(model)
    for name, x in inputs.items():
        error = ((dense[name] - low[name]).double() @ x.T).norm()
        best = torch.linalg.svdvals(x @ dense[name].double().T)[8:].norm()
        torch.testing.assert_close(error, best, rtol=1e-3, atol=0)


def test_whitened_is_nearer_to_the_model_than_plain(tiny_llama, token_ids):
    model = tiny_llama()
    with torch.no_grad():  # real inputs are far from white
        model.model.embed_tokens.weight *= torch.logspace(0, -3, 32)
    expected = model(token_ids).logits
    errors = {}
    for method, calibration in (("svd", None), ("whitened", [token_ids])):
        low = lpa.factorize(copy.deepcopy(model), LPAConfig(8), method=method, calibration=calibration)
        errors[method] = float((low(token_ids).logits - expected).detach().norm())
    assert errors["whitened"] < 0.9 * errors["svd"]


def test_neighbours_with_one_input_share_its_moment(tiny_llama, token_ids):
    model = tiny_llama()
    found = list(sites(model))
    moments = second_moments(model, found, [token_ids, {"input_ids": token_ids}])
    by_name = {site.name: moment for site, moment in moments.items()}
    attention = "model.layers.0.self_attn."
    assert by_name[attention + "q_proj"] is by_name[attention + "k_proj"] is by_name[attention + "v_proj"]
    assert by_name[attention + "o_proj"] is not by_name[attention + "q_proj"]
    assert by_name["model.layers.0.mlp.gate_proj"] is by_name["model.layers.0.mlp.up_proj"]
    assert len({id(moment) for moment in moments.values()}) == 2 * 4
    assert all(moment.tokens == 2 * token_ids.numel() for moment in moments.values())


def test_padding_does_not_count(tiny_llama, token_ids):
    model = tiny_llama()
    found = list(sites(model))
    mask = torch.ones_like(token_ids)
    mask[:, 15:] = 0
    padded = second_moments(model, found, [{"input_ids": token_ids, "attention_mask": mask}])
    short = second_moments(model, found, [token_ids[:, :15]])
    for site in found:
        torch.testing.assert_close(padded[site].mean(), short[site].mean(), rtol=1e-4, atol=1e-6)


def test_calibration_leaves_the_model_as_it_was(tiny_llama, token_ids):
    model = tiny_llama(attention_dropout=0.5).train()
    second_moments(model, list(sites(model)), [token_ids])
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_bias_stays_and_the_config_is_recorded(tiny_llama):
    model = tiny_llama(attention_bias=True)
    with torch.no_grad():
        model.model.layers[0].self_attn.k_proj.bias.normal_()
    bias = model.model.layers[0].self_attn.k_proj.bias.clone()
    lpa.factorize(model, LPAConfig(8))
    layer = model.model.layers[0].self_attn.k_proj
    assert isinstance(layer, LowRankLinear)
    assert layer.up.bias.equal(bias)
    assert layer.down.bias is None
    assert model.config.to_dict()["quantization_config"]["rank"] == 8


def test_a_model_in_training_mode_stays_in_it(tiny_llama):
    assert lpa.factorize(tiny_llama().train(), LPAConfig(8)).model.layers[0].self_attn.q_proj.training


# Bad input


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        ({}, {"method": "whitened"}, "method 'whitened' needs calibration"),
        ({}, {"calibration": []}, "method 'svd' does not look at calibration"),
        ({}, {"method": "asvd"}, "method is 'asvd'; it may be 'svd' or 'whitened'"),
        ({}, {"method": "whitened", "calibration": []}, "calibration has no batch"),
        ({"init": "matched"}, {}, "init 'matched' is a start from scratch"),
        ({"init": "hf"}, {}, "init 'hf' is a start from scratch"),
        ({"bottleneck": "silu"}, {}, "bottleneck 'silu' puts a nonlinearity between A and B"),
        ({"share_down": True}, {}, "share_down gives q, k and v one A"),
    ],
)
def test_settings_without_meaning_are_refused(tiny_llama, config, settings, message):
    model = tiny_llama()
    with pytest.raises(LPAError, match=message):
        lpa.factorize(model, LPAConfig(8, **config), **settings)
    assert not lpa.is_lpa(model)


def test_a_model_without_values_is_refused_and_estimate_named(tiny_llama):
    with torch.device("meta"):
        model = tiny_llama()
    with pytest.raises(LPAError, match=r"q_proj is on the meta device and has no values.*estimate works"):
        lpa.factorize(model, LPAConfig(8))
    with pytest.raises(LPAError, match="meta device"):
        lpa.ranks_by_energy(model, 0.9)


def test_fewer_tokens_than_the_rank_are_refused(tiny_llama, token_ids):
    with pytest.raises(
        LPAError, match=r"q_proj: 5 calibration tokens cannot say which 8 .* at least 320 tokens"
    ):
        lpa.factorize(tiny_llama(), LPAConfig(8), method="whitened", calibration=[token_ids[:1, :5]])


def test_fewer_tokens_than_inputs_warn(tiny_llama, token_ids):
    model = tiny_llama()
    with (
        pytest.warns(LPAWarning, match="q_proj has 32 inputs, more than the 20 calibration tokens"),
        pytest.warns(LPAWarning, match="is singular"),
    ):
        lpa.factorize(model, LPAConfig(8), method="whitened", calibration=[token_ids[:1]])
    assert torch.isfinite(model(token_ids).logits).all()


# Which rank where


def spectrum_model(tiny_llama) -> nn.Module:
    """A model whose q matrices have ranks 3 and 20, so to speak: singular values that fall early or late."""
    model = tiny_llama(num_key_value_heads=4)
    for layer, strong in zip(model.model.layers, (3, 20), strict=True):
        q = layer.self_attn.q_proj.weight
        u, _, vt = torch.linalg.svd(q.detach())
        with torch.no_grad():
            q.copy_(u @ torch.diag(torch.where(torch.arange(32) < strong, 1.0, 0.01)) @ vt)
    return model


def test_ranks_by_energy_are_the_lowest_that_keep_it(tiny_llama):
    model = spectrum_model(tiny_llama)
    ranks = lpa.ranks_by_energy(model, 0.88)
    assert ranks[r"^(?:model\.)?layers\.0\.self_attn\.q_proj$"] == 3
    assert ranks[r"^(?:model\.)?layers\.1\.self_attn\.q_proj$"] == 18
    for site in sites(model):
        if site.role in "qkvo":
            energy = torch.linalg.svdvals(part_weights(model, site)[""]).square()
            (rank,) = (rank for pattern, rank in ranks.items() if re.search(pattern, site.name))
            assert energy[:rank].sum() >= 0.88 * energy.sum() > energy[: rank - 1].sum()


def test_all_the_energy_is_every_rank(tiny_llama):
    ranks = lpa.ranks_by_energy(tiny_llama(), 1.0)
    assert sorted(set(ranks.values())) == [16, 32]


def test_ranks_by_energy_go_into_a_config(tiny_llama):
    model = spectrum_model(tiny_llama)
    pattern = lpa.ranks_by_energy(model, 0.88, targets=("q",))
    lpa.factorize(model, LPAConfig(1, targets=("q",), rank_pattern=pattern, allow_expand=True))
    assert [layer.self_attn.q_proj.rank for layer in model.model.layers] == [3, 18]


@pytest.mark.parametrize("saved_before", [True, False])
def test_a_rank_for_each_matrix_is_read_by_the_inner_model_too(tiny_llama, token_ids, tmp_path, saved_before):
    model = spectrum_model(tiny_llama)
    pattern = lpa.ranks_by_energy(model, 0.88, targets=("q",))
    if saved_before:  # the pattern's form until now
        pattern = {name.replace(r"(?:model\.)?", r"model\."): rank for name, rank in pattern.items()}
    targets = (r"^model\.layers\.\d+\.self_attn\.q_proj$",)
    lpa.factorize(model, LPAConfig(1, targets=targets, rank_pattern=pattern, allow_expand=True))
    model.save_pretrained(tmp_path / "whole")
    inner = tf.AutoModel.from_pretrained(tmp_path / "whole")
    assert [layer.self_attn.q_proj.rank for layer in inner.layers] == [3, 18]
    hidden = inner(token_ids).last_hidden_state
    assert torch.equal(model.lm_head(hidden), model(token_ids).logits)
    inner.save_pretrained(tmp_path / "inner")
    again = tf.AutoModel.from_pretrained(tmp_path / "inner")
    assert torch.equal(again(token_ids).last_hidden_state, hidden)


def cost_and_loss(model: nn.Module, ranks: dict[str, int]) -> tuple[int, float]:
    """Parameters of the factors, and the sum of the shares of energy that they lose."""
    cost, loss = 0, 0.0
    for pattern, rank in ranks.items():
        (matrix,) = (module for name, module in model.named_modules() if re.search(pattern, name))
        weight = matrix.weight.detach()
        energy = torch.linalg.svdvals(weight).double().square()
        cost += rank * sum(weight.shape)
        loss += float(energy[rank:].sum() / energy.sum())
    return cost, loss


def test_ranks_by_budget_lose_least_of_all_ranks_that_fit(tiny_llama):
    model = spectrum_model(tiny_llama)
    ranks = lpa.ranks_by_budget(model, 0.4, targets=("q",))
    budget = int(0.4 * 2 * 32 * 32)
    cost, loss = cost_and_loss(model, ranks)
    assert cost <= budget < cost + 64
    names = list(ranks)
    others = [
        cost_and_loss(model, dict(zip(names, pair, strict=True)))
        for pair in itertools.product(range(1, 16), repeat=2)
    ]
    assert loss == pytest.approx(min(other for price, other in others if price <= budget))
    assert ranks[names[0]] == 3 or ranks[names[1]] == 9


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.6, 0.95])
def test_ranks_by_budget_always_fit_and_save(tiny_llama, fraction):
    model = tiny_llama()
    ranks = lpa.ranks_by_budget(model, fraction)
    dense = 2 * (2 * 32 * 32 + 2 * 32 * 16)
    assert cost_and_loss(model, ranks)[0] <= fraction * dense
    assert len(ranks) == 8
    lpa.factorize(model, LPAConfig(1, rank_pattern=ranks))  # no allow_expand: each is below break-even
    assert lpa.estimate(model, 8).params < lpa.estimate(model, 8).dense_params


def test_parts_of_a_fused_matrix_have_their_own_ranks():
    model = tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4))
    pattern = lpa.ranks_by_budget(model, 0.5)
    assert set(pattern) == {
        rf"^(?:transformer\.)?h\.0\.attn\.{name}$"
        for name in (r"c_attn\.q", r"c_attn\.k", r"c_attn\.v", "c_proj")
    }
    lpa.factorize(model, LPAConfig(1, rank_pattern=pattern))
    parts = model.transformer.h[0].attn.c_attn.parts
    assert {
        rf"^(?:transformer\.)?h\.0\.attn\.c_attn\.{name}$": part.rank for name, part in parts.items()
    }.items() <= (pattern.items())


@pytest.mark.parametrize("energy", [0, 1.5, -1])
def test_an_impossible_energy_is_refused(tiny_llama, energy):
    with pytest.raises(LPAError, match=rf"energy is {energy}; it must be in \(0, 1\]"):
        lpa.ranks_by_energy(tiny_llama(), energy)


def test_an_impossible_budget_is_refused(tiny_llama):
    with pytest.raises(LPAError, match=r"fraction is 1\.2; it must be between 0 and 1"):
        lpa.ranks_by_budget(tiny_llama(), 1.2)
    with pytest.raises(
        LPAError, match=r"0\.01 of the parameters of 8 matrices is 61; rank 1 of each needs 448"
    ):
        lpa.ranks_by_budget(tiny_llama(), 0.01)
