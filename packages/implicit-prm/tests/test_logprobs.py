"""Log-probs by chunks and through whole models, held to the logits that they never make."""

import copy
import inspect
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForSequenceClassification

from implicit_prm import ImplicitPRMError, logprobs
from implicit_prm.functional import ce_loss, implicit_rewards
from implicit_prm.logprobs import causal_log_probs, linear_log_probs

VOCABULARY = 37
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.5,
}
# What a model does after its head decides how its log-probs are found.
PLAIN = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 4},
    "gpt_neox": {},
    "phi3": {},
    "phi": {},  # a head with a bias
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
}
REWORKED = {
    "gemma2": {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0},
}
LENGTHS = (5, 9, 2)
# In float64 transformers (from 5.24 on) gives Gemma 2, whose scores it caps, a softmax of float32 and NaN at
# padding, the least float64 being -inf there.
IN_FLOAT32 = {"gemma2"}


def tiny_model(family, dtype=None, **changes):
    torch.manual_seed(0)
    dtype = dtype or (torch.float32 if family in IN_FLOAT32 else torch.float64)
    config = AutoConfig.for_model(family, **TINY | (PLAIN | REWORKED).get(family, {}) | changes)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


def tolerance(family):
    return {"rtol": 1e-5, "atol": 1e-5} if family in IN_FLOAT32 else {"rtol": 0, "atol": 1e-10}


def rows(lengths=LENGTHS, vocabulary=VOCABULARY):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, vocabulary, (n,), generator=generator) for n in lengths]


def padded(sequences, side):
    width = max(map(len, sequences)) + 1  # one column that is padding in every row
    ids, mask = torch.zeros(len(sequences), width, dtype=torch.long), torch.zeros(len(sequences), width)
    for row, sequence in enumerate(sequences):
        span = slice(width - len(sequence), width) if side == "left" else slice(0, len(sequence))
        ids[row, span], mask[row, span] = sequence, 1
    return ids, mask


def naive(model, sequence):
    """The textbook way, one unpadded row: log-softmax of the logits, 0 for the first token."""
    log_probs = model(input_ids=sequence[None]).logits[0, :-1].log_softmax(-1)
    return torch.cat([log_probs.new_zeros(1), log_probs.gather(1, sequence[1:, None])[:, 0]])


def forbid_whole_logits(monkeypatch):
    def refuse(*args):
        raise AssertionError("the logits were made whole")

    monkeypatch.setattr(logprobs, "token_log_probs", refuse)


class LargestTensor(TorchDispatchMode):
    """How many numbers the largest tensor holds that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


class Operations(TorchDispatchMode):
    """The names of the operations that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


# The head


