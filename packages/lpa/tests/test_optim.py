import copy

import pytest
import torch
from torch import nn

import lpa
from lpa import LowRankLinear, LPAConfig, LPAError
from lpa.optim import add_product_decay, param_groups, product_decay_gradients


def low_rank(tiny_llama, **settings) -> nn.Module:
    return lpa.apply_lpa(tiny_llama(attention_bias=True), LPAConfig(8, **settings)).train()


def test_every_parameter_is_in_one_group(tiny_llama):
    model = low_rank(tiny_llama)
    groups = param_groups(model, lr=1e-3)
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(members) == len(set(members))
    assert set(members) == {id(parameter) for parameter in model.parameters()}


def test_groups_are_the_factors_the_matrices_and_the_vectors(tiny_llama):
    model = low_rank(tiny_llama)
    groups = {
        group["name"]: group
        for group in param_groups(model, lr=1e-3, lr_down=2e-3, lr_up=4e-3, weight_decay=0.1)
    }
    layers = [module for module in model.modules() if isinstance(module, LowRankLinear)]
    assert len(layers) == 8
    assert [id(p) for p in groups["down"]["params"]] == [id(layer.down.weight) for layer in layers]
    assert [id(p) for p in groups["up"]["params"]] == [id(layer.up.weight) for layer in layers]
    assert {parameter.dim() for parameter in groups["vectors"]["params"]} == {1}
    assert {parameter.dim() for parameter in groups["matrices"]["params"]} == {2}
    rates = {name: group["lr"] for name, group in groups.items()}
    assert rates == {"down": 2e-3, "up": 4e-3, "matrices": 1e-3, "vectors": 1e-3}


@pytest.mark.parametrize(("decay", "expected"), [("factors", 0.1), ("product", 0.0), ("none", 0.0)])
def test_decay_says_what_happens_to_the_factors(tiny_llama, decay, expected):
    groups = param_groups(low_rank(tiny_llama), lr=1e-3, weight_decay=0.1, decay=decay)
    assert {group["name"]: group["weight_decay"] for group in groups} == {
        "down": expected,
        "up": expected,
        "matrices": 0.1,
        "vectors": 0.0,
    }


def test_frozen_parameters_are_left_out(tiny_llama):
    model = low_rank(tiny_llama)
    model.model.embed_tokens.requires_grad_(False)
    model.lm_head.requires_grad_(False)
    for layer in model.model.layers:
        layer.mlp.requires_grad_(False)
    assert [group["name"] for group in param_groups(model, lr=1e-3)] == ["down", "up", "vectors"]


def test_a_learning_rate_of_zero_for_one_factor_leaves_it(tiny_llama, token_ids):
    model = low_rank(tiny_llama)
    layer = model.model.layers[0].self_attn.q_proj
    before = [layer.down.weight.clone(), layer.up.weight.clone()]
    optimizer = torch.optim.AdamW(param_groups(model, lr=1e-2, lr_down=0.0))
    model(token_ids, labels=token_ids).loss.backward()
    optimizer.step()
    assert layer.down.weight.equal(before[0])
    assert not layer.up.weight.equal(before[1])


@pytest.mark.parametrize(("n_in", "n_out", "rank"), [(12, 10, 4), (10, 16, 10), (7, 5, 1)])
def test_product_decay_is_the_gradient_of_half_the_squared_norm(n_in, n_out, rank):
    layer = LowRankLinear(n_in, n_out, rank, dtype=torch.float64)
    penalty = 0.5 * (layer.up.weight @ layer.down.weight).square().sum()
    expected = torch.autograd.grad(penalty, (layer.down.weight, layer.up.weight))
    for got, gradient in zip(product_decay_gradients(layer), expected, strict=True):
        torch.testing.assert_close(got, gradient)


