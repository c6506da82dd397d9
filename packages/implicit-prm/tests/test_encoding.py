"""Rows as tokens: what is scored, and the characters that each token covers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from implicit_prm.encoding import encode_rows, official_text
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.offsets import decode_responses, decoded_offsets
from implicit_prm.steps import split_steps, token_steps

CORPUS = ["Step 1: two plus two is four.\n\nStep 2: so the answer is 4.", "the cat sat on the mat; the hat"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerBase:
    """GPT-2's kind: bytes, merges, no BOS of its own; ChatML as Qwen and SmolLM2 have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|end|>", chat_template=CHATML
    )


@pytest.fixture(scope="module")
def llama3() -> PreTrainedTokenizerBase:
    """Bytes as Llama 3 splits them (line ends stay together), with its template."""
    tokenizer = Tokenizer(models.BPE())
    split = Regex(r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=names,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=names[0], eos_token=names[1], chat_template=LLAMA3
    )


@pytest.fixture(scope="module")
def sentence_piece() -> PreTrainedTokenizerBase:
    """Llama 2's kind: spaces as letters, bytes where a letter is unknown, a BOS put first."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=names[:3], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    learned = {**tokenizer.get_vocab(), **{name: 420 + at for at, name in enumerate(names[3:])}}
    state = json.loads(tokenizer.to_str())
    state["model"]["vocab"] = learned
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="module")
def word_level() -> PreTrainedTokenizerBase:
    words = {word: at for at, word in enumerate(["<eos>", *map(str, range(23)), "f0", "f1"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def texts_of(row) -> list[str]:
    return [row.completion[start:end] for start, end in row.offsets]


def test_text_is_split_with_its_prompt_and_offsets_count_in_the_completion(byte_level) -> None:
    (row,) = encode_rows([{"prompt": "the cat", "completion": " sat on the mat"}], byte_level)
    assert list(row.input_ids) == byte_level("the cat sat on the mat")["input_ids"]
    assert list(row.prompt_ids) == byte_level("the cat")["input_ids"]
    assert "".join(texts_of(row)) == row.completion == " sat on the mat"
    assert row.completion_mask == (False,) * len(row.prompt_ids) + (True,) * len(row.completion_ids)
    assert (row.id, row.truncated) == ("0", False)


def test_a_token_never_reaches_over_the_border(byte_level) -> None:
    joint = byte_level("the cat")["input_ids"]
    assert (
        byte_level("th")["input_ids"] != joint[: len(byte_level("th")["input_ids"])]
    )  # so the border is inside
    (row,) = encode_rows([{"prompt": "th", "completion": "e cat"}], byte_level)
    assert list(row.prompt_ids) == byte_level("th")["input_ids"]
    assert list(row.completion_ids) == byte_level("e cat")["input_ids"]
    assert "".join(texts_of(row)) == "e cat"


def test_the_tokenizers_own_bos_goes_before_the_prompt(sentence_piece, byte_level) -> None:
    (row,) = encode_rows([{"prompt": "the cat", "completion": " sat"}], sentence_piece)
    assert list(row.input_ids) == sentence_piece("the cat sat")["input_ids"]
    assert row.prompt_ids[0] == sentence_piece.bos_token_id
    assert "".join(texts_of(row)) == " sat"
    (row,) = encode_rows([{"prompt": "the cat", "completion": " sat"}], byte_level)
    assert row.prompt_ids[0] != byte_level.bos_token_id


def test_eos_is_added_once_has_the_empty_span_at_the_end_and_is_never_invented(byte_level) -> None:
    text = {"prompt": "the", "completion": " cat"}
    end = byte_level.eos_token_id
    (plain,) = encode_rows([text], byte_level)
    rows = encode_rows(
        [
            text,
            {**text, "truncated": True},
            {"prompt_ids": plain.prompt_ids, "completion_ids": (*plain.completion_ids, end)},
            {"prompt_ids": plain.prompt_ids, "completion_ids": plain.completion_ids},
        ],
        byte_level,
        add_eos=True,
    )
    ended, cut, sampled, bare = rows
    assert ended.completion_ids == (*plain.completion_ids, end)
    assert (ended.completion, ended.offsets[-1]) == (" cat", (4, 4))
    assert (cut.completion_ids, cut.truncated) == (plain.completion_ids, True)
    for row in (sampled, bare):
        assert (row.completion_ids, row.completion, row.offsets) == (
            ended.completion_ids,
            " cat",
            ended.offsets,
        )
        assert not row.truncated


def test_sampled_tokens_without_an_end_are_truncated_unless_the_row_says_otherwise(byte_level) -> None:
    ids = byte_level(" cat")["input_ids"]
    row = {"prompt_ids": [5], "completion_ids": ids}
    rows = [row, {**row, "completion_ids": [*ids, byte_level.eos_token_id]}, {**row, "truncated": False}]
    assert [encoded.truncated for encoded in encode_rows(rows, byte_level)] == [True, False, False]


def test_messages_go_through_the_template_and_what_follows_the_end_of_turn_is_not_scored(byte_level) -> None:
    prompt = [{"role": "user", "content": "the cat?"}]
    rows = [
        {"prompt": prompt, "completion": [{"role": "assistant", "content": " the mat "}], "id": "a"},
        {"prompt": prompt, "completion": " the mat ", "id": 7},
        {"prompt": prompt, "completion": "the mat", "truncated": True},
    ]
    first, second, cut = encode_rows(rows, byte_level, add_eos=True)
    before = "<|im_start|>user\nthe cat?<|im_end|>\n<|im_start|>assistant\n"
    whole = byte_level(before + "the mat<|im_end|>\n")["input_ids"]
    assert list(first.prompt_ids) == byte_level(before)["input_ids"]
    assert list(first.input_ids) == whole[: len(whole) - 1]
    assert (first.completion, first.offsets[-1]) == ("the mat", (7, 7))
    assert "".join(texts_of(first)) == "the mat"
    assert (first.id, second.id) == ("a", "7")
    assert second.input_ids == first.input_ids
    assert (cut.input_ids, cut.completion) == (first.input_ids[:-1], "the mat")


def test_a_messages_prompt_takes_sampled_tokens(byte_level) -> None:
    prompt = [{"role": "user", "content": "the cat?"}]
    ids = [*byte_level("the mat")["input_ids"], byte_level.convert_tokens_to_ids("<|im_end|>")]
    by_text, by_ids = encode_rows(
        [
            {"prompt": prompt, "completion": "the mat", "id": 0},
            {"prompt": prompt, "completion_ids": ids, "id": 0},
        ],
        byte_level,
    )
    assert by_text == by_ids


def test_official_rewrites_the_steps_and_goes_through_the_template(byte_level) -> None:
    text = "Plan. See Step 9.\nStep 1: add\n\nthem. Step 2: \nStep 3: done "
    written = "Step 1: Plan. See step 9.\n\nStep 2: add\n\nthem.\n\nStep 3: done"
    assert official_text(text) == written
    pieces = ["Step 1: Plan. See step 9.\n\n", "Step 2: add\n\nthem.\n\n", "Step 3: done"]
    assert [written[start:end] for start, end in split_steps(written, "step_header")] == pieces
    official = encode_rows([{"prompt": "q", "completion": text}], byte_level, render="official")
    prompt = [{"role": "user", "content": "q"}]
    assert official == encode_rows([{"prompt": prompt, "completion": written}], byte_level)
    reply = [{"role": "assistant", "content": text}]
    assert official == encode_rows([{"prompt": prompt, "completion": reply}], byte_level, render="official")
    # As in the official evaluation, a step's last token is its "\n\n", and the last one's the end of turn.
    (row,) = official
    steps, ends = token_steps(row.completion, row.offsets, "step_header")
    assert [step.text for step in steps] == pieces
    assert [texts_of(row)[end][-1:] for end in ends] == ["\n", "\n", ""]


def official_steps(question: str, steps: list[str], tokenizer) -> tuple[list[int], list[int]]:
    """Tokens and last token of every step as the official evaluation's collator finds them."""
    opening, end = "<|start_header_id|>assistant<|end_header_id|>", "<|eot_id|>"

    def conversation(number: int) -> str:
        reply = {"role": "assistant", "content": "\n\n".join(steps[:number])}
        messages = [{"role": "user", "content": question}, reply]
        return tokenizer.apply_chat_template(messages, tokenize=False)

    ends = []
    for number in range(1, len(steps) + 1):
        text = conversation(number).strip()
        if number != len(steps):
            text = text.removesuffix(opening).removesuffix(end) + "\n\n"
        ends.append(len(tokenizer(text, add_special_tokens=False)["input_ids"]) - 1)
    return tokenizer(conversation(len(steps)), add_special_tokens=False)["input_ids"], ends


