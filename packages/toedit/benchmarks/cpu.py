"""Editing on a CPU beside the bare forward pass and the official algorithm, and the memory it takes.

    python benchmarks/cpu.py [--model FOLDER] [--documents 16] [--tokens 256] [--repeats 8] [--memory]

All in one process and in turn; a ratio is the median over pairs with its 95% interval. Times are its own
processor time, all threads together, so that other work on the machine is not counted. Texts are pages of
Python's own manual.

"bare" is `model(ids).logits` of the same batches; "ours" begins with strings and ends with lines of JSON in a
file. "official" restates the released script's work on the same model: a log-softmax of all logits, the top 8
of all tokens, a dictionary a token, NumPy's choice, and a decode of the whole document: once in our batches,
once in batches of 8 in the order of the file, padded to the longest, as a loop over a file makes them. Goals:
ours at least 0.90 times as many tokens a second as bare, and at least 1.3 times as many as official.

`--memory` measures, in a process each, by how much the resident memory peaks above the loaded model: for
`--tokens` in one window, ours against `log_softmax(model(ids).logits)`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lmlab.accounting import Ratio, median_interval
from tenfold.data import get
from toedit import Document, EditConfig, Editor, EditResult
from toedit.backends.transformers import TransformersBackend
from toedit.packing import batches
from toedit.windows import Window

CONFIG = EditConfig(window=2048)
# SmolLM2-135M's sizes.
SIZES = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder with a model; default: the small prior")
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256, help="of the longest document")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", choices=["ours", "full"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak(options.peak, options.tokens))
    elif options.memory:
        memory(options.tokens)
    else:
        speed(options)


def speed(options: argparse.Namespace) -> None:
    """Print the two ratios of speed, and what was edited."""
    editor = Editor.from_pretrained(options.model or str(get("smollm2-135m")), CONFIG)
    documents = list(pages(editor, options.documents, options.tokens))
    ids = [editor.tokenizer.encode([document.text])[0][0] for document in documents]
    tokens = sum(map(len, ids))
    print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, float32, {tokens} tokens\n")
    with tempfile.TemporaryDirectory() as folder:
        ours = partial(write, editor, documents, Path(folder) / "out.jsonl")
        bare = partial(forwards, editor, ids)
        same = partial(official, editor, ids, list(our_batches(editor, ids)))
        in_order = [list(range(len(ids)))[at : at + 8] for at in range(0, len(ids), 8)]
        naive = partial(official, editor, ids, in_order)
        results = ours()
        print("| tokens a second | ratio [95%] | goal |\n|---|---|---|")
        print(f"| ours / bare | {ratio(bare, ours, options.repeats)} | 0.90 |", flush=True)
        for name, other in (("our batches", same), ("batches in order", naive)):
            found = ratio(other, ours, options.repeats)
            print(f"| ours / official, {name} | {found} | 1.3 |", flush=True)
    stats = sum((result.stats for result in results[1:]), results[0].stats)
    print(
        f"\n{stats.n_tokens} tokens, {stats.n_candidates} candidates, {stats.n_changed} changed; padding "
        f"{editor.backend.workload.padding_waste:.1%}"
    )


def ratio(a: Callable[[], object], b: Callable[[], object], repeats: int) -> Ratio:
    """Processor time of `a` over that of `b`; which comes first alternates."""
    found = []
    for repeat in range(repeats):
        seconds = {call: processor_time(call) for call in ((a, b) if repeat % 2 else (b, a))}
        found.append(seconds[a] / seconds[b])
    return median_interval(found)


def processor_time(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def pages(editor: Editor, count: int, tokens: int) -> Iterator[Document]:
    """Pages of the manual, cut to lengths from an eighth of `tokens` to all of it, in no order."""
    long = [text for text in topics.values() if len(text) > 8 * tokens]
    lengths = np.random.default_rng(0).permutation(np.linspace(tokens // 8, tokens, count).astype(int))
    for number, (text, length) in enumerate(zip(long, lengths, strict=False)):
        _, offsets = editor.tokenizer.encode([text])[0]
        yield Document(number, text[: offsets[length - 1, 1]])


def write(editor: Editor, documents: list[Document], path: Path) -> list[EditResult]:
    """From texts to a file."""
    results = []
    with path.open("w", encoding="utf-8") as file:
        for result in editor.edit_stream(documents):
            assert isinstance(result, EditResult)
            file.write(json.dumps({"id": result.doc_id, "text": result.text}, ensure_ascii=False) + "\n")
            results.append(result)
    return results


def our_batches(editor: Editor, ids: list[np.ndarray]) -> Iterator[list[int]]:
    """The documents that the editor puts together."""
    backend = editor.backend
    assert isinstance(backend, TransformersBackend)
    return batches([len(row) for row in ids], backend.batch_tokens)


def padded(ids: list[np.ndarray], batch: list[int]) -> torch.Tensor:
    """int64 [B, T]"""
    block = np.zeros((len(batch), max(len(ids[index]) for index in batch)), np.int64)
    for row, index in enumerate(batch):
        block[row, : len(ids[index])] = ids[index]
    return torch.from_numpy(block)


@torch.inference_mode()
def forwards(editor: Editor, ids: list[np.ndarray]) -> None:
    """The bare forward passes."""
    for batch in our_batches(editor, ids):
        editor.backend.model(padded(ids, batch))


@torch.inference_mode()
def official(editor: Editor, ids: list[np.ndarray], groups: list[list[int]]) -> list[str]:
    """The released script's steps on a model of transformers."""
    random, texts = np.random.default_rng(0), {}
    for batch in groups:
        block = padded(ids, batch)
        log_p = editor.backend.model(block).logits.float().log_softmax(-1)
        values, tops = log_p.topk(CONFIG.top_k)
        own = log_p[:, :-1].gather(2, block[:, 1:, None])[..., 0]
        for row, index in enumerate(batch):
            new = ids[index].tolist()
            for at in range(1, len(new)):
                found = dict(zip(tops[row, at - 1].tolist(), values[row, at - 1].tolist(), strict=True))
                found[new[at]] = float(own[row, at - 1])
                if np.exp(found[new[at]]) > CONFIG.threshold:
                    weights = np.exp(np.array(list(found.values())) / CONFIG.temperature)
                    new[at] = int(random.choice(list(found), p=weights / weights.sum()))
            texts[index] = editor.tokenizer.base.decode(new, skip_special_tokens=True)
    return [texts[index] for index in range(len(ids))]


def memory(tokens: int) -> None:
    """Print the peaks."""
    print(f"one window of {tokens} tokens, a vocabulary of {SIZES['vocab_size']}, float32\n")
    print("| | MiB above the loaded model |\n|---|---|")
    for what in ("ours", "full"):
        command = [sys.executable, __file__, "--peak", what, "--tokens", str(tokens)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"| {what} | {float(done.stdout):.0f} |", flush=True)


@torch.inference_mode()
def peak(what: str, tokens: int) -> float:
    """MiB by which the peak of resident memory grows; random weights of SmolLM2's sizes."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    backend = TransformersBackend(model)
    ids = np.random.default_rng(0).integers(0, SIZES["vocab_size"], tokens)
    Path("/proc/self/clear_refs").write_text("5")  # building the model had a peak of its own
    before = memory_peak()
    if what == "ours":
        backend.score([Window(ids, 1, 0)], CONFIG)
    else:
        model(torch.from_numpy(ids)[None]).logits.log_softmax(-1)
    return memory_peak() - before


def memory_peak() -> float:
    """The largest resident memory since the start or the last reset, in MiB; Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
