"""What `evaluate` tells of responses, as `implicit-prime eval --out` writes it."""

from __future__ import annotations

import json

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from implicit_prime.evaluation import _rows
from implicit_prime.responses import PromptGroup
from implicit_prm.encoding import encode_rows

BOS, EOS, A, B = range(4)


def with_bos() -> PreTrainedTokenizerFast:
    """Puts <s> before every text, as Llama's tokenizer does."""
    vocabulary = {"<s>": BOS, "</s>": EOS, "a": A, "b": B}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def test_rows_on_disk_are_scored_as_the_tokens_that_were_drawn() -> None:
    """Though read as text they would have a second BOS, no end of the prompt's turn, and no completion."""
    tokenizer, prompt, ids = with_bos(), (BOS, A, EOS), [(B, EOS), (EOS,)]
    group = PromptGroup(
        prompt=7,
        prompt_ids=prompt,
        ids=ids,
        log_probs=[np.zeros(len(one), np.float32) for one in ids],
        truncated=[False, False],
        outcomes=np.array([1.0, np.nan]),
    )
    rows = [json.loads(json.dumps(row)) for row in _rows("set", [group], [{"answer": "b"}], tokenizer)]
    assert [row.input_ids for row in encode_rows(rows, tokenizer)] == [prompt + one for one in ids]
    told = [(row["task"], row["prompt"], row["completion"], row["answer"], row["score"]) for row in rows]
    assert told == [(7, "<s> a </s>", "b", "b", 1.0), (7, "<s> a </s>", "", "b", None)]