def head(count=6, width=5, vocabulary=11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(count)
    hidden, weight = (
        torch.randn(n, width, generator=generator, dtype=torch.float64).to(dtype) for n in (count, vocabulary)
    )
    return hidden, weight, torch.randint(vocabulary, (count,), generator=generator)


def textbook(hidden, weight, targets):
    return (hidden @ weight.T).log_softmax(-1).gather(1, targets[:, None])[:, 0]


@settings(deadline=None, max_examples=30)
@given(count=st.integers(0, 9), vocabulary=st.integers(1, 12), chunk_size=st.integers(1, 10))
def test_any_chunk_size_gives_the_textbook_values_and_gradients(count, vocabulary, chunk_size):
    hidden, weight, targets = head(count, 3, vocabulary)
    hidden.requires_grad_(), weight.requires_grad_()
    upstream = torch.linspace(-1, 2, count, dtype=torch.float64)
    results = []
    for values in (linear_log_probs(hidden, weight, targets, chunk_size), textbook(hidden, weight, targets)):
        results.append([values, *torch.autograd.grad(values @ upstream, (hidden, weight))])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_gradient_of_a_frozen_head_is_the_textbook_s_and_takes_no_third_product(dtype):
    hidden, weight, targets = head(count=7, dtype=dtype)
    bias = torch.linspace(-1, 1, len(weight), dtype=dtype)
    upstream = torch.linspace(-1, 2, 7)
    with Operations() as ours:
        values = linear_log_probs(hidden.requires_grad_(), weight, targets, 3, bias)
        (gradient,) = torch.autograd.grad(values, hidden, upstream.to(values.dtype))
    assert sum("mm" in name for name in ours.names) == 2 * 3  # of each of the three chunks
    assert gradient.dtype == dtype
    exact = hidden.detach().double().requires_grad_()
    logits = exact @ weight.double().T + bias.double()
    expected = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    expected.backward(upstream.double())
    atol = 1e-12 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(values.detach().double(), expected.detach(), rtol=0, atol=atol)
    torch.testing.assert_close(gradient.double(), exact.grad, rtol=0, atol=atol)


@pytest.mark.parametrize(("chunk_size", "products"), [(7, 1 + 2), (3, 3 + 2 + 3 * 2)])
def test_a_trained_head_computes_no_logits_of_its_last_chunk_again(chunk_size, products):
    hidden, weight, targets = head(count=7)
    hidden.requires_grad_(), weight.requires_grad_()
    with Operations() as ours:
        linear_log_probs(hidden, weight, targets, chunk_size).sum().backward()
    assert sum("mm" in name for name in ours.names) == products


@pytest.mark.parametrize("chunk_size", [7, 3])
def test_a_second_pass_over_the_graph_gives_the_gradients_of_the_first(chunk_size):
    hidden, weight, targets = head(count=7)
    inputs = hidden.requires_grad_(), weight.requires_grad_()
    values = linear_log_probs(hidden, weight, targets, chunk_size)
    first, second = (torch.autograd.grad(values.sum(), inputs, retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_gradients_of_hidden_weight_and_bias_are_those_of_finite_differences():
    hidden, weight, targets = head()
    inputs = [x.requires_grad_() for x in (hidden, weight, torch.randn(11, dtype=torch.float64))]
    assert torch.autograd.gradcheck(lambda h, w, b: linear_log_probs(h, w, targets, 4, b), inputs)


def test_float32_agrees_with_the_textbook_to_1e_5_and_survives_large_logits():
    hidden, weight, targets = head(50, 64, 999, torch.float32)
    torch.testing.assert_close(
        linear_log_probs(hidden, weight, targets, 16), textbook(hidden, weight, targets), rtol=1e-5, atol=1e-5
    )
    huge = linear_log_probs(1e4 * hidden, weight, targets)
    torch.testing.assert_close(huge, textbook(1e4 * hidden, weight, targets), rtol=1e-5, atol=1e-5)


def test_neither_pass_makes_a_tensor_of_all_logits():
    hidden, weight, targets = head(count=64, width=4, vocabulary=500)
    hidden.requires_grad_(), weight.requires_grad_()
    with LargestTensor() as seen:
        linear_log_probs(hidden, weight, targets, chunk_size=8).sum().backward()
    assert seen.largest == 8 * 500
    with LargestTensor() as seen:
        textbook(hidden, weight, targets)
    assert seen.largest == 64 * 500


def test_no_gradient_is_worked_out_that_nobody_needs():
    hidden, weight, targets = head()
    with torch.no_grad():
        assert not linear_log_probs(hidden.requires_grad_(), weight, targets).requires_grad
    linear_log_probs(hidden, weight, targets).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_bfloat16_weights_get_a_float32_softmax_and_sum_their_gradients_in_float32():
    hidden, weight, targets = (x.requires_grad_() if x.is_floating_point() else x for x in head(300, 8, 40))
    half_hidden, half_weight = (x.detach().bfloat16().requires_grad_() for x in (hidden, weight))
    values = linear_log_probs(half_hidden, half_weight, targets, chunk_size=3)
    expected = linear_log_probs(half_hidden.double(), half_weight.double(), targets)
    assert values.dtype == torch.float32
    # A logit of magnitude up to 16 is rounded to 8 bits, by up to 2**-5 (measured 0.034).
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=2 * 2**-5)
    values.sum().backward()
    (exact,) = torch.autograd.grad(expected.sum(), half_weight)
    # A hundred chunks: summed in bfloat16 they would be off by several per cent (measured 0.003).
    difference = (half_weight.grad.double() - exact.double()).norm() / exact.double().norm()
    assert difference < 0.01


def test_autocast_multiplies_in_its_dtype_and_gives_float32_gradients():
    hidden, weight, targets = head(dtype=torch.float32)
    hidden.requires_grad_(), weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        values = linear_log_probs(hidden, weight, targets)
    values.sum().backward()
    expected = linear_log_probs(hidden.detach().bfloat16(), weight.detach().bfloat16(), targets)
    torch.testing.assert_close(values.detach(), expected, rtol=0, atol=0)
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
@pytest.mark.parametrize("autocast", [False, True])
def test_the_kernels_of_a_gpu_give_the_same(autocast, monkeypatch):
    import implicit_prm_triton

    inputs, targets = (lambda *x: (x[:2], x[2]))(*head(count=6, dtype=torch.float32))
    found = []
    for kernels in (None, implicit_prm_triton):
        monkeypatch.setattr(logprobs, "_kernels", lambda hidden, kernels=kernels: kernels)
        leaves = [x.clone().requires_grad_() for x in inputs]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            values = linear_log_probs(*leaves, targets, chunk_size=4)
        values.sum().backward()
        found.append((values.detach(), *(leaf.grad for leaf in leaves)))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype == torch.float32
        torch.testing.assert_close(theirs, ours, rtol=0, atol=5e-2 if autocast else 1e-5)


# Whole models


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", [*PLAIN, *REWORKED])
def test_a_padded_or_packed_batch_gives_every_row_its_textbook_values(family, side, packed, monkeypatch):
    model, sequences = tiny_model(family), rows()
    if family in PLAIN:
        forbid_whole_logits(monkeypatch)
    ids, mask = padded(sequences, side)
    with torch.no_grad():
        values = causal_log_probs(model, ids, mask, chunk_size=4, packed=packed)
        for row, sequence in enumerate(sequences):
            expected = naive(model, sequence)
            torch.testing.assert_close(values[row][mask[row] == 1], expected, **tolerance(family))
    assert (values[mask == 0] == 0).all()
    assert "forward" not in vars(model.get_output_embeddings())


def test_packing_is_refused_where_sequences_would_see_each_other(llama):
    logprobs.check_packing(llama)
    with pytest.raises(ImplicitPRMError, match="BloomForCausalLM takes no position_ids"):
        logprobs.check_packing(tiny_model("bloom", n_layer=2, n_head=2))
    blind = tiny_model("llama")
    read = blind.forward
    blind.forward = lambda input_ids, position_ids, **others: read(input_ids=input_ids, **others)
    blind.forward.__signature__ = inspect.signature(read)
    with pytest.raises(ImplicitPRMError, match="lets packed sequences see each other"):
        logprobs.check_packing(blind)


def test_a_model_without_position_ids_reads_the_mask_alone():
    model, (ids, mask) = tiny_model("bloom", n_layer=2, n_head=2), padded(rows((6,)), "right")
    with torch.no_grad():
        values, expected = causal_log_probs(model, ids, mask), naive(model, ids[0, :6])
    torch.testing.assert_close(values[0, :6], expected, rtol=0, atol=1e-6)  # its ALiBi slopes are float32


@pytest.mark.parametrize("family", ["llama", "phi", "gemma2"])
def test_gradients_of_a_whole_model_are_the_textbook_ones(family):
    model, sequences = tiny_model(family), rows()
    ids, mask = padded(sequences, "left")
    ours = torch.autograd.grad(causal_log_probs(model, ids, mask, 4).sum(), tuple(model.parameters()))
    loss = sum(naive(model, sequence).sum() for sequence in sequences)
    expected = torch.autograd.grad(loss, tuple(model.parameters()))
    torch.testing.assert_close(ours, expected, **tolerance(family))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_only_the_marked_tokens_are_worked_out(family):
    model, (ids, mask) = tiny_model(family), padded(rows(), "right")
    marked = torch.zeros_like(mask)
    marked[0, 3:5] = marked[1, 4] = marked[2, 0] = marked[2, 6] = 1  # a first token and a padding, too
    with torch.no_grad():
        values = causal_log_probs(model, ids, mask, completion_mask=marked)
        expected = causal_log_probs(model, ids, mask)
    kept = marked.clone()
    kept[2] = 0
    torch.testing.assert_close(values, expected * kept, **tolerance(family))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_after_a_cache_a_model_s_first_call_gives_the_values_of_the_whole_row(family):
    model, (sequence,) = tiny_model(family), rows((9,))
    with torch.no_grad():
        expected = naive(model, sequence)[6:]
        cache = model(input_ids=sequence[None, :5], use_cache=True).past_key_values
        inputs = {"input_ids": sequence[None, 5:], "past_key_values": cache, "use_cache": True}
        places = torch.tensor([[True, True, True, False]])
        values = logprobs.chosen_log_probs(model, inputs, sequence[6:], places)
    torch.testing.assert_close(values, expected, **tolerance(family))


def test_the_first_call_draws_the_random_numbers_of_every_other():
    model, (ids, mask) = tiny_model("llama", attention_dropout=0.5).train(), padded(rows(), "right")
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        drawn.append(causal_log_probs(model, ids, mask).detach())
    torch.testing.assert_close(*drawn, rtol=0, atol=0)
    assert (drawn[0] - causal_log_probs(model.eval(), ids, mask)).abs().max() > 0.01


def test_no_marked_token_is_zero_everywhere_and_still_has_a_gradient(llama):
    ids, mask = padded(rows(), "right")
    values = causal_log_probs(llama, ids, mask, completion_mask=torch.zeros_like(mask))
    assert (values == 0).all()
    (gradient,) = torch.autograd.grad(values.sum(), llama.lm_head.weight)
    assert (gradient == 0).all()


def test_a_model_never_makes_its_logits():
    model, (ids, mask) = tiny_model("llama", vocab_size=1000), padded(rows((30, 30)), "right")
    with LargestTensor() as seen, torch.no_grad():
        causal_log_probs(model, ids, mask, chunk_size=4)
    assert seen.largest <= 1000 * 16  # the transpose of the head's weight; all logits are 62 * 1000


def test_two_equal_models_give_exactly_equal_rewards_of_zero():
    model = tiny_model("llama", torch.float32)
    ids, mask = padded(rows(), "left")
    with torch.no_grad():
        logps, ref = (causal_log_probs(m, ids, mask) for m in (model, copy.deepcopy(model)))
    rewards = implicit_rewards(logps, ref, mask, beta=0.05)
    assert all((part == 0).all() for part in rewards)
    assert ce_loss(rewards.outcome, torch.tensor([1.0, 0, 1])).item() == pytest.approx(math.log(2))


def test_proposition_3_1_holds_for_two_llamas_on_every_continuation():
    """V = 3, T = 3 after one prompt token: q_t = beta log of the reference's mean of exp(h / beta)."""
    policy, reference = tiny_model("llama", vocab_size=3), tiny_model("llama", vocab_size=3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.3)
    ids = torch.cartesian_prod(torch.tensor([1]), *[torch.arange(3)] * 3)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        logps, ref = (causal_log_probs(model, ids, mask) for model in (policy, reference))
    beta = 0.05
    rewards = implicit_rewards(logps, ref, mask, beta)
    assert rewards.outcome.abs().max() > 0.05
    for t in range(4):
        exponents = (ref[:, t + 1 :].sum(1) + rewards.outcome / beta).view(3**t, -1)
        q = rewards.q_values[:, t].view(3**t, -1)
        assert (q - beta * exponents.logsumexp(1, keepdim=True)).abs().max() < 1e-10


def test_bfloat16_weights_change_a_token_reward_by_little():
    model = tiny_model("llama", torch.bfloat16, initializer_range=0.1)
    ids, mask = padded(rows((40, 40, 40)), "right")
    with torch.no_grad():
        half, full = causal_log_probs(model, ids, mask), causal_log_probs(model.float(), ids, mask)
    assert half.dtype == torch.float32
    # The same bfloat16 weights, worked in bfloat16 and in float32: measured 0.008 nats at most, 0.002 as a
    # standard deviation. A token's reward has two such errors, times beta: |change of r| < 0.04 beta.
    assert (half - full).abs().max() < 0.02


# What wraps a model


def test_lora_trains_its_adapter_and_its_base_is_the_reference(llama, monkeypatch):
    peft = pytest.importorskip("peft")
    sequences = rows()
    ids, mask = padded(sequences, "left")
    for targets in (["q_proj", "v_proj"], ["q_proj", "lm_head"]):
        lora = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
        model = peft.get_peft_model(copy.deepcopy(llama), lora).double()
        with monkeypatch.context() as patch:
            if "lm_head" not in targets:
                forbid_whole_logits(patch)
            values = causal_log_probs(model, ids, mask)
        expected = torch.stack([naive(model, sequence).sum() for sequence in sequences])
        torch.testing.assert_close(values.sum(1), expected, rtol=0, atol=1e-10)
        values.sum().backward()
        trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
        with torch.no_grad(), model.disable_adapter():
            base = causal_log_probs(model, ids, mask)
            torch.testing.assert_close(base, causal_log_probs(llama, ids, mask), rtol=0, atol=0)
        assert (base - values).abs().max() > 0.1


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_ddp_and_fsdp2_give_the_gradients_of_the_bare_model(llama, process_group, monkeypatch):
    from torch.distributed.fsdp import fully_shard

    ids, mask = padded(rows(), "left")
    bare, inner = copy.deepcopy(llama), copy.deepcopy(llama)
    # A static graph leaves its first sums over processes to what DDP returns.
    distributed = torch.nn.parallel.DistributedDataParallel(inner, static_graph=True)
    sharded = copy.deepcopy(llama)
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    for layer in sharded.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    forbid_whole_logits(monkeypatch)
    for model in (bare, distributed, sharded):
        causal_log_probs(model, ids, mask).sum().backward()
    expected = [parameter.grad for parameter in bare.parameters()]
    torch.testing.assert_close([p.grad for p in inner.parameters()], expected, rtol=0, atol=1e-12)
    full = [p.grad.full_tensor() for p in sharded.parameters()]
    torch.testing.assert_close(full, expected, rtol=0, atol=1e-12)


def test_fsdp2_in_bfloat16_does_not_round_the_log_probs(process_group, monkeypatch):
    """accelerate's policy casts what a model returns to bfloat16; a log-prob of -20 would be off by 0.06."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    half = torch.bfloat16
    model, (ids, mask) = tiny_model("llama", torch.float32), padded(rows(), "right")
    with torch.no_grad():
        expected = causal_log_probs(copy.deepcopy(model).to(half), ids, mask)
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, output_dtype=half)
    fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (1,)), mp_policy=policy)
    forbid_whole_logits(monkeypatch)
    values = causal_log_probs(model, ids, mask)
    assert values.dtype == torch.float32
    assert (values.detach() - values.detach().to(half).float()).abs().max() > 0
    torch.testing.assert_close(values.detach(), expected, rtol=0, atol=0.1)
    values.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# Bad input


def test_bad_input_is_named(llama):
    ids, mask = padded(rows(), "left")
    hidden, weight, targets = head()
    classifier = LlamaForSequenceClassification(llama.config)
    for call, message in [
        (
            lambda: causal_log_probs(classifier, ids, mask),
            "LlamaForSequenceClassification has no output embedding",
        ),
        (lambda: causal_log_probs(llama.model, ids, mask), "AutoModelForCausalLM"),
        (lambda: causal_log_probs(llama, ids, mask[:, 1:]), "attention_mask"),
        (lambda: causal_log_probs(llama, ids, mask, completion_mask=mask[0]), "completion_mask"),
        (lambda: causal_log_probs(llama, ids[0], mask[0]), r"\[rows, tokens\]"),
        (lambda: causal_log_probs(llama, ids, mask, chunk_size=0), "chunk_size must be at least 1"),
        (lambda: linear_log_probs(hidden, weight[:, 1:], targets), r"\[N, d\] and \[V, d\]"),
        (lambda: linear_log_probs(hidden, weight, targets[1:]), r"must be \[6\]"),
    ]:
        with pytest.raises(ImplicitPRMError, match=message):
            call()
