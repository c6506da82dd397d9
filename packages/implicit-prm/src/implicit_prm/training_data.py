"""From rows in one of TRL's formats to the data set of a loss.

unpaired   prompt, completion, label
grouped    prompt, completions, labels
paired     prompt, chosen, rejected; or chosen and rejected alone, as conversations with the prompt in them
stepwise   prompt, completions (the steps), labels (theirs); or prompt, completion, step_labels

A prompt or a completion is text, a list of messages, or already tokenised: `prompt_ids` and `completion_ids`
(`chosen_ids`, `rejected_ids`), where steps are said by `step_ends`, the index of each step's last token.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from implicit_prm.balancing import balanced_indices
from implicit_prm.collation import RewardDataset, StepLabels
from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.encoding import Encoded, encode_rows
from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning
from implicit_prm.formats import with_prompt
from implicit_prm.pairing import pair_indices
from implicit_prm.steps import join_steps, token_steps
from implicit_prm.token_store import Integers, TokenStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = Mapping[str, Any]
ENCODED_AT_ONCE = 1000


@dataclass(slots=True)
class _Response:
    """One response: what `encode_rows` reads, and what its row says about it."""

    row: dict[str, Any]
    label: float
    step_labels: list[Any] | None = None
    steps: Any = None


def reward_dataset(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase | None, config: ImplicitPRMConfig
) -> RewardDataset:
    """Tokenise `rows` for `config.loss`, and pair or balance them.

    Raises `ImplicitPRMError` for rows that are in no known format or do not fit the loss, for labels outside
    [0, 1], and for data that the loss cannot learn from; warns where all labels are equal.
    """
    responses: list[_Response] = []
    pairs: list[tuple[int, int]] = []
    for number, row in enumerate(rows):
        found = list(_of_row(row, str(row.get("id", number)), config.loss))
        if _is_pair(row):
            pairs.append((len(responses), len(responses) + 1))
        responses += found
    if not responses:
        raise ImplicitPRMError("there is no row to train on or to evaluate")
    if config.loss == "step":
        return _stepwise(responses, tokenizer, config)
    store = TokenStore.of(_tokens(responses, tokenizer, config))
    labels = np.array([response.label for response in responses], np.float32)
    groups = _groups(responses)
    seed = config.seed if config.data_seed is None else config.data_seed
    if config.loss in ("dpo", "nca"):
        if 0 < 2 * len(pairs) < len(responses):
            raise ImplicitPRMError(
                f"{len(pairs)} rows are pairs and {len(responses) - 2 * len(pairs)} responses are not, which "
                f"loss={config.loss!r} would leave out: give pairs alone, or labelled responses alone"
            )
        how, most = config.pairing, config.max_pairs_per_prompt
        given = np.array(pairs, np.int64)
        examples = given if pairs else pair_indices(labels, groups, how, max_pairs=most, seed=seed)
        return RewardDataset(store, examples, labels, groups)
    if labels.min() == labels.max():
        warnings.warn(
            f"all {len(labels)} labels are {labels[0]:g}: the loss can only move all rewards one way",
            ImplicitPRMWarning,
            stacklevel=2,
        )
    kept = np.arange(len(labels))
    if config.balance != "none":
        kept = balanced_indices(labels, groups if config.balance == "instruction" else None, seed=seed)
    if config.loss == "ce":
        return RewardDataset(store, kept[:, None], labels, groups)
    unmatched = store.recombined(_unmatched(groups, seed))
    return RewardDataset(
        store.join(unmatched),
        np.stack([kept, kept + len(store)], axis=1),
        np.concatenate([labels, labels]),
        np.concatenate([groups, groups]),
    )


def _is_pair(row: Row) -> bool:
    return any(row.get(key) is not None for key in ("chosen", "chosen_ids", "rejected", "rejected_ids"))


def _of_row(row: Row, name: str, loss: str) -> Iterator[_Response]:
    # A column that is None, as of tables whose rows are of several kinds, is one that the row does not have.
    row = {key: value for key, value in row.items() if value is not None}
    if row.keys() >= {"chosen", "rejected"} and not row.keys() & {"prompt", "prompt_ids"}:
        row = _with_prompt(row, name)
    prompt: dict[str, Any] = {key: row[key] for key in ("prompt", "prompt_ids") if key in row}
    if len(prompt) != 1:
        raise ImplicitPRMError(f"row {name!r} needs either 'prompt' or 'prompt_ids'; it has {sorted(row)}")
    common = {key: row[key] for key in (*prompt, "truncated") if key in row}

    def response(which: str, part: str, label: float) -> _Response:
        ids = f"{part}_ids"
        if part not in row and ids not in row:
            raise ImplicitPRMError(f"row {name!r} has neither {part!r} nor {ids!r}; it has {sorted(row)}")
        text = {"completion": row[part]} if part in row else {"completion_ids": row[ids]}
        return _Response({"id": which, **common, **text}, label)

    if loss == "step":
        yield _stepwise_response(row, name, common)
    elif _is_pair(row):
        yield response(f"{name}/chosen", "chosen", 1.0)
        yield response(f"{name}/rejected", "rejected", 0.0)
    elif "completions" in row:
        completions, labels = _listed(row, "completions", name), _listed(row, "labels", name)
        if len(labels) != len(completions):
            raise ImplicitPRMError(
                f"row {name!r} has {len(completions)} completions and {len(labels)} labels"
            )
        for number, (completion, label) in enumerate(zip(completions, labels, strict=True)):
            which = f"{name}/{number}"
            yield _Response({"id": which, **prompt, "completion": completion}, _label(label, which))
    elif "completion" in row or "completion_ids" in row:
        yield response(name, "completion", _label(_given(row, "label", name), name))
    else:
        raise ImplicitPRMError(
            f"row {name!r} has none of 'completion', 'completions', 'chosen' or their '..._ids'; "
            f"it has {sorted(row)}"
        )


def _with_prompt(row: Row, name: str) -> dict[str, Any]:
    try:
        return with_prompt(row)
    except ImplicitPRMError as error:
        raise ImplicitPRMError(f"row {name!r}: {error}") from error


def _stepwise_response(row: Row, name: str, common: dict[str, Any]) -> _Response:
    if "completions" in row:
        text, spans = join_steps(_listed(row, "completions", name))
        body, labels, steps = {"completion": text}, _listed(row, "labels", name), spans
    elif "completion_ids" in row:
        body = {"completion_ids": row["completion_ids"]}
        labels, steps = _listed(row, "step_labels", name), _listed(row, "step_ends", name)
    else:
        body = {"completion": _given(row, "completion", name)}
        labels, steps = _listed(row, "step_labels", name), None
    return _Response({"id": name, **common, **body}, 0.0, labels, steps)


def _given(row: Row, key: str, name: str) -> Any:
    if key not in row:
        raise ImplicitPRMError(f"row {name!r} has no {key!r}; it has {sorted(row)}")
    return row[key]


def _listed(row: Row, key: str, name: str) -> list[Any]:
    given = _given(row, key, name)
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise ImplicitPRMError(f"{key!r} of row {name!r} is {given!r}; it must be a list")
    return list(given)


def _label(value: Any, name: str) -> float:
    try:
        label = float(value)
    except (TypeError, ValueError):
        label = float("nan")
    if not 0 <= label <= 1:
        raise ImplicitPRMError(f"the label of row {name!r} is {value!r}; labels lie in [0, 1]")
    return label


def _tokens(
    responses: Sequence[_Response], tokenizer: PreTrainedTokenizerBase | None, config: ImplicitPRMConfig
) -> Iterator[tuple[str, Sequence[int], Sequence[int]]]:
    """Id, prompt and completion of every response; a part at a time, as objects of Python are large."""
    for first in range(0, len(responses), ENCODED_AT_ONCE):
        part = [response.row for response in responses[first : first + ENCODED_AT_ONCE]]
        if all(_is_tokenised(row, config) for row in part):
            for row in part:
                yield row["id"], row["prompt_ids"], _fitted(row, config)
        else:
            for encoded in _encode(part, tokenizer, config, config.max_length):
                yield encoded.id, encoded.prompt_ids, encoded.completion_ids


def _is_tokenised(row: dict[str, Any], config: ImplicitPRMConfig) -> bool:
    """Whether a row needs no tokenizer, no text and no offsets."""
    return not config.add_eos and "completion_ids" in row and "prompt_ids" in row


def _encode(
    part: list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase | None,
    config: ImplicitPRMConfig,
    max_length: int | None,
) -> list[Encoded]:
    if tokenizer is None:
        raise ImplicitPRMError("text and add_eos need a tokenizer: give the trainer `processing_class`")
    return encode_rows(
        part, tokenizer, add_eos=config.add_eos, max_length=max_length, truncate=config.truncate
    )


def _fitted(row: dict[str, Any], config: ImplicitPRMConfig) -> Sequence[int]:
    completion: Sequence[int] = row["completion_ids"]
    length = len(row["prompt_ids"]) + len(completion)
    if config.max_length is not None and length > config.max_length:
        room = config.max_length - len(row["prompt_ids"])
        if config.truncate == "error" or room < 1:
            raise ImplicitPRMError(
                f"row {row['id']!r} has {length} tokens and max_length is {config.max_length}; raise it, "
                'leave the row out or, if its prompt alone fits, allow truncate="right"'
            )
        completion = completion[:room]
    return completion


def _groups(responses: Sequence[_Response]) -> Integers:
    """[n] the number of each response's prompt; equal prompts are one."""
    seen: dict[Any, int] = {}
    numbers = []
    for response in responses:
        key = response.row.get("prompt")
        if key is None:
            key = tuple(response.row["prompt_ids"])
        elif not isinstance(key, str):
            key = json.dumps(key, sort_keys=True)
        numbers.append(seen.setdefault(key, len(seen)))
    return np.array(numbers, np.int64)


