"""The official modules, built here from the paper's equations with the official key names."""

import pytest
import torch
import transformers as tf
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import lpa
from lpa import ClassicConfig, ClassicForCausalLM, LPAConfig, LPAError, LPAWarning

VOCAB, WIDTH, HEADS, HEAD_DIM, FFN, LAYERS, LENGTH = 64, 32, 2, 12, 48, 2, 20


def pair(n_in: int, n_out: int, rank: int, bias: str) -> nn.Sequential:
    """Two linear layers, with the bias on the first ("down"), the second ("up") or neither ("")."""
    return nn.Sequential(
        nn.Linear(n_in, rank, bias=bias == "down"), nn.Linear(rank, n_out, bias=bias == "up")
    )


def split_heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(head_dim) + causal mask) v, heads side by side."""
    scores = q @ k.mT / HEAD_DIM**0.5
    future = torch.ones(scores.shape[-2:]).triu(1).bool()
    return (scores.masked_fill(future, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)


class Attention1(nn.Module):
    def __init__(self, rank: int | None) -> None:
        super().__init__()
        for name in ("query", "key", "value"):
            inner = HEADS * HEAD_DIM
            layer = nn.Linear(WIDTH, inner) if rank is None else pair(WIDTH, inner, rank, "down")
            self.add_module(f"{name}_proj", layer)
        self.out_proj = nn.Linear(inner, WIDTH) if rank is None else pair(inner, WIDTH, rank, "up")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (split_heads(proj(x)) for proj in (self.query_proj, self.key_proj, self.value_proj))
        return self.out_proj(attend(q, k, v))


class Block1(nn.Module):
    def __init__(self, rank: int | None, ffn_rank: int | None) -> None:
        super().__init__()
        self.attention = Attention1(rank)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        if ffn_rank is None:
            self.fc = nn.Sequential(nn.Linear(WIDTH, FFN), nn.ReLU(), nn.Linear(FFN, WIDTH))
        else:
            first, second = pair(WIDTH, FFN, ffn_rank, "down"), pair(FFN, WIDTH, ffn_rank, "up")
            self.fc = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.norm1(self.attention(x))
        return x + self.norm2(self.fc(x))


class Official1(nn.Module):
    def __init__(self, rank: int | None, ffn_rank: int | None) -> None:
        super().__init__()
        self.lpa = nn.Module()
        self.lpa.token_embedding = nn.Embedding(VOCAB, WIDTH)
        self.lpa.positional_embedding = nn.Embedding(LENGTH, WIDTH)
        self.lpa.transformer_blocks = nn.ModuleList(Block1(rank, ffn_rank) for _ in range(LAYERS))
        self.lpa.fc = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.lpa.token_embedding(ids) + self.lpa.positional_embedding.weight[: ids.shape[1]]
        for block in self.lpa.transformer_blocks:
            x = block(x)
        return self.lpa.fc(x)


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 10_000 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn (x_i, x_{i + h/2}) by position * inv_freq_i."""
        angle = torch.arange(x.shape[-2])[:, None] * self.inv_freq
        first, second = x.chunk(2, -1)
        turned = (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin())
        return torch.cat(turned, -1)


class Attention2(nn.Module):
    def __init__(self, rank: int | None) -> None:
        super().__init__()
        inner = HEADS * HEAD_DIM
        for name, n_in, n_out in (
            ("q", WIDTH, inner),
            ("k", WIDTH, inner),
            ("v", WIDTH, inner),
            ("o", inner, WIDTH),
        ):
            layer = nn.Linear(n_in, n_out, bias=False) if rank is None else pair(n_in, n_out, rank, "")
            self.add_module(f"{name}_proj", layer)
        self.rotary_emb = Rotary()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k = (self.rotary_emb(split_heads(proj(x))) for proj in (self.q_proj, self.k_proj))
        return self.o_proj(attend(q, k, split_heads(self.v_proj(x))))


class FFN2(nn.Module):
    def __init__(self, rank: int | None) -> None:
        super().__init__()
        for name, n_in, n_out in (("gate", WIDTH, FFN), ("up", WIDTH, FFN), ("down", FFN, WIDTH)):
            layer = nn.Linear(n_in, n_out, bias=False) if rank is None else pair(n_in, n_out, rank, "")
            self.add_module(f"{name}_proj", layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block2(nn.Module):
    def __init__(self, rank: int | None, ffn_rank: int | None) -> None:
        super().__init__()
        self.attention, self.ffn = Attention2(rank), FFN2(ffn_rank)
        self.norm1, self.norm2 = RMSNorm(), RMSNorm()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Official2(nn.Module):
    def __init__(self, rank: int | None, ffn_rank: int | None) -> None:
        super().__init__()
        self.lpa = nn.Module()
        self.lpa.token_embedding = nn.Embedding(VOCAB, WIDTH)
        self.lpa.transformer_blocks = nn.ModuleList(Block2(rank, ffn_rank) for _ in range(LAYERS))
        self.lpa.norm = RMSNorm()
        self.fc = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.lpa.token_embedding(ids)
        for block in self.lpa.transformer_blocks:
            x = block(x)
        return self.fc(self.lpa.norm(x))


def official(setting: int, rank: int | None, ffn_rank: int | None) -> nn.Module:
    model = (Official1 if setting == 1 else Official2)(rank, ffn_rank)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model


def ours(setting: int, rank: int | None, ffn_rank: int | None) -> tf.PreTrainedModel:
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": LENGTH,
    }
    if setting == 1:
        return ClassicForCausalLM(ClassicConfig(**sizes, rank=rank, ffn_rank=ffn_rank)).eval()
    model = LlamaForCausalLM(tf.LlamaConfig(**sizes, rms_norm_eps=1e-6)).eval()
    if rank or ffn_rank:
        targets = (*(("q", "k", "v", "o") if rank else ()), *(("ffn",) if ffn_rank else ()))
        pattern = {"mlp": ffn_rank} if ffn_rank else None
        lpa.apply_lpa(model, LPAConfig(rank or 1, targets=targets, rank_pattern=pattern))
    return model


