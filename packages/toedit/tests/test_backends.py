from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from toedit import EditConfig, Editor, ToEditError, ToEditWarning
from toedit.backends import backend_class
from toedit.backends.loading import gguf_file, sources
from toedit.backends.transformers import TransformersBackend
from toedit.editing import fulfils
from toedit.windows import Window

CFG = EditConfig(threshold=0.004, top_k=5)


def windows(lengths, vocabulary=320, first=1):
    random = np.random.default_rng(0)
    return [Window(random.integers(0, vocabulary, n), min(first, n - 1), 0) for n in lengths]


def assert_scores_are_those_of_the_model(model, backend, wanted, cfg=CFG):
    for window, scores in zip(wanted, backend.score(wanted, cfg), strict=True):
        with torch.inference_mode():
            logits = model(torch.from_numpy(window.ids)[None]).logits[0, :-1]
        expected = logits.float().log_softmax(-1)
        log_p = expected[torch.arange(len(window.ids) - 1), torch.from_numpy(window.ids[1:])].numpy()
        assert np.isnan(scores.log_p[: window.first]).all()
        assert scores.log_p[window.first :] == pytest.approx(log_p[window.first - 1 :], abs=1e-4)
        assert scores.rows.tolist() == np.flatnonzero(fulfils(scores.log_p, cfg)).tolist()
        best, ids = expected[torch.from_numpy(scores.rows) - 1].topk(cfg.top_k)
        assert scores.top_ids.tolist() == ids.tolist()
        assert scores.top_log_p == pytest.approx(best.numpy(), abs=1e-4)


@pytest.mark.parametrize("first", [1, 7])
def test_batches_of_unequal_windows_score_as_each_alone(tiny_llama, first):
    model = tiny_llama()
    backend = TransformersBackend(model, batch_tokens=200, head_rows=16)
    wanted = windows([2, 60, 33, 47, 3, 90, 11, 12], first=first)
    assert_scores_are_those_of_the_model(model, backend, wanted)
    assert backend.workload.n_tokens == sum(len(window.ids) for window in wanted)
    assert 1 < backend.workload.n_batches < len(wanted)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (GPT2LMHeadModel, GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)),
        (
            Gemma2ForCausalLM,
            Gemma2Config(
                vocab_size=320,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=16,
                initializer_range=0.3,
                final_logit_softcapping=2.0,
            ),
        ),
        (
            CohereForCausalLM,
            CohereConfig(
                vocab_size=320,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                initializer_range=0.5,
                logit_scale=0.25,
            ),
        ),
    ],
)
def test_learned_positions_and_capped_or_scaled_logits_are_scored_in_chunks_too(kind, config):
    torch.manual_seed(0)
    model = kind(config).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ToEditWarning)
        backend = TransformersBackend(model, head_rows=8)
    assert_scores_are_those_of_the_model(model, backend, windows([40, 21]))


def test_a_model_whose_weights_are_no_numbers_is_not_said_to_do_more_after_its_head(tiny_llama):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(torch.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ToEditWarning)
        backend = TransformersBackend(model)
    (scores,) = backend.score(windows([12]), EditConfig())
    assert np.isnan(scores.log_p).all()


def test_a_model_that_does_more_after_its_head_is_run_as_a_whole_with_a_warning(tiny_llama, monkeypatch):
    model = tiny_llama()
    forward = model.forward

    def shifted(input_ids):
        output = forward(input_ids)
        output.logits[..., :9] += 3
        return output

    monkeypatch.setattr(model, "forward", shifted)
    with pytest.warns(ToEditWarning, match="LlamaForCausalLM does more to its logits"):
        backend = TransformersBackend(model)
    assert_scores_are_those_of_the_model(model, backend, windows([40, 21]))


def test_a_model_with_adapters_scores_as_the_one_that_they_are_merged_into(tiny_llama):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    torch.manual_seed(1)
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = peft.get_peft_model(tiny_llama(), lora).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ToEditWarning)
        backend = TransformersBackend(model, head_rows=8)
    wanted = windows([40, 21])
    found, plain = backend.score(wanted, CFG), TransformersBackend(tiny_llama()).score(wanted, CFG)
    assert np.abs(found[0].log_p - plain[0].log_p)[1:].max() > 0.1
    assert_scores_are_those_of_the_model(model, backend, wanted)
    merged = TransformersBackend(model.merge_and_unload()).score(wanted, CFG)
    for ours, theirs in zip(found, merged, strict=True):
        assert ours.log_p == pytest.approx(theirs.log_p, abs=1e-4, nan_ok=True)


def test_a_model_with_a_learned_prompt_is_refused(tiny_llama):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with pytest.raises(ToEditError, match="gives logits for 11 tokens of a text of 8: it may put a learned"):
        TransformersBackend(peft.get_peft_model(tiny_llama(), prompt))


def test_the_logits_of_all_tokens_never_exist(tiny_llama, monkeypatch):
    model = tiny_llama()
    backend = TransformersBackend(model, head_rows=16)
    rows = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(output.shape))
    backend.score(windows([90, 80, 70]), CFG)
    assert sum(shape[0] for shape in rows) == 89 + 79 + 69
    assert max(shape[0] for shape in rows) == 16


class Small:
    """Wraps a module's forward: more than `places` places do not fit into memory."""

    def __init__(self, model, places):
        self.forward, self.places, self.seen = model.forward, places, []

    def __call__(self, input_ids=None, **options):
        self.seen.append(tuple(input_ids.shape))
        if input_ids.numel() > self.places:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return self.forward(input_ids=input_ids, **options)


