import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from lpa import FusedLowRank, LowRankLinear, LPAError, RankError
from lpa.layers import FusedLayout, StackedDown

sizes = st.integers(1, 24)
batch_shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@settings(max_examples=150, deadline=None)
@given(st.data(), sizes, sizes, batch_shapes, st.booleans(), st.booleans())
def test_it_is_the_product_with_the_effective_weight_and_bias(data, n_in, n_out, shape, bias_down, bias_up):
    rank = data.draw(st.integers(1, min(n_in, n_out)))
    layer = LowRankLinear(n_in, n_out, rank, bias_down=bias_down, bias_up=bias_up)
    x = torch.randn(*shape, n_in)
    a = layer.down.bias if bias_down else torch.zeros(rank)
    b = layer.up.bias if bias_up else torch.zeros(n_out)
    down, up = layer.down.weight, layer.up.weight
    expected = F.linear(x, up @ down, up @ a + b)
    # What rounding is relative to: the sum of the magnitudes, which does not cancel.
    magnitude = F.linear(x.abs(), up.abs() @ down.abs(), up.abs() @ a.abs() + b.abs())
    assert layer(x).shape == (*shape, n_out)
    dense = F.linear(x, layer.effective_weight(), layer.effective_bias())
    for computed in (layer(x), dense, layer.to_linear()(x)):
        assert (computed - expected).norm() <= 1e-5 * magnitude.norm()
    assert (layer.effective_bias() is None) == (not bias_down and not bias_up)


