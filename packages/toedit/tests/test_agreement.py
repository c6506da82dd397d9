"""Two priors: what is edited where both have to fulfil the condition."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers, processors

from toedit import EditConfig, Editor, ToEditError
from toedit.agreement import disagreed
from toedit.calibration import Sample
from toedit.editing import fulfils, is_low
from toedit.job import EditJob, JobSettings
from toedit.manifest import read_manifest

TEXTS = [f"{n * n} the cat sat on mat {n}, hello world: {'the hat ' * (n % 5)}{n * 37}" for n in range(40)]
LOOSE = EditConfig(threshold=0.001, temperature=5.0, top_k=64, exclude_original=True)


@pytest.fixture(scope="module")
def priors(tiny_llama: Any) -> list[Any]:
    """Two models with other weights."""
    found = [tiny_llama(initializer_range=0.6), tiny_llama(initializer_range=0.6)]
    with torch.no_grad():
        found[1].lm_head.weight.copy_(found[1].lm_head.weight.roll(1, 1))
    return found


@pytest.mark.parametrize(
    "config",
    [
        LOOSE,
        LOOSE.replace(condition="le", threshold=0.001),
        LOOSE.replace(low="drop", low_threshold=1e-4),
        LOOSE.replace(window=32, overlap=8),
    ],
)
def test_edited_are_exactly_the_candidates_of_both(priors: Any, tokenizer: Any, config: EditConfig) -> None:
    """A draw depends on the position and not on the other candidates, so the edits are those of the first
    prior alone at the tokens that fulfil the condition under the second."""
    first, second = (Editor(prior, tokenizer, config) for prior in priors)
    both = Editor(priors[0], tokenizer, config, agree=(priors[1], tokenizer))
    n_kept = n_refused = 0
    for n, text in enumerate(TEXTS):
        alone = first.edit(text, n).edits
        (scored,) = second.score([text])
        easy = set(scored.offsets[fulfils(scored.log_p, config), 1].tolist())
        rare = set(scored.offsets[is_low(scored.log_p, config), 1].tolist())
        wanted = [edit for edit in alone if edit.end in (easy if edit.new else rare)]
        found = both.edit(text, n)
        assert [(e.start, e.end, e.new) for e in found.edits] == [(e.start, e.end, e.new) for e in wanted]
        n_kept, n_refused = n_kept + len(wanted), n_refused + len(alone) - len(wanted)
    assert n_kept > 5
    assert n_refused > 5


def test_a_prior_that_agrees_with_itself_changes_nothing(priors: Any, tokenizer: Any) -> None:
    alone = Editor(priors[0], tokenizer, LOOSE).edit_batch(TEXTS, range(40))
    both = Editor(priors[0], tokenizer, LOOSE, agree=(priors[0], tokenizer)).edit_batch(TEXTS, range(40))
    assert [result.text for result in both] == [result.text for result in alone]
    assert [result.stats for result in both] == [result.stats for result in alone]


def test_where_the_second_prior_has_no_number_or_refuses_the_token_is_protected() -> None:
    first = np.log(np.array([np.nan, 0.995, 0.995, 0.995, 1e-5, 1e-5], np.float32))
    second = np.log(np.array([np.nan, 0.995, 0.98, 0.99, 1e-5, 0.995], np.float32))
    found = disagreed(first, second, EditConfig(threshold=0.99))
    assert found.tolist() == [True, False, True, False, True, False]
    found = disagreed(first, second, EditConfig(threshold=0.99, low="drop"))
    assert found.tolist() == [True, False, True, False, False, True]


@pytest.mark.parametrize("condition", ["ge", "le"])
def test_the_rates_of_a_sample_are_those_of_an_edit_with_both(
    priors: Any, tokenizer: Any, condition: Any
) -> None:
    config = EditConfig(threshold=0.001, condition=condition, temperature=2.0, top_k=320)
    both = Editor(priors[0], tokenizer, config, agree=(priors[1], tokenizer))
    results = both.edit_batch(TEXTS, range(40))
    n_tokens = sum(result.n_tokens for result in results)
    rates = Sample(both, TEXTS).rates(0.001)
    assert rates.candidate_rate == sum(result.n_candidates for result in results) / n_tokens > 0
    assert rates.change_rate == pytest.approx(sum(both.expected_changes(TEXTS)) / n_tokens, rel=1e-4)


def test_the_window_is_what_both_take_and_a_broken_second_prior_is_named(
    tiny_llama: Any, tokenizer: Any
) -> None:
    small = tiny_llama(max_position_embeddings=300)
    assert Editor(tiny_llama(), tokenizer, agree=(small, tokenizer)).window == 300
    with torch.no_grad():
        small.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ToEditError, match="the second prior: the model's logits for token 1 are NaN"):
        Editor(tiny_llama(), tokenizer, agree=(small, tokenizer)).edit("the cat", 1)


def renamed(tokenizer: Any) -> Any:
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["catmat"])
    return other


def split_otherwise(tokenizer: Any) -> Any:
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return other


def with_bos(tokenizer: Any) -> Any:
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    return other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, r"split texts differently \(their tokenizers differ in the added_tokens\)"),
        (split_otherwise, "their tokenizers differ in the pre_tokenizer"),
        (with_bos, "one puts a beginning-of-text token before a text"),
    ],
)
def test_another_tokenizer_is_refused(
    tiny_llama: Any, tokenizer: Any, change: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(ToEditError, match=message):
        Editor(tiny_llama(), tokenizer, agree=(tiny_llama(), change(tokenizer)))


def test_the_second_prior_is_in_the_manifest_and_another_one_is_refused(
    priors: Any, tokenizer: Any, tmp_path: Path
) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out"
    rows = [json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(TEXTS)]
    path.write_text("".join(rows))
    both = Editor(priors[0], tokenizer, LOOSE, agree=(priors[1], tokenizer))
    settings = JobSettings(LOOSE, "one", agree="two")
    with pytest.raises(ToEditError, match="the editor's second prior go together"):
        EditJob([path], out, settings).run(Editor(priors[0], tokenizer, LOOSE))
    done = EditJob([path], out, settings, resume=True).run(both)
    assert done.stats.n_changed == sum(result.n_changed for result in both.edit_batch(TEXTS, range(40)))
    found = read_manifest(out).header["settings"]
    assert (found["model"], found["agree"]) == ("one", "two")
    assert "<th>agree</th><td>&quot;two&quot;</td>" in (out / "report.html").read_text()
    for other, said in (("three", '"two" there, "three" now'), (None, '"two" there, null now')):
        with pytest.raises(ToEditError, match=f"settings.agree: {said}"):
            EditJob([path], out, JobSettings(LOOSE, "one", agree=other), resume=True)
