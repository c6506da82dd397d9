import json

import pytest

from lpa import LPAConfig, LPAError, RankError


def test_defaults_are_the_papers():
    config = LPAConfig(128)
    assert config.targets == ("q", "k", "v", "o")
    assert config.init == "torch"
    assert config.bottleneck is None
    assert not config.share_down
    assert not config.allow_expand


@pytest.mark.parametrize(
    ("rank", "n_in", "n_out", "expected"),
    [(16, 64, 32, 16), (0.25, 64, 32, 8), (1.0, 64, 32, 32), (0.001, 64, 32, 1), (0.3, 32, 64, 10)],
)
def test_a_rank_is_a_number_or_a_share_of_the_smaller_side(rank, n_in, n_out, expected):
    assert LPAConfig(rank).rank_for("layers.0.q_proj", n_in, n_out) == expected


def test_the_first_pattern_found_in_the_name_gives_the_rank():
    config = LPAConfig(8, rank_pattern={r"\.0\..*k_proj": 2, r"k_proj": 0.5})
    assert config.rank_for("model.layers.0.self_attn.k_proj", 32, 16) == 2
    assert config.rank_for("model.layers.1.self_attn.k_proj", 32, 16) == 8
    assert config.rank_for("model.layers.1.self_attn.q_proj", 32, 16) == 8


def test_roles_and_expressions_are_told_apart():
    config = LPAConfig(8, targets=("q", r"attention\.key$"))
    assert config.roles == {"q"}
    assert config.expressions == (r"attention\.key$",)
    assert LPAConfig(8, targets=("all",)).roles == {"q", "k", "v", "o", "ffn"}


def test_a_config_survives_json():
    config = LPAConfig(
        0.25, targets=("q", "ffn"), layers=(0, 3), rank_pattern={"q": 4}, init="matched", lm_head_bias=True
    )
    assert LPAConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_to_dict_leaves_out_defaults():
    assert LPAConfig(4).to_dict() == {"rank": 4}


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        LPAConfig(4).rank = 5


@pytest.mark.parametrize("rank", [0, -3, 1.5, 0.0, -0.5, float("nan")])
def test_an_impossible_rank_is_refused(rank):
    with pytest.raises(RankError, match=r"rank is .*; it must be a positive whole number, or a fraction"):
        LPAConfig(rank)


@pytest.mark.parametrize("rank", ["8", True, [8]])
def test_a_rank_of_another_type_is_refused(rank):
    with pytest.raises(RankError, match=r"rank is .*; it must be a whole number or a fraction"):
        LPAConfig(rank)


def test_a_missing_rank_is_named():
    with pytest.raises(RankError, match=r"rank is missing: LPAConfig\(rank=128\)"):
        LPAConfig()


def test_a_rank_above_the_smaller_side_is_refused_with_the_matrix():
    with pytest.raises(RankError, match=r"self_attn\.k_proj: rank 40 is more than min\(n_in, n_out\) = 16"):
        LPAConfig(40).rank_for("self_attn.k_proj", 32, 16)


def test_an_impossible_rank_in_a_pattern_is_named_with_its_pattern():
    with pytest.raises(RankError, match=r"rank_pattern\['q_proj'\] is 0"):
        LPAConfig(4, rank_pattern={"q_proj": 0})


def test_an_unknown_key_is_named_with_the_known_ones():
    with pytest.raises(LPAError, match=r"'ranks' is not a setting of LPAConfig; there are: rank, targets"):
        LPAConfig.from_dict({"rank": 4, "ranks": 5})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "xavier"}, "init is 'xavier'"),
        ({"bottleneck": "relu"}, "bottleneck is 'relu'"),
        ({"layers": (-1,)}, "layers is -1"),
        ({"targets": ()}, "targets is"),
        ({"targets": ("q_proj(",)}, r"targets has 'q_proj\(', which is neither one of q, k, v, o, ffn, all"),
        ({"rank_pattern": {"*": 4}}, r"rank_pattern has '\*'"),
    ],
)
def test_impossible_settings_are_named_with_their_value(settings, message):
    with pytest.raises(LPAError, match=message):
        LPAConfig(4, **settings)