@pytest.mark.parametrize("bottleneck", [None, "silu"])
def test_gradients_are_right_in_float64(bottleneck):
    layer = LowRankLinear(6, 5, 3, bias_down=True, bias_up=True, bottleneck=bottleneck, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


class Product(nn.Module):
    def __init__(self, down: torch.Tensor, up: torch.Tensor) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(down.clone()), nn.Parameter(up.clone())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self.up @ self.down


def test_values_and_gradients_are_those_of_a_parametrised_dense_layer():
    layer = LowRankLinear(12, 10, 4, bias_up=True, dtype=torch.float64)
    dense = nn.Linear(12, 10, dtype=torch.float64)
    product = Product(layer.down.weight.detach(), layer.up.weight.detach())
    parametrize.register_parametrization(dense, "weight", product, unsafe=True)
    with torch.no_grad():
        dense.bias.copy_(layer.up.bias)
    x = torch.randn(7, 12, dtype=torch.float64)
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    y1, y2 = layer(x1), dense(x2)
    torch.testing.assert_close(y1, y2)
    y1.square().sum().backward()
    y2.square().sum().backward()
    torch.testing.assert_close(x1.grad, x2.grad)
    torch.testing.assert_close(layer.down.weight.grad, product.down.grad)
    torch.testing.assert_close(layer.up.weight.grad, product.up.grad)
    torch.testing.assert_close(layer.up.bias.grad, dense.bias.grad)


def test_its_factors_are_linear_layers_without_a_dense_parameter():
    layer = LowRankLinear(32, 24, 4)
    assert type(layer.down) is type(layer.up) is nn.Linear
    assert sorted(layer.state_dict()) == ["down.weight", "up.weight"]
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * (32 + 24)


def test_merging_multiplies_in_float32_and_casts_last():
    layer = LowRankLinear(64, 64, 32, dtype=torch.bfloat16)
    exact = layer.up.weight.double() @ layer.down.weight.double()
    # Half a unit in the last of bfloat16's 8 bits, and nothing from sums in low precision.
    assert torch.all((layer.effective_weight().double() - exact).abs() <= exact.abs() * 2**-8 + 1e-7)
    assert layer.to_linear().weight.dtype == torch.bfloat16


@pytest.mark.parametrize("rank", [0, -1, 9, 0.5, True])
def test_an_impossible_rank_is_refused(rank):
    with pytest.raises(RankError, match="rank is"):
        LowRankLinear(16, 8, rank)


@pytest.mark.parametrize("init", ["xavier", "spectral"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_init_that_a_new_layer_cannot_have_is_refused(init, device):
    message = rf"init is '{init}'; .* 'torch', 'hf' or 'matched' \('spectral' .*from_linear\)"
    with pytest.raises(LPAError, match=message):
        LowRankLinear(16, 8, 4, init=init, device=device)


def test_a_layer_with_a_bottleneck_has_no_dense_form():
    layer = LowRankLinear(8, 8, 2, bottleneck="silu")
    x = torch.randn(3, 8)
    torch.testing.assert_close(layer(x), layer.up(F.silu(layer.down(x))))
    with pytest.raises(LPAError, match="bottleneck 'silu' is not linear"):
        layer.to_linear()


def test_it_is_built_where_torch_builds():
    with torch.device("meta"):
        assert LowRankLinear(8, 8, 2).down.weight.is_meta
    assert LowRankLinear(8, 8, 2, device="meta").up.weight.is_meta


def test_from_linear_at_full_rank_is_the_layer():
    linear = nn.Linear(12, 10)
    x = torch.randn(50, 12)
    for layer in (
        LowRankLinear.from_linear(linear, 10),
        LowRankLinear.from_linear(linear, 10, "whitened", inputs=x),
    ):
        torch.testing.assert_close(layer(x), linear(x), rtol=1e-4, atol=1e-5)
        assert layer.up.bias.equal(linear.bias)


# Neighbours


def stacked(*layers: LowRankLinear) -> tuple[LowRankLinear, ...]:
    stack = StackedDown(layers)
    for layer in layers:
        layer.stack = stack
    return layers


def counting_products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights of all further linear products."""
    shapes: list[tuple[int, ...]] = []
    linear = F.linear

    def count(x, weight, bias=None):
        shapes.append(tuple(weight.shape))
        return linear(x, weight, bias)

    monkeypatch.setattr(F, "linear", count)
    return shapes


def neighbours(bias_down: bool) -> list[LowRankLinear]:
    return [
        LowRankLinear(16, n_out, rank, bias_down=bias_down, dtype=torch.float64)
        for n_out, rank in ((12, 5), (8, 3), (8, 4))
    ]


@pytest.mark.parametrize("bias_down", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 0, 1, 2), (0, 2), (2, 0, 1, 0, 1, 2)])
def test_stacked_layers_compute_what_they_compute_alone_in_any_order(bias_down, order):
    alone = neighbours(bias_down)
    together = stacked(*copy.deepcopy(alone))
    x = torch.randn(20, 16, dtype=torch.float64)
    results = []
    for layers in (alone, together):
        inputs = x.clone().requires_grad_()
        outputs = [layers[index](inputs) for index in order]
        sum(output.square().sum() for output in outputs).backward()
        parameters = [parameter for layer in layers for parameter in layer.parameters()]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        results.append((*outputs, inputs.grad, *gradients))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_stacked_layers_called_with_different_tensors_do_not_mix_them_up():
    alone = neighbours(False)
    q, k, v = stacked(*copy.deepcopy(alone))
    x, other = torch.randn(2, 20, 16, dtype=torch.float64)
    calls = [(q, 0, x), (k, 1, other), (v, 2, x), (q, 0, other), (v, 2, other), (k, 1, x), (k, 1, other)]
    for layer, index, inputs in calls:
        torch.testing.assert_close(layer(inputs), alone[index](inputs))


@pytest.mark.parametrize("change", ["input", "weight"])
def test_what_changes_between_two_neighbours_is_read_again(change):
    alone = neighbours(False)
    q, k, _ = stacked(*copy.deepcopy(alone))
    x = torch.randn(20, 16, dtype=torch.float64)
    q(x)
    with torch.no_grad():
        for tensor in (x,) if change == "input" else (k.down.weight, alone[1].down.weight):
            tensor.mul_(-0.5)
    torch.testing.assert_close(k(x), alone[1](x))


def test_a_neighbour_called_without_gradients_takes_none_from_the_others():
    q, k, _ = stacked(*neighbours(False))
    x = torch.randn(20, 16, dtype=torch.float64)
    with torch.no_grad():
        q(x)
    k(x).sum().backward()
    assert k.down.weight.grad is not None


def test_stacking_works_in_inference_mode():
    alone = neighbours(False)
    together = stacked(*copy.deepcopy(alone))
    with torch.inference_mode():
        x = torch.randn(20, 16, dtype=torch.float64)
        for mine, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(mine(x), theirs(x))


def test_three_layers_make_one_down_product_where_that_pays(monkeypatch):
    q, k, v = stacked(*neighbours(False))
    x = torch.randn(20, 16, dtype=torch.float64)
    shapes = counting_products(monkeypatch)
    for layer in (q, k, v):
        layer(x)
    assert shapes == [(12, 16), (12, 5), (8, 3), (8, 4)]  # the three A's have 5 + 3 + 4 rows
    shapes.clear()
    for layer in (q, k, v):
        layer(x[:1])  # one token: copying the A's would cost more than it saves
    assert shapes == [(5, 16), (12, 5), (3, 16), (8, 3), (4, 16), (8, 4)]


def in_another_thread(function, *arguments):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def test_what_waits_for_the_neighbours_is_each_threads_own(monkeypatch):
    alone = neighbours(False)
    q, k, v = stacked(*copy.deepcopy(alone))
    x, other = torch.randn(2, 20, 16, dtype=torch.float64)
    q(x)
    in_another_thread(q, other)
    shapes = counting_products(monkeypatch)
    k(x)
    assert shapes == [(8, 3)]  # B alone: the other thread's call has not taken what was computed in this one
    torch.testing.assert_close(in_another_thread(v, x), alone[2](x))
    torch.testing.assert_close(v(x), alone[2](x))


def test_a_replica_of_data_parallel_computes_with_its_own_factors():
    alone = neighbours(False)
    replicas = [layer._replicate_for_data_parallel() for layer in stacked(*copy.deepcopy(alone))]
    for replica in replicas:
        replica.down, replica.up = copy.deepcopy(replica.down), copy.deepcopy(replica.up)
    x = torch.randn(20, 16, dtype=torch.float64)
    for replica, layer in zip(replicas, alone, strict=True):
        torch.testing.assert_close(replica(x), layer(x))


def test_an_adapter_on_a_factor_is_not_bypassed():
    q, k, v = stacked(*neighbours(False))
    seen = []
    k.down.register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(20, 16, dtype=torch.float64)
    for layer in (q, k, v):
        layer(x)
    assert len(seen) == 1


def test_a_stack_survives_copying_and_pickling_without_its_tensors():
    q, k, v = stacked(*neighbours(False))
    x = torch.randn(20, 16, dtype=torch.float64)
    q(x)  # k and v have not been called yet
    holder = nn.ModuleList([q, k, v])
    for other in (copy.deepcopy(holder), pickle.loads(pickle.dumps(holder))):
        assert other[0].stack is other[1].stack is not q.stack
        assert other[0].stack.layers[0] is other[0]
        for mine, theirs in zip(other, holder, strict=True):
            torch.testing.assert_close(mine(x), theirs(x))


layouts = st.tuples(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=2, max_size=3).map(tuple))


@given(layouts)
@settings(deadline=None, max_examples=50)
def test_joining_what_was_split_gives_it_back(layout):
    groups, widths = layout
    fused = torch.randn(groups * sum(widths), 3)
    parts = FusedLayout(groups, widths).split(fused)
    assert [len(part) for part in parts] == [groups * width for width in widths]
    torch.testing.assert_close(FusedLayout(groups, widths).join(parts, dim=0), fused)


def test_an_interleaved_layout_has_the_rows_of_a_head_together():
    rows = torch.arange(12)  # 2 groups of (q q, k k, v v)
    q, k, v = FusedLayout(2, (2, 2, 2)).split(rows)
    assert q.tolist() == [0, 1, 6, 7]
    assert k.tolist() == [2, 3, 8, 9]
    assert v.tolist() == [4, 5, 10, 11]


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("tokens", [2, 30])
def test_a_fused_layer_is_its_parts_in_the_models_layout(stacked, tokens):
    layout = FusedLayout(2, (4, 4, 4))
    parts = {
        "q": LowRankLinear(16, 8, 3, bias_up=True),
        "k": nn.Linear(16, 8),
        "v": LowRankLinear(16, 8, 4, bias_up=True),
    }
    fused = FusedLowRank(parts, layout, stacked=stacked)
    x = torch.randn(tokens, 16)
    expected = layout.join([part(x) for part in parts.values()])
    torch.testing.assert_close(fused(x), expected)
    torch.testing.assert_close(fused.to_linear()(x), expected, rtol=1e-4, atol=1e-5)