def _unmatched(groups: Integers, seed: int) -> Integers:
    """For every response another one, of another prompt where there is one; each is taken once.

    Responses in random order but those of one prompt together, each takes the one that stands as many places
    further as the largest group has members: that is beyond its own group, unless more than half of all
    responses answer one prompt.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(groups))
    order = shuffled[np.argsort(generator.permutation(groups.max() + 1)[groups[shuffled]], kind="stable")]
    shift = int(np.bincount(groups).max()) if groups.max() else 1
    partners = np.empty_like(order)
    partners[order] = np.roll(order, -shift)
    return partners


def _stepwise(
    responses: list[_Response], tokenizer: PreTrainedTokenizerBase | None, config: ImplicitPRMConfig
) -> RewardDataset:
    sequences: list[tuple[str, Sequence[int], Sequence[int]]] = []
    ends, labels = [], []
    for response in responses:
        row, steps = _with_steps(response, tokenizer, config)
        of_steps = _step_ends(steps, len(row["completion_ids"]), row["id"])
        of_labels = _step_labels(response, len(of_steps))
        # Only now, so that labels and steps are those of the whole response.
        kept = _fitted(row, config)
        sequences.append((row["id"], row["prompt_ids"], kept))
        begun = int(np.searchsorted(of_steps, len(kept) - 1)) + 1  # a step that is cut keeps its label
        ends.append(np.minimum(of_steps[:begun], len(kept) - 1))
        labels.append(of_labels[:begun])
    store = TokenStore.of(sequences)
    every = np.arange(len(store))
    return RewardDataset(
        store,
        every[:, None],
        np.zeros(len(store), np.float32),
        _groups(responses),
        StepLabels(tuple(ends), tuple(labels)),
    )


def _with_steps(
    response: _Response, tokenizer: PreTrainedTokenizerBase | None, config: ImplicitPRMConfig
) -> tuple[dict[str, Any], Sequence[int]]:
    """The whole response as tokens, however long, and the last token of each of its steps."""
    row, steps = response.row, response.steps
    if _is_tokenised(row, config):
        return row, steps
    (encoded,) = _encode([row], tokenizer, config, None)
    if "completion_ids" not in row:
        how = config.steps if steps is None else steps
        _, steps = token_steps(encoded.completion, encoded.offsets, how)
    elif steps[-1:] == [len(row["completion_ids"]) - 1]:
        steps = [*steps[:-1], len(encoded.completion_ids) - 1]  # an appended EOS belongs to the last step
    tokens = {"prompt_ids": encoded.prompt_ids, "completion_ids": encoded.completion_ids}
    return {"id": encoded.id, **tokens}, steps


def _step_ends(steps: Sequence[int], tokens: int, name: str) -> Integers:
    ends = np.array(steps, np.int64)
    if not len(ends) or (np.diff(ends, prepend=-1) < 1).any() or ends[-1] != tokens - 1:
        raise ImplicitPRMError(
            f"the step ends {list(steps)} of row {name!r} must rise and end with its last token, {tokens - 1}"
        )
    return ends


def _step_labels(response: _Response, steps: int) -> Integers:
    given = response.step_labels or []
    if any(label not in (1, 0, -1) for label in given):
        raise ImplicitPRMError(
            f"the step labels of row {response.row['id']!r} are {given}; they must be 1 (right) or 0 or -1"
        )
    if len(given) != steps:
        raise ImplicitPRMError(
            f"row {response.row['id']!r} has {steps} steps and {len(given)} step labels; "
            "`steps` says how its text is split"
        )
    return np.where(np.array(given) > 0, 1, -1).astype(np.int64)
