from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toedit import EditConfig, ToEditError

configs = st.builds(
    EditConfig,
    threshold=st.floats(1e-6, 1.0),
    condition=st.sampled_from(["ge", "le"]),
    inclusive=st.booleans(),
    top_k=st.integers(1, 64),
    temperature=st.floats(0.01, 100.0),
    low=st.sampled_from(["keep", "drop"]),
    protect=st.lists(st.sampled_from([r"\d+", "é\n", 0, 50_000, "a{2}"])),
    max_edit_fraction=st.none() | st.floats(0.0, 1.0),
    add_bos=st.sampled_from(["auto", True, False]),
    seed=st.integers(),
)


def test_the_default_is_the_official_preset():
    config = EditConfig.preset("official")
    assert config == EditConfig() == EditConfig(threshold=0.99, top_k=8, temperature=1.5, seed=0)
    assert (config.condition, config.inclusive, config.low, config.sampler) == ("ge", True, "keep", "top_k")


def test_the_presets_are_the_papers_rule_and_the_scripts_strategies():
    assert EditConfig.preset("paper") == EditConfig(temperature=1.0)
    assert EditConfig.preset("low_drop") == EditConfig(temperature=1.0, low="drop", low_threshold=0.001)
    filtering = EditConfig.preset("filter")
    assert filtering.low == "drop"
    assert filtering.threshold > 1


def test_a_preset_takes_changes():
    assert EditConfig.preset("paper", top_k=64, seed=3) == EditConfig(temperature=1.0, top_k=64, seed=3)


def test_an_unknown_preset_is_named_with_the_known_ones():
    with pytest.raises(
        ToEditError, match="no preset 'offical'; there are: official, paper, low_drop, filter"
    ):
        EditConfig.preset("offical")


@given(configs)
@settings(deadline=None)
def test_a_config_survives_toml_json_and_yaml(config):
    assert EditConfig.from_toml(config.to_toml()) == config
    assert EditConfig.from_json(config.to_json()) == config
    assert EditConfig.from_yaml(config.to_yaml()) == config


@pytest.mark.parametrize("sampler", [{"top_p": 0.9}, {"min_p": 0.001}, {"rejection_temperature": 0.5}])
def test_the_samplers_own_settings_survive_json(sampler):
    name = {"top_p": "top_p", "min_p": "min_p", "rejection_temperature": "rejection"}[next(iter(sampler))]
    config = EditConfig(sampler=name, **sampler)
    assert EditConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_whole_numbers_are_as_good_as_real_ones():
    assert EditConfig(temperature=1) == EditConfig(temperature=1.0)
    assert EditConfig(temperature=1).to_json() == EditConfig(temperature=1.0).to_json()


def test_toml_has_no_null_and_holds_any_text():
    config = EditConfig(protect=('\U0001f600\x7f\t"\u2028é', 7))
    assert "top_p" not in config.to_toml()
    assert EditConfig.from_toml(config.to_toml()) == config


def test_sets_of_token_ids_in_protect_are_spelled_out():
    assert EditConfig(protect=(r"\d+", {7, 3}, 9)).protect == (r"\d+", 3, 7, 9)
    assert EditConfig(protect=r"\d+").protect == (r"\d+",)
    assert EditConfig(protect=[5]).protect == (5,)


def test_the_nucleus_has_the_papers_default():
    assert EditConfig(sampler="top_p").top_p == 0.99
    assert EditConfig().top_p is None


def test_another_sampler_forgets_what_only_the_old_one_used():
    config = EditConfig(sampler="top_p", top_p=0.5, seed=4)
    assert config.replace(sampler="top_k") == EditConfig(seed=4)
    assert config.replace(seed=5) == EditConfig(sampler="top_p", top_p=0.5, seed=5)


def test_a_config_cannot_be_changed():
    with pytest.raises(AttributeError):
        EditConfig().seed = 1