def test_a_batch_that_does_not_fit_is_halved_and_the_scores_are_the_same(tiny_llama, monkeypatch):
    model = tiny_llama()
    wanted = windows([40] * 12 + [25, 7])
    expected = TransformersBackend(model).score(wanted, CFG)
    backend = TransformersBackend(model, batch_tokens=480)
    small = Small(model.model, 130)
    monkeypatch.setattr(model.model, "forward", small)
    found = backend.score(wanted, CFG)
    for a, b in zip(expected, found, strict=True):
        assert a.log_p == pytest.approx(b.log_p, abs=1e-5, nan_ok=True)
        assert a.top_ids.tolist() == b.top_ids.tolist()
    assert backend.workload.n_halvings >= 2
    assert backend.workload.n_tokens == 12 * 40 + 32
    assert backend.batch_tokens <= 240
    failed = len([shape for shape in small.seen if np.prod(shape) > 130])
    backend.score(wanted, CFG)
    assert len([shape for shape in small.seen if np.prod(shape) > 130]) <= failed * 2


def test_a_window_that_alone_does_not_fit_says_what_to_do(tiny_llama, monkeypatch):
    model = tiny_llama()
    backend = TransformersBackend(model)
    monkeypatch.setattr(model.model, "forward", Small(model.model, 30))
    with pytest.raises(ToEditError, match=r"window of 40 tokens does not fit into memory .*; lower window"):
        backend.score(windows([40, 20]), CFG)


def test_another_error_of_the_model_is_not_taken_for_a_lack_of_memory(tiny_llama, monkeypatch):
    model = tiny_llama()
    backend = TransformersBackend(model)

    def broken(**_):
        raise RuntimeError("something else")

    monkeypatch.setattr(model.model, "forward", broken)
    with pytest.raises(RuntimeError, match="something else"):
        backend.score(windows([4]), CFG)


def test_a_model_in_a_folder_is_loaded_with_its_tokenizer(tmp_path, tiny_llama, tokenizer):
    model = tiny_llama()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = "hello world, the cat in the hat " * 5
    loaded = Editor.from_pretrained(str(tmp_path), CFG.replace(overlap=16), head_rows=7)
    assert loaded.backend.dtype == "float32"
    assert loaded.backend.head_rows == 7
    ready = Editor(model, tokenizer, CFG)
    assert loaded.edit(text, "a").text == ready.edit(text, "a").text != text


def test_a_model_that_is_not_there_says_how_to_get_one(tmp_path, monkeypatch):
    with pytest.raises(ToEditError, match=r"cannot load .*; give the path of a folder"):
        Editor.from_pretrained(str(tmp_path / "nothing"))


def test_a_damaged_file_and_an_unknown_option_are_the_user_s_to_mend(tmp_path, tiny_llama, tokenizer):
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF and no more")
    with pytest.raises(ToEditError, match=r"cannot load .*a\.gguf.*; the file may be damaged"):
        Editor.from_pretrained(str(file))
    tiny_llama().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ToEditError, match="the backend takes no option 'foo'"):
        Editor.from_pretrained(str(tmp_path / "model"), foo=1)
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ToEditError, match=r"cannot load .*model.*; the file may be damaged"):
        Editor.from_pretrained(str(tmp_path / "model"))


def test_a_path_can_mean_a_gguf_file(tmp_path):
    one = tmp_path / "a.gguf"
    one.touch()
    assert gguf_file(str(one)) == gguf_file(str(tmp_path)) == one
    assert sources(str(tmp_path)) == {"pretrained_model_name_or_path": str(tmp_path), "gguf_file": "a.gguf"}
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ToEditError, match="has 2 GGUF files"):
        gguf_file(str(tmp_path))
    (tmp_path / "config.json").touch()
    assert gguf_file(str(tmp_path)) is None
    assert gguf_file("owner/name") is None


class FakeLlama:
    """The part of `llama_cpp.Llama` that is used, around a model of transformers."""

    def __init__(self, model, n_ctx=64, logits_all=True):
        self.model, self.logits_all, self.n_tokens = model, logits_all, 99
        self.scores = np.full((n_ctx, 320), 7, np.float32)

    def n_ctx(self):
        return 256  # rounded up

    def n_vocab(self):
        return 320

    def reset(self):
        self.n_tokens = 0

    def eval(self, tokens):
        assert self.n_tokens == 0
        self.n_tokens = len(tokens)
        if self.logits_all:
            with torch.inference_mode():
                self.scores[: len(tokens)] = self.model(torch.tensor([tokens])).logits[0].numpy()


def test_llama_cpp_scores_are_read_from_the_rows_before_the_tokens(tiny_llama):
    model = tiny_llama()
    backend = backend_class("llama_cpp")(FakeLlama(model))
    assert backend.max_window == 64
    assert_scores_are_those_of_the_model(model, backend, windows([64, 9, 2], first=4))
    with pytest.raises(ToEditError, match="logits_all=True"):
        backend_class("llama_cpp")(FakeLlama(model, logits_all=False))


def test_llama_cpp_needs_a_gguf_file(tmp_path):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    with pytest.raises(ToEditError, match="needs a GGUF file"):
        Editor.from_pretrained(str(tmp_path), backend="llama_cpp")


@pytest.mark.slow
def test_llama_cpp_and_transformers_agree_on_the_same_file():
    """Within 0.05: llama.cpp rounds the activations of a quantized product as well."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    data = pytest.importorskip("tenfold.data")
    folder = str(data.get("smollm2-135m"))
    text = (
        "The Eiffel Tower is in Paris, the capital of France. It was built by Gustave Eiffel's company. " * 3
    )
    cfg = EditConfig(window=128, overlap=32)
    ours = Editor.from_pretrained(folder, cfg).score([text])[0]
    theirs = Editor.from_pretrained(folder, cfg, backend="llama_cpp").score([text])[0]
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert np.nanmean(np.abs(ours.log_p - theirs.log_p)) < 0.05
