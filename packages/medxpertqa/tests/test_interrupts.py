"""A run that was stopped or killed: what was answered stays, and no question is scored twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest

from medxpertqa import load_results
from medxpertqa.engine.stub_server import StubServer, prompt_text
from medxpertqa.questions import Question

pytestmark = pytest.mark.slow

CONNECTIONS = 2
QUESTIONS = [Question(f"Text-{i}", f"Invented case {i}.", {"A": "x", "B": "y"}, "A") for i in range(30)]


class Endpoint:
    """Answers, counts the answers by question, and sets `half` when half of the questions have one."""

    def __init__(self):
        self.answered, self.half = Counter(), threading.Event()

    def __call__(self, payload):
        text = prompt_text(payload)
        name = next(q.id for q in QUESTIONS if f"{q.stem}\n" in text)
        self.answered[name] += 1
        if len(self.answered) >= len(QUESTIONS) // 2:
            self.half.set()
        return "A"


def start(server, data, logs):
    command = ["eval", "--data", data, "--model", "openai-api/local/m", "--log-dir", logs, "--protocol"]
    command += ["official-ao", "--base-url", server.base_url, "--max-connections", str(CONNECTIONS)]
    program = "from medxpertqa.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, command)],
        env=os.environ | {"LOCAL_API_KEY": "k"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job's children would ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize(("sent", "code", "lost"), [(signal.SIGINT, 130, 0), (signal.SIGKILL, -9, 10)])
def test_a_run_that_ended_early_goes_on_and_scores_every_question_once(tmp_path, sent, code, lost):
    data, logs = tmp_path / "q.jsonl", tmp_path / "logs"
    data.write_text("".join(json.dumps(question.to_record()) + "\n" for question in QUESTIONS))
    endpoint = Endpoint()
    with StubServer(endpoint, delay=0.05) as server:
        process = start(server, data, logs)
        assert endpoint.half.wait(60), process.communicate()
        process.send_signal(sent)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code, said
        if sent == signal.SIGINT:
            assert "interrupted; the same command goes on where it stopped" in said
        assert "Traceback" not in said
        before = set(endpoint.answered)
        process = start(server, data, logs)
        out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    results = load_results(logs)
    assert sorted(record.id for record in results.records) == sorted(question.id for question in QUESTIONS)
    again = [name for name in before if endpoint.answered[name] > 1]
    # inspect-ai writes its log after so many samples; what is under way is asked again as well: so many
    # requests, and at most as many replies that are not yet logged.
    assert len(again) <= lost + 2 * CONNECTIONS
    assert len(before) - len(again) >= 1
    assert "30" in out
