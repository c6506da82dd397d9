"""A small model's memory: the measures of `leakage` on what it says, and the audit of a bank that goes on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from medxpertqa.cli import main
from medxpertqa.errors import DataError
from medxpertqa.leakage import edit_similarity, rouge_l
from medxpertqa.memory import CausalMemory, audit_questions
from medxpertqa.questions import Question

pytestmark = pytest.mark.slow  # torch and transformers take longer to import than all other tests to run


class Letters:
    """A tokenizer of letters."""

    eos_token_id = bos_token_id = None

    def encode(self, text, add_special_tokens=True):
        return [ord(c) % 64 for c in text]

    def decode(self, ids, skip_special_tokens=False):
        return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def memory():
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CausalMemory(
        LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=90, **sizes)), Letters()
    )


def test_a_model_trained_on_a_text_is_caught_and_on_another_text_not(memory):
    import copy

    import torch

    seen, other = "the quick brown fox jumps over the lazy dog", "pack my box with five dozen liquor jugs now"
    trained = CausalMemory(copy.deepcopy(memory.model), memory.tokenizer)
    row = torch.tensor([memory.tokenizer.encode(seen)])
    optimizer = torch.optim.Adam(trained.model.parameters(), lr=0.02)
    trained.model.train()
    for _ in range(150):
        optimizer.zero_grad()
        trained.model(row, labels=row).loss.backward()
        optimizer.step()
    trained.model.eval()
    leaked, clean = trained.audit_text(seen), trained.audit_text(other)
    assert leaked.flagged
    assert leaked.ngram_accuracy == 1
    assert leaked.perplexity < 1.5
    assert not clean.flagged
    assert clean.perplexity > 20


def test_log_probabilities_are_the_models_loss(memory):
    import torch

    text = "aortic stenosis"
    row = torch.tensor([memory.tokenizer.encode(text)])
    loss = memory.model(row, labels=row).loss.item()
    assert -np.mean(memory.log_probabilities(text)) == pytest.approx(loss, rel=1e-5)


def test_the_certainty_of_an_own_answer_is_that_of_the_same_tokens_read_again(memory):
    question = Question(id="s-1", stem="Which?", options={"A": "one", "B": "two"}, label="A")
    audit = memory.audit_output(question, max_tokens=8)
    prompt = memory.tokenizer.encode(question.to_prompt_string() + "\nAnswer:")
    written = [int(token) for token in audit.output.split()]
    import torch

    logits = memory.model(torch.tensor([prompt + written])).logits[0]
    again = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1][range(8), written]
    assert audit.perplexity == pytest.approx(torch.exp(-again.mean()).item(), rel=1e-4)


class LettersAfterABeginning(Letters):
    """One that begins every text with a token of its own, as Llama's and Gemma's do."""

    bos_token_id = 63

    def encode(self, text, add_special_tokens=True):
        return [63] * add_special_tokens + super().encode(text)


def test_a_model_sees_the_beginning_that_its_tokenizer_gives_a_text(memory):
    import torch

    begun = CausalMemory(memory.model, LettersAfterABeginning())
    text = "aortic stenosis"
    row = torch.tensor([begun.tokenizer.encode(text)])
    expected = torch.log_softmax(memory.model(row).logits[0], -1)[range(1, len(text)), row[0, 2:]]
    assert begun.log_probabilities(text) == pytest.approx(expected.tolist(), rel=1e-4)
    question = Question(id="s-1", stem="Which?", options={"A": "one", "B": "two"}, label="A")
    prompt = torch.tensor([begun.tokenizer.encode(question.to_prompt_string() + "\nAnswer:")])
    first = memory.model(prompt).logits[0, -1].argmax().item()
    assert begun.audit_output(question, max_tokens=1).output == str(first)


def test_greedy_is_greedy_whatever_the_models_own_settings_say(memory):
    import copy

    own = copy.deepcopy(memory.model)
    own.generation_config.repetition_penalty = 5.0
    text = "the quick brown fox jumps over the lazy dog"
    assert CausalMemory(own, Letters()).continuations(text) == memory.continuations(text)


def test_a_text_beyond_the_context_and_one_of_one_token_are_refused(memory):
    with pytest.raises(DataError, match="context of 90"):
        memory.log_probabilities("a" * 100)
    with pytest.raises(DataError, match="1 tokens"):
        memory.log_probabilities("a")
    with pytest.raises(DataError, match="tokens with 80 of a reply is longer than the model's context of 90"):
        memory.audit_output(QUESTIONS[0], max_tokens=80)


QUESTIONS = [
    Question(f"s-{i}", f"Case {i} has pain.", {"A": "one", "B": "two"}, "A", explanation="1 2 3")
    for i in range(4)
]


class Counted:
    """A memory that counts the questions that it is asked about."""

    def __init__(self, memory, fail_after=10**9):
        self.memory, self.fail_after, self.asked = memory, fail_after, 0

    @property
    def name(self):
        return self.memory.name

    def audit_text(self, text, n=5, k=5, stemmed=False):
        if self.asked >= self.fail_after:
            raise KeyboardInterrupt
        self.asked += 1
        return self.memory.audit_text(text, n, k, stemmed)

    def audit_output(self, question, max_tokens=256):
        return self.memory.audit_output(question, max_tokens)


def test_an_audit_that_was_stopped_goes_on_and_does_nothing_twice(memory, tmp_path):
    out = tmp_path / "audit.jsonl"
    with pytest.raises(KeyboardInterrupt):
        audit_questions(Counted(memory, fail_after=2), QUESTIONS, out, max_tokens=4)
    out.write_text(out.read_text() + '{"kind": "original", "id": "s-')  # killed while it wrote
    rest = Counted(memory)
    audit = audit_questions(rest, QUESTIONS, out, max_tokens=4)
    assert rest.asked == 2
    assert [row.id for row in audit.rows] == [question.id for question in QUESTIONS]
    assert audit.rows[0].text == memory.audit_text(QUESTIONS[0].to_prompt_string())
    assert audit.rows[0].rouge_l is not None
    assert len(out.read_text().splitlines()) == 4
    with pytest.raises(DataError, match="is an audit with max_tokens 4, not 5; use another file"):
        audit_questions(rest, QUESTIONS, out, max_tokens=5)
    with pytest.raises(DataError, match="is an audit with stemmed False, not True; use another file"):
        audit_questions(rest, QUESTIONS, out, max_tokens=4, stemmed=True)
    for changed in ({"stem": "Another case."}, {"explanation": "Another one."}):
        other = [*QUESTIONS[:3], replace(QUESTIONS[3], **changed)]
        with pytest.raises(DataError, match=r"is an audit of another text of s-3 \(original\); use another"):
            audit_questions(rest, other, out, max_tokens=4)
    assert rest.asked == 2
    out.write_text(out.read_text().replace('"model": ""', '"model": "another"'))
    with pytest.raises(DataError, match="is an audit with model 'another', not ''; use another file"):
        audit_questions(rest, QUESTIONS, out, max_tokens=4)
    out.write_text("{}\n")
    with pytest.raises(DataError, match="line 1 is no line of a leakage audit"):
        audit_questions(rest, QUESTIONS, out)


def test_rewritten_questions_are_paired_by_id(memory, tmp_path):
    rewritten = [replace(question, stem=f"There is pain: {question.id}.") for question in QUESTIONS]
    audit = audit_questions(memory, QUESTIONS, tmp_path / "a", rewritten=rewritten[::-1], max_tokens=4)
    change = audit.changes["perplexity of the question"]
    after = [memory.audit_text(question.to_prompt_string()).perplexity for question in rewritten]
    assert change.after == pytest.approx(np.mean(after))
    assert change.n == 4
    assert [name for name, found in audit.changes.items() if found.n == 4] == list(audit.changes)
    measures = {
        "perplexity of its own answer": lambda question, found: found.perplexity,
        "ROUGE-L to the explanation": lambda question, found: rouge_l(found.output, question.explanation),
        "edit similarity to the explanation": lambda question, found: edit_similarity(
            found.output, question.explanation
        ),
    }
    for name, measure in measures.items():
        for asked, mean in ((QUESTIONS, audit.changes[name].before), (rewritten, audit.changes[name].after)):
            values = [measure(question, memory.audit_output(question, max_tokens=4)) for question in asked]
            assert mean == pytest.approx(np.mean(values)), name
    plain = [replace(question, explanation="") for question in QUESTIONS]
    unexplained = audit_questions(memory, plain, tmp_path / "c", rewritten=rewritten, max_tokens=4)
    assert "perplexity of its own answer" in unexplained.changes
    assert "ROUGE-L to the explanation" not in unexplained.changes
    with pytest.raises(DataError, match=r"another text of s-0 \(rewritten\)"):
        audit_questions(memory, QUESTIONS, tmp_path / "a", rewritten=QUESTIONS, max_tokens=4)
    with pytest.raises(DataError, match="s-0 is not among the rewritten"):
        audit_questions(memory, QUESTIONS, tmp_path / "b", rewritten=rewritten[1:])


def test_the_command_audits_a_file_with_a_model_of_transformers(tmp_path, capsys):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path / "model"
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "pain": 2, "Case": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(
        folder
    )
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=4, max_position_embeddings=90, **sizes)).save_pretrained(folder)
    data, out = tmp_path / "q.jsonl", tmp_path / "audit.jsonl"
    data.write_text("".join(json.dumps(question.to_record()) + "\n" for question in QUESTIONS))
    with pytest.raises(SystemExit) as ended:
        main(["leakage", str(data), "--model", str(folder), "--out", str(out), "--max-tokens", "4"])
    assert ended.value.code == 0
    assert "of 4 questions are flagged" in capsys.readouterr().out
    assert len(out.read_text().splitlines()) == 4
    assert json.loads(out.read_text().splitlines()[0])["model"] == str(folder)
    for wrong, message in (
        (["--model", str(tmp_path / "none")], "none cannot be loaded"),
        (["--model", str(folder), "--device", "abacus"], "the device 'abacus' cannot be used"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["leakage", str(data), "--out", str(out), *wrong])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