def test_a_threshold_above_one_is_allowed_and_means_off():
    assert EditConfig(threshold=1.5).threshold == 1.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0}, "threshold is 0; it must be a number above 0"),
        ({"threshold": -0.5}, "threshold is -0.5"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"threshold": "0.99"}, "threshold is '0.99'; it must be a number"),
        ({"threshold": True}, "threshold is True"),
        ({"threshold": 1.5, "condition": "le"}, "threshold is 1.5; it must be at most 1 with condition='le'"),
        ({"condition": ">="}, "condition is '>='; it must be one of 'ge', 'le'"),
        ({"inclusive": 1}, "inclusive is 1; it must be True or False"),
        (
            {"sampler": "greedy"},
            "sampler is 'greedy'; it must be one of 'top_k', 'top_p', 'min_p', 'rejection'",
        ),
        ({"top_k": 0}, "top_k is 0; it must be a whole number, at least 1"),
        ({"top_k": 8.0}, "top_k is 8.0; it must be a whole number"),
        ({"temperature": 0}, "temperature is 0; it must be a number above 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"low": "delete"}, "low is 'delete'; it must be one of 'keep', 'drop'"),
        ({"low_threshold": 1.0}, "low_threshold is 1.0; it must be a number between 0 and 1"),
        ({"sampler": "top_p", "top_p": 1.5}, "top_p is 1.5; it must be a number above 0 and at most 1"),
        ({"top_p": 0.9}, "top_p is 0.9, but sampler='top_k' does not use it; set sampler='top_p' or leave"),
        ({"sampler": "min_p"}, "sampler='min_p' needs min_p"),
        ({"sampler": "rejection", "rejection_temperature": 0}, "rejection_temperature is 0"),
        ({"max_edit_fraction": 1.1}, "max_edit_fraction is 1.1; it must be a number from 0 to 1"),
        ({"window": 1}, "window is 1; it must be a whole number, at least 2"),
        ({"window": 128}, "overlap is 256 and window is 128; overlap must be smaller than window"),
        ({"overlap": -1}, "overlap is -1"),
        ({"add_bos": 1}, "add_bos is 1; it must be one of 'auto', True, False"),
        ({"seed": 1.5}, "seed is 1.5; it must be a whole number"),
        ({"protect": ("(",)}, r"protect has '\(', which is not a regular expression"),
        ({"protect": (-1,)}, "protect is -1; it must be a regular expression, or a token id"),
        ({"protect": None}, "protect is None"),
        ({"exclude_original": True, "top_k": 1}, "exclude_original needs top_k of at least 2"),
    ],
)
def test_an_impossible_setting_is_named_with_its_value_and_what_is_allowed(settings, message):
    with pytest.raises(ToEditError, match=message):
        EditConfig(**settings)


def test_an_unknown_key_is_named_with_the_known_ones():
    with pytest.raises(
        ToEditError, match="'treshold' is not a setting of EditConfig; did you mean 'threshold'"
    ):
        EditConfig.from_dict({"treshold": 0.9})
    with pytest.raises(ToEditError, match="'topk' is not a setting"):
        EditConfig().replace(topk=3)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (EditConfig.from_json, "{", "not valid JSON"),
        (EditConfig.from_json, "[1]", "a table of settings, not list"),
        (EditConfig.from_toml, "a = [", "not valid TOML"),
        (EditConfig.from_yaml, "a: [", "not valid YAML"),
        (EditConfig.from_yaml, "", "a table of settings, not NoneType"),
    ],
)
def test_a_broken_file_is_refused(read, text, message):
    with pytest.raises(ToEditError, match=message):
        read(text)


def test_importing_the_package_imports_neither_torch_nor_transformers():
    code = (
        "import sys, toedit; toedit.EditConfig(); print({'torch', 'transformers', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_is_there():
    import toedit

    assert all(getattr(toedit, name) is not None for name in toedit.__all__)
    with pytest.raises(AttributeError, match="'toedit' has no attribute 'nothing'"):
        _ = toedit.nothing


@pytest.mark.parametrize("name", ["rule.toml", "rule.json", "rule.yaml", "rule.yml"])
def test_a_file_gives_the_config_that_was_written_to_it(tmp_path: Path, name: str) -> None:
    config = EditConfig(threshold=1e-5, protect=("numbers", 7), sampler="min_p", min_p=0.1)
    write = {".toml": config.to_toml, ".json": config.to_json}.get(Path(name).suffix, config.to_yaml)
    (tmp_path / name).write_text(write())
    assert EditConfig.from_file(tmp_path / name) == config


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "treshold: 0.9", "'treshold' is not a setting of EditConfig; did you mean 'threshold'?"),
        ("a.yaml", "colour: red", "'colour' is not a setting of EditConfig; there are: threshold"),
        ("a.yaml", "1: 2", "1 is not a setting of EditConfig"),
        ("a.yaml", "", "a config is a table of settings, not NoneType"),
        ("a.yaml", "threshold: [", "the config is not valid YAML"),
        ("a.json", '{"top_k": 0}', "top_k is 0; it must be a whole number, at least 1"),
        ("a.json", "[]", "a config is a table of settings, not list"),
        ("a.toml", "top_k = 0", "top_k is 0; it must be a whole number, at least 1"),
        ("a.toml", "top_k: 3", "the config is not valid TOML"),
        ("a.ini", "top_k = 3", "a file of settings ends in one of .toml, .json, .yaml, .yml"),
        ("a.json", "\udcff", "can't decode byte"),
        ("a.json", None, "No such file or directory"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_name(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ToEditError, match=re.escape(message)) as raised:
        EditConfig.from_file(tmp_path / name)
    assert str(raised.value).startswith(f"{tmp_path / name}: ")