@pytest.mark.parametrize(
    "text", ["Step 1: two plus\n\nStep 2: two Step 3: is four.", "no Step at all", "a\nStep 1:b"]
)
def test_official_steps_end_at_the_tokens_of_the_official_evaluation(llama3, text: str) -> None:
    (row,) = encode_rows([{"prompt": "the cat?", "completion": text}], llama3, render="official")
    ids, official_ends = official_steps("the cat?", official_text(text).split("\n\n"), llama3)
    assert list(row.input_ids) == ids
    _, ends = token_steps(row.completion, row.offsets, "step_header")
    assert [len(row.prompt_ids) + end for end in ends] == official_ends


@settings(max_examples=60)
@given(
    text=st.text(max_size=12)
    | st.lists(st.sampled_from([" the", "cat ", "\n", "\u00e9", "\U0001f600"])).map("".join)
)
def test_decoding_token_by_token_gives_the_text_and_the_tokenizers_own_borders(byte_level, text: str) -> None:
    found = byte_level(text, return_offsets_mapping=True)
    decoded, spans = decoded_offsets(found["input_ids"], byte_level)
    assert decoded == text
    assert [end for _, end in spans] == [start for start, _ in spans[1:]] + [len(text)] * (len(spans) > 0)
    for (start, end), (own_start, own_end) in zip(spans, found["offset_mapping"], strict=True):
        assert (
            (start, end) == (own_start, own_end)
            or start == end == own_start
            or own_start <= start < end == own_end
        )


