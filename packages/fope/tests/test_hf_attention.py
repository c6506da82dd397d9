"""attn_implementation="fope_triton": the same model, with rotation inside the attention function."""

import sys
import warnings

import pytest
import torch

import fope.hf
from fope.errors import FopeError, FopeWarning
from fope.hf.rotation import Deferred, give_tables, rotating_layers

from .test_hf import fresh, logits, tokens


def pair(family="llama", **options):
    plain = fope.hf.convert_to_fope(fresh(family), train_length=64, **options)
    fused = fope.hf.convert_to_fope(fresh(family), train_length=64, **options)
    fused.set_attn_implementation("fope_triton")
    return plain, fused


@pytest.fixture
def kernel(monkeypatch):
    """The kernel's contract in plain PyTorch, and how often it was called."""
    calls = []

    def fope_attention(q, k, v, cos, sin, *, causal, zero_sin, scale):
        from fope import apply_fope

        calls.append(q.shape)
        q, k = apply_fope(q, cos, sin, zero_sin), apply_fope(k, cos, sin, zero_sin)
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, enable_gqa=True
        )

    module = type(sys)("fope_triton")
    module.fope_attention = fope_attention
    monkeypatch.setitem(sys.modules, "fope_triton", module)
    return calls


@pytest.mark.parametrize("options", [{}, {"zero_sin": 1.0, "preserve": False}])
def test_a_whole_sequence_is_rotated_by_the_kernel(kernel, options):
    plain, fused = pair(**options)
    ids = tokens()
    assert torch.allclose(logits(fused, ids, use_cache=False), logits(plain, ids), atol=1e-4)
    assert len(kernel) == 2  # layers


def test_gradients_are_the_same(kernel):
    plain, fused = pair()
    ids = tokens()
    for model in (plain, fused):
        model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    for one, other in zip(plain.parameters(), fused.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-4)


def test_the_kernels_themselves_agree():
    """With fope-triton as it is, in Triton's interpreter where there is no GPU: logits and gradients."""
    pytest.importorskip("fope_triton")
    plain, fused = pair(zero_sin=1.0, preserve=False)
    ids = tokens()
    for model in (plain, fused):
        model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    assert torch.allclose(logits(fused, ids, use_cache=False), logits(plain, ids), atol=1e-4)
    for one, other in zip(plain.parameters(), fused.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-4)


def test_decoding_with_a_cache_goes_past_the_kernel(kernel):
    plain, fused = pair()
    options = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(fused.generate(tokens(), **options), plain.generate(tokens(), **options))
    assert not kernel


def test_a_layer_that_is_told_not_to_rotate_gets_no_tables():
    (attention, *_) = rotating_layers(pair()[0])
    given = {"position_ids": torch.arange(3)[None], "position_embeddings": None}
    assert give_tables(attention, (), given) == ((), given)


@pytest.mark.parametrize("name", ["past_key_values", "cache"])  # before transformers 5.24, and since
def test_a_layer_that_is_given_a_cache_rotates_by_itself(kernel, name):
    _, fused = pair()
    (attention, *_) = rotating_layers(fused)
    options = {"position_ids": torch.arange(3)[None], "position_embeddings": ("cos", "sin")}
    for cache, deferred in ((object(), False), (None, True)):
        _, kwargs = give_tables(attention, (), {**options, name: cache})
        assert isinstance(kwargs["position_embeddings"][0], Deferred) == deferred


def test_who_trains_with_a_cache_is_told_that_it_goes_past_the_kernel(kernel):
    ids, (plain, fused) = tokens(), pair()
    with pytest.warns(FopeWarning, match="no cache, .*use_cache=False"):
        fused.train()(ids)
    assert not kernel
    with warnings.catch_warnings():
        warnings.simplefilter("error", FopeWarning)
        fused(ids, use_cache=False)
        plain.train()(ids)
        fused.eval()(ids)
    assert len(kernel) == 2


@pytest.mark.parametrize("options", [{}, {"zero_sin": 1.0, "preserve": False}])
def test_attention_that_is_not_causal(kernel, options):
    plain, fused = pair(**options)
    ids, asked = tokens(), {"use_cache": False, "is_causal": False}
    expected = logits(plain, ids, **asked)
    assert not torch.allclose(expected, logits(plain, ids, use_cache=False), atol=1e-3)
    assert torch.allclose(logits(fused, ids, **asked), expected, atol=1e-4)
    assert len(kernel) == 2
    fused, plain = (model.train() for model in (fused, plain))  # with a cache, and so past the kernel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FopeWarning)
        assert torch.allclose(logits(fused, ids, is_causal=False), expected, atol=1e-4)


def test_a_mask_goes_past_the_kernel(kernel):
    plain, fused = pair()
    ids, mask = tokens(), torch.ones(2, 24, dtype=torch.long)
    mask[:, :4] = 0
    options = {"attention_mask": mask, "use_cache": False}
    assert torch.allclose(
        logits(fused, ids, **options)[:, 4:], logits(plain, ids, **options)[:, 4:], atol=1e-4
    )
    assert not kernel


def test_packed_documents_go_past_the_kernel(kernel):
    plain, fused = pair()
    positions = torch.cat([torch.arange(15), torch.arange(9)])[None]
    options = {"position_ids": positions, "use_cache": False}
    ids = tokens(1, 24)
    assert torch.allclose(logits(fused, ids, **options), logits(plain, ids, **options), atol=1e-4)
    assert not kernel


def test_a_partial_rotation_goes_past_the_kernel(kernel):
    plain, fused = pair("gpt_neox")
    ids = tokens()
    assert torch.allclose(logits(fused, ids, use_cache=False), logits(plain, ids), atol=1e-4)
    assert not kernel


def test_without_the_kernels_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fope_triton", None)
    _, fused = pair()
    with pytest.raises(FopeError, match=r"pip install 'fope\[triton\]'"):
        logits(fused, tokens(), use_cache=False)


def test_capped_scores_are_refused():
    _, fused = pair("gemma2")
    with pytest.raises(FopeError, match="no capped scores"):
        logits(fused, tokens(), use_cache=False)
