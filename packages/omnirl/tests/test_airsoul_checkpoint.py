"""Official checkpoints: a tiny one with the official names gives the logits of the official forward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from omnirl import OmniRL, OmniRLError
from omnirl.model.airsoul_checkpoint import convert_airsoul_checkpoint, converted

WIDTH, HEADS, LAYERS, STATES, ACTIONS = 16, 2, 2, 6, 3
TRUNK = "causal_model.layers.temporal_module.layers"
State = dict[str, torch.Tensor]


def official(tokens: str, mixer: str = "attention") -> State:
    """Random tensors with the names and shapes of airsoul's `state_dict`; `tokens` in a step's order."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "type_query": (1, 1, len(tokens), WIDTH),
        "mask_query": (1, 1, STATES),
        "loss_weight": (48_000,),
        "s_encoder.encoder_layer.weight": (STATES + 1, WIDTH),
        "a_encoder.encoder_layer.weight": (ACTIONS + 2, WIDTH),
        **{f"{token}_encoder.encoder_layer.weight": (8, WIDTH) for token in "pt" if token in tokens},
    }
    if "r" in tokens:
        shapes["r_encoder.encoder_layer.weight"] = (WIDTH, 1)
        shapes["r_encoder.encoder_layer.bias"] = (WIDTH,)
    sizes = {"s": STATES, "a": ACTIONS + 1} | ({"r": 1} if "r" in tokens else {})
    layers = {"causal_model.layer_norm": (WIDTH,)}
    for head, size in sizes.items():
        layers |= {f"{head}_decoder.layer_norm": (WIDTH,), f"{head}_decoder.decoder_post": (size, WIDTH)}
        layers |= {f"{head}_decoder.decoder_pre.{place}": (WIDTH, WIDTH) for place in (0, 3)}
    for number in range(LAYERS):
        block = f"{TRUNK}.{number}"
        layers |= {f"{block}.norm{place}": (WIDTH,) for place in (1, 2)}
        layers |= {f"{block}.linear1": (24, WIDTH), f"{block}.linear2": (WIDTH, 24)}
        if mixer == "attention":
            layers[f"{block}.self_attn.att_proj_linear"] = (WIDTH, WIDTH)
            shapes |= {f"{block}.self_attn.{name}layer.weight": (WIDTH, WIDTH) for name in "qkv"}
        else:
            shapes |= {f"{block}.{mixer}.{name}.weight": (WIDTH, WIDTH) for name in ("q_proj", "gk_proj.0")}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes["causal_model.layers.temporal_module.attn_mask"] = (4, 4)
    return {name: torch.randn(shape) * 0.5 for name, shape in shapes.items()}


def linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"])


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions on neighbouring pairs, as complex numbers: x (B, T, H, D)."""
    size = x.shape[-1]
    angle = torch.arange(x.shape[1])[:, None] / 10_000 ** (torch.arange(0, size, 2) / size)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.exp(1j * angle)[:, None]).flatten(-2)


def official_logits(state: State, tokens: str, history: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What airsoul computes, from its description: blocks, norm, residual decoders; before the softmax."""
    parts = []
    for token in tokens:
        encoder = "s" if token == "o" else token
        if token == "r":
            parts.append(linear(state, "r_encoder.encoder_layer", history["r"][..., None]))
        else:
            parts.append(state[f"{encoder}_encoder.encoder_layer.weight"][history[token]])
    x = (torch.stack(parts, 2) + state["type_query"]).flatten(1, 2)
    for number in range(LAYERS):
        block, y = f"{TRUNK}.{number}", norm(state, f"{TRUNK}.{number}.norm1", x)
        q, k, v = (
            linear(state, f"{block}.self_attn.{name}layer", y).unflatten(-1, (HEADS, -1)) for name in "qkv"
        )
        q, k, v = (part.transpose(1, 2) for part in (turned(q), turned(k), v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(state, f"{block}.self_attn.att_proj_linear", mixed)
        y = F.gelu(linear(state, f"{block}.linear1", norm(state, f"{block}.norm2", x)))
        x = x + linear(state, f"{block}.linear2", y)
    x = norm(state, "causal_model.layer_norm", x).unflatten(1, (-1, len(tokens)))
    found = {}
    for head, slot in (("a", tokens.find("o")), ("s", tokens.find("a")), ("r", tokens.find("a"))):
        if f"{head}_decoder.decoder_post.weight" in state:
            z = norm(state, f"{head}_decoder.layer_norm", x[:, :, slot])
            y = F.gelu(linear(state, f"{head}_decoder.decoder_pre.0", z))
            y = linear(state, f"{head}_decoder.decoder_pre.3", y) + z
            found[head] = linear(state, f"{head}_decoder.decoder_post", y)
    return found


@pytest.mark.parametrize(("layout", "tokens"), [("podtaw", "pota"), ("odtawr", "otar")])
@pytest.mark.parametrize("how", ["trainer", "parallel", "safetensors"])
def test_a_converted_checkpoint_has_the_logits_of_the_official_forward(
    tmp_path: Path, layout: str, tokens: str, how: str
) -> None:
    state = official(tokens)
    path = tmp_path / f"ckpt.{'safetensors' if how == 'safetensors' else 'pth'}"
    if how == "safetensors":
        save_file(state, path)
    else:
        inner = {f"module.{name}": value for name, value in state.items()} if how == "parallel" else state
        torch.save({"metadict_models": inner} if how == "trainer" else inner, path)
    config = convert_airsoul_checkpoint(path, tmp_path / "model", num_heads=HEADS)
    assert (config.layout, config.num_states, config.num_actions) == (layout, STATES, ACTIONS)
    model = OmniRL.from_pretrained(tmp_path / "model")
    history = {
        name: torch.randint(size, (2, 7)) for name, size in (("o", STATES), ("t", 8), ("a", ACTIONS + 1))
    }
    history |= {"p": torch.full((2, 7), 3), "r": torch.randn(2, 7)}
    with torch.no_grad():
        ours = model(*(history[name] for name in "otar"))
        theirs = official_logits(state, tokens, history)
    torch.testing.assert_close(ours.policy_logits, theirs["a"][..., :ACTIONS], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.next_state_logits, theirs["s"], atol=1e-4, rtol=1e-4)
    if "r" in tokens:
        torch.testing.assert_close(ours.reward, theirs["r"][..., 0], atol=1e-4, rtol=1e-4)


def test_layers_of_flash_linear_attention_in_official_blocks_keep_their_names() -> None:
    config, state = converted(official("pota", "temporal_encoder.encoder"), HEADS)
    assert (config.mixer, config.final_norm) == ("gla", True)
    assert "trunk.blocks.1.mixer.layer.gk_proj.0.weight" in state


def test_what_cannot_be_converted_is_named(tmp_path: Path) -> None:
    with pytest.raises(OmniRLError, match=r"attention, GSA and GLA; they begin with .*encoder"):
        converted(official("pota", "encoder.attn"), HEADS)
    with pytest.raises(
        OmniRLError, match="'odtawr' does not fit: the checkpoint's steps have the tokens oapt"
    ):
        converted(official("pota"), HEADS, "odtawr")
    with pytest.raises(OmniRLError, match="num_heads is 3"):
        converted(official("pota"), 3)
    with pytest.raises(OmniRLError, match="no place in this model"):
        converted(official("pota") | {"a_diffusion.layer.weight": torch.zeros(1)}, HEADS)
    (tmp_path / "a.pth").write_bytes(b"nothing")
    torch.save({"metadict_models": Path("x")}, tmp_path / "b.pth")
    for name, says in (("a.pth", "cannot be read"), ("b.pth", "cannot be read"), ("c.pth", "no such file")):
        with pytest.raises(OmniRLError, match=says):
            convert_airsoul_checkpoint(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(OmniRLError, match="there already"):
        convert_airsoul_checkpoint(tmp_path / "a.pth", tmp_path)