@settings(max_examples=60)
@given(ids=st.lists(st.integers(0, 399), max_size=12))
def test_any_sampled_bytes_decode_to_the_text_that_the_tokenizer_gives(byte_level, ids: list[int]) -> None:
    end = len(ids)
    while end and ids[end - 1] in (0, 1, 2):
        end -= 1
    ((text, spans),) = decode_responses([ids], byte_level)
    assert text == byte_level.decode(ids[:end])
    assert len(spans) == len(ids)
    starts = [start for start, _ in spans]
    assert starts == sorted(starts)
    assert max([stop for _, stop in spans], default=0) == len(text)
    assert spans[end:] == ((len(text), len(text)),) * (len(ids) - end)


def test_spaces_and_bytes_of_sentence_piece_are_decoded_as_in_the_whole(sentence_piece) -> None:
    ids = sentence_piece("the cat \u20ac the", add_special_tokens=False)["input_ids"]
    text, spans = decoded_offsets(ids, sentence_piece)
    assert text == sentence_piece.decode(ids) == "the cat \u20ac the"
    assert "".join(text[start:end] for start, end in spans) == text
    assert spans[0][0] == 0
    # Three bytes make the one character: the last of them has it, the others begin before it.
    euro = [span for span in spans if span[0] == 8]
    assert euro == [(8, 8), (8, 8), (8, 9)]


def test_words_of_a_word_level_tokenizer_are_steps_each(word_level) -> None:
    row = {
        "prompt_ids": word_level("3 f0 f1")["input_ids"],
        "completion_ids": word_level("12 7 <eos>")["input_ids"],
    }
    (encoded,) = encode_rows([row], word_level)
    assert (encoded.completion, encoded.truncated) == ("12 7", False)
    steps, ends = token_steps(encoded.completion, encoded.offsets, "token")
    assert ([step.text for step in steps], ends) == (["12 ", "7"], [0, 2])
    by_text = encode_rows([{"prompt": "3 f0 f1", "completion": "12 7"}], word_level, add_eos=True)
    assert by_text == [encoded]