def assert_equal_logits(got: torch.Tensor, expected: torch.Tensor) -> None:
    """To 1e-6 of the largest: float32 has 6e-8, and the sums are taken in another order."""
    assert float((got - expected).detach().abs().max()) <= 1e-6 * float(expected.detach().abs().max())


pytestmark = [
    pytest.mark.filterwarnings("ignore:rank .* is below the head width:lpa.LPAWarning"),
    pytest.mark.filterwarnings("ignore:LlamaForCausalLM is dense, and its class:lpa.LPAWarning"),
]
both = pytest.mark.parametrize("setting", [1, 2])


@both
@pytest.mark.parametrize(("rank", "ffn_rank"), [(8, None), (None, None), (None, 10), (8, 10)])
def test_an_official_checkpoint_gives_the_official_logits(setting, rank, ffn_rank, token_ids):
    reference = official(setting, rank, ffn_rank)
    model = ours(setting, rank, ffn_rank)
    assert lpa.load_official_state_dict(model, reference.state_dict(), setting) is model
    assert_equal_logits(model(token_ids).logits, reference(token_ids))


@both
def test_every_official_value_arrives(setting):
    reference, model = official(setting, 8, None), ours(setting, 8, None)
    lpa.load_official_state_dict(model, reference.state_dict(), setting)
    official_values = sorted(float(p.detach().double().sum()) for p in reference.parameters())
    assert official_values == sorted(float(p.detach().double().sum()) for p in model.parameters())


def test_keys_of_a_distributed_run_are_the_same(token_ids):
    reference = official(1, 8, None)
    sd = {f"module.{name}": values for name, values in reference.state_dict().items()}
    model = lpa.load_official_state_dict(ours(1, 8, None), sd, 1)
    assert_equal_logits(model(token_ids).logits, reference(token_ids))


@both
def test_a_loaded_model_saves_and_loads(setting, tmp_path, token_ids):
    model = lpa.load_official_state_dict(
        ours(setting, 8, None), official(setting, 8, None).state_dict(), setting
    )
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.get_output_embeddings().bias is not None
    assert torch.equal(again(token_ids).logits, model(token_ids).logits)


def test_the_setting_2_head_gets_its_bias_and_the_config_says_so():
    model = ours(2, 8, None)
    assert model.lm_head.bias is None
    reference = official(2, 8, None)
    lpa.load_official_state_dict(model, reference.state_dict(), 2)
    assert model.lm_head.bias.equal(reference.fc.bias)
    assert model.config.to_dict()["quantization_config"]["lm_head_bias"] is True


def test_a_dense_setting_2_model_warns_that_its_head_bias_is_not_read_again():
    with pytest.warns(LPAWarning, match=r"is dense, and its class has a head without bias.*will not read it"):
        lpa.load_official_state_dict(ours(2, None, None), official(2, None, None).state_dict(), 2)


# Bad input


@pytest.mark.parametrize("setting", [0, 3, "1"])
def test_another_setting_is_refused(setting):
    with pytest.raises(LPAError, match=r"setting is .*; the official code has the settings 1 and 2"):
        lpa.load_official_state_dict(ours(1, 8, None), official(1, 8, None).state_dict(), setting)


@both
def test_unknown_and_missing_keys_are_named(setting):
    model, sd = ours(setting, 8, None), dict(official(setting, 8, None).state_dict())
    before = {name: values.clone() for name, values in model.state_dict().items()}
    sd["lpa.extra.weight"] = sd.pop("lpa.token_embedding.weight")
    message = (
        rf"no setting-{setting} checkpoint of .*Unknown keys: lpa\.extra\.weight\. "
        r"Missing: model\.embed_tokens\.weight\."
    )
    with pytest.raises(LPAError, match=message):
        lpa.load_official_state_dict(model, sd, setting)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(after[name].equal(values) for name, values in before.items())


def test_many_wrong_keys_are_not_all_listed():
    with pytest.raises(LPAError, match=r"Unknown keys: .* and \d+ more\. Missing: .* and \d+ more"):
        lpa.load_official_state_dict(ours(1, 8, None), official(2, 8, None).state_dict(), 1)


@both
def test_another_rank_is_named_with_both_shapes(setting):
    message = r"_proj\.0\.weight is \(8, 32\) in the checkpoint; in the model .*down\.weight is \(6, 32\)"
    with pytest.raises(LPAError, match=message):
        lpa.load_official_state_dict(ours(setting, 6, None), official(setting, 8, None).state_dict(), setting)


@both
def test_dense_and_low_rank_are_told_apart(setting):
    with pytest.raises(LPAError, match="checkpoint's attention is low-rank and the model's is dense: give"):
        lpa.load_official_state_dict(
            ours(setting, None, None), official(setting, 8, None).state_dict(), setting
        )
    with pytest.raises(LPAError, match="model's attention is low-rank and the checkpoint's is dense: load"):
        lpa.load_official_state_dict(
            ours(setting, 8, None), official(setting, None, None).state_dict(), setting
        )