def test_a_step_with_product_decay_is_a_step_on_the_penalty(tiny_llama):
    model = low_rank(tiny_llama).double()
    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(param_groups(model, lr=0.1, lr_up=0.05, decay="product"))
    add_product_decay(optimizer, model, weight_decay=0.3)
    layers = [module for module in reference.modules() if isinstance(module, LowRankLinear)]
    penalty = sum(0.5 * layer.effective_weight().square().sum() for layer in layers)
    penalty.backward()
    optimizer.step()
    own = [module for module in model.modules() if isinstance(module, LowRankLinear)]
    for layer, before in zip(own, layers, strict=True):
        torch.testing.assert_close(
            layer.down.weight, before.down.weight - 0.1 * 0.3 * before.down.weight.grad
        )
        torch.testing.assert_close(layer.up.weight, before.up.weight - 0.05 * 0.3 * before.up.weight.grad)


def test_a_shared_a_is_decayed_by_all_its_products(tiny_llama):
    model = low_rank(tiny_llama, share_down=True).double()
    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(param_groups(model, lr=0.1, decay="product"))
    add_product_decay(optimizer, model, weight_decay=0.3)
    layers = [module for module in reference.modules() if isinstance(module, LowRankLinear)]
    sum(0.5 * (layer.up.weight @ layer.down.weight).square().sum() for layer in layers).backward()
    optimizer.step()
    before = reference.model.layers[0].self_attn.q_proj.down.weight
    now = model.model.layers[0].self_attn.q_proj.down.weight
    torch.testing.assert_close(now, before - 0.1 * 0.3 * before.grad)


def test_product_decay_is_apart_from_adams_scaling_and_the_schedule_holds(tiny_llama):
    model = low_rank(tiny_llama)
    layer = model.model.layers[0].self_attn.q_proj
    optimizer = torch.optim.AdamW(param_groups(model, lr=0.1, decay="product"))
    add_product_decay(optimizer, model, weight_decay=0.5)
    for group in optimizer.param_groups:
        group["lr"] *= 0.1
    down, gradient = layer.down.weight.detach().clone(), product_decay_gradients(layer)[0]
    optimizer.step()  # no gradients: only the decay moves anything
    torch.testing.assert_close(layer.down.weight.detach(), down - 0.01 * 0.5 * gradient)


def test_the_handle_takes_the_decay_away(tiny_llama):
    model = low_rank(tiny_llama)
    optimizer = torch.optim.SGD(param_groups(model, lr=0.1, decay="product"))
    add_product_decay(optimizer, model, weight_decay=0.5).remove()
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer.step()
    assert all(p.equal(old) for p, old in zip(model.parameters(), before, strict=True))


def test_product_decay_keeps_the_loss_of_training_and_shrinks_the_product(tiny_llama, token_ids):
    norms = {}
    for weight_decay in (0.0, 1.0):
        torch.manual_seed(0)
        model = low_rank(tiny_llama)
        optimizer = torch.optim.AdamW(param_groups(model, lr=1e-2, decay="product"))
        add_product_decay(optimizer, model, weight_decay)
        for _ in range(15):
            optimizer.zero_grad()
            model(token_ids, labels=token_ids).loss.backward()
            optimizer.step()
        norms[weight_decay] = float(model.model.layers[0].self_attn.q_proj.effective_weight().detach().norm())
    assert norms[1.0] < norms[0.0]


# Bad input


def test_another_decay_is_refused(tiny_llama):
    with pytest.raises(LPAError, match="decay is 'both'; it may be 'factors', 'product' or 'none'"):
        param_groups(low_rank(tiny_llama), lr=1e-3, decay="both")


def test_a_dense_model_has_no_factors(tiny_llama):
    model = tiny_llama()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for call in (lambda: param_groups(model, lr=1e-3), lambda: add_product_decay(optimizer, model, 0.1)):
        with pytest.raises(LPAError, match="LlamaForCausalLM has no low-rank matrix; apply_lpa makes some"):
            call()


def test_an_optimiser_made_before_the_change_is_refused(tiny_llama):
    model = tiny_llama()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lpa.apply_lpa(model, LPAConfig(8))
    with pytest.raises(
        LPAError, match="does not have all factors of the model: was it made before apply_lpa"
    ):
        add_product_decay(optimizer, model, 0.1)


def test_a_bottleneck_has_no_product(tiny_llama):
    model = low_rank(tiny_llama, bottleneck="silu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(LPAError, match="with a bottleneck there is no product B A to decay"):
        add_product_decay(optimizer, model, 0.1)