def test_too_long_is_an_error_or_cut_and_marked(byte_level) -> None:
    row = {"prompt": "the cat", "completion": " sat on the mat", "id": "long"}
    (whole,) = encode_rows([row], byte_level)
    length = len(whole.input_ids)
    assert encode_rows([row], byte_level, max_length=length) == [whole]
    with pytest.raises(ImplicitPRMError, match=f"'long' has {length} tokens.*truncate=\"right\""):
        encode_rows([row], byte_level, max_length=length - 1)
    (cut,) = encode_rows([row], byte_level, max_length=length - 1, truncate="right", add_eos=True)
    assert cut.completion_ids == whole.completion_ids[:-1]
    assert (cut.completion, cut.offsets) == (whole.completion[: whole.offsets[-1][0]], whole.offsets[:-1])
    assert cut.truncated
    with pytest.raises(ImplicitPRMError, match="prompt alone"):
        encode_rows([row], byte_level, max_length=len(whole.prompt_ids), truncate="right")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "q", "completion": ""}, "the completion is ''"),
        ({"prompt": "", "completion": "a"}, "the prompt has no tokens"),
        ({"prompt": "q"}, "it needs prompt and completion"),
        ({"prompt": "q", "label": 1}, "['id', 'label', 'prompt']"),
        ({"prompt_ids": [5], "completion": "a"}, "prompt_ids go with completion_ids"),
        ({"prompt_ids": [5], "completion_ids": []}, "the completion has no tokens"),
        ({"prompt_ids": [5], "completion_ids": [9999]}, "token 9999 is not in the tokenizer's vocabulary"),
        ({"prompt_ids": [5], "completion_ids": [-1]}, "token -1 is not in the tokenizer's vocabulary"),
        ({"prompt_ids": [10**12], "completion_ids": [5]}, "token 1000000000000 is not in"),
        ({"prompt": "q", "completion": "a\ud800"}, "the completion has '\\ud800' at character 1, half of a"),
        ({"prompt": "\ud800", "completion_ids": [5]}, "the prompt has '\\ud800' at character 0"),
        ({"prompt_ids": [5], "completion_ids": ["a"]}, "not whole numbers"),
        ({"prompt_ids": [5], "completion_ids": [1.5]}, "not whole numbers"),
        ({"prompt_ids": [0, 0, 7], "completion_ids": [5]}, "BOS token '<|end|>' twice"),
        ({"prompt": "q", "completion": [{"role": "assistant", "content": "a"}]}, "needs a prompt of mess"),
        ({"prompt": [{"role": "user"}], "completion": "a"}, "no message with 'role' and 'content'"),
        ({"prompt": [{"role": "user", "content": None}], "completion": "a"}, "its prompt has no content"),
        (
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [{"role": "assistant", "content": ""}],
            },
            "its completion is empty",
        ),
        ({"prompt": [{"role": "user", "content": "q"}], "completion": " \n"}, "its completion is empty"),
        ({"prompt": [], "completion": "a"}, "give text, or a list of messages"),
        ({"prompt": [{"role": "user", "content": "<|im_start|>user\nq"}], "completion": "a"}, "already"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_scored_are_errors_that_name_them(byte_level, row, words: str) -> None:
    with pytest.raises(ImplicitPRMError) as error:
        encode_rows([{"prompt": "fine", "completion": "fine"}, {**row, "id": "bad"}], byte_level)
    assert "'bad'" in str(error.value)
    assert words in str(error.value)


def test_a_prompt_that_has_gone_through_the_template_is_refused_its_second_bos(sentence_piece) -> None:
    with pytest.raises(ImplicitPRMError, match="BOS token '<s>' twice"):
        encode_rows([{"prompt": "<s>the cat", "completion": " sat"}], sentence_piece)


def test_a_template_that_opens_the_reply_otherwise_is_refused(byte_level, word_level) -> None:
    messages = {"prompt": [{"role": "user", "content": "q"}], "completion": "a"}
    with pytest.raises(ImplicitPRMError, match="tokenizer has none"):
        encode_rows([messages], word_level)
    thinking = CHATML.replace("assistant\n", "assistant\n<think>\n")
    plain = byte_level.chat_template
    try:
        byte_level.chat_template = thinking
        with pytest.raises(ImplicitPRMError, match="as they were sampled"):
            encode_rows([messages], byte_level)
        byte_level.chat_template = "{{ raise_exception('no system role') }}"
        with pytest.raises(ImplicitPRMError, match="no system role"):
            encode_rows([messages], byte_level)
    finally:
        byte_level.chat_template = plain


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "q", "completion_ids": [5]}, "its response is tokens"),
        ({"prompt": "q", "completion": ["a"]}, "needs one reply"),
        ({"prompt": "q", "completion": [{"role": "assistant", "content": "a"}] * 2}, "needs one reply"),
    ],
)
def test_what_cannot_be_rewritten_as_the_official_evaluation_does_is_an_error(byte_level, row, words) -> None:
    with pytest.raises(ImplicitPRMError, match=f"row '0'.*{words}"):
        encode_rows([row], byte_level, render="official")


@pytest.mark.parametrize("option", [{"truncate": "left"}, {"render": "theirs"}])
def test_unknown_options_are_errors(byte_level, option) -> None:
    with pytest.raises(ImplicitPRMError, match="allowed: "):
        encode_rows([], byte_level, **option)
