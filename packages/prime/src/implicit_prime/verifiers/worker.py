"""A process that judges mathematics: `python -m implicit_prime.verifiers.worker FD EXTRACT SECONDS`.

Requests and replies are JSON on the connection FD: [completion, reference] -> [score, status, detail]. At
first null says that it is ready. It ends when the connection does.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from implicit_prime.verifiers.judging import judge

MEMORY_BYTES = 4 * 2**30


def main(fd: int, extract: Any, seconds: float) -> None:
    """Judge until the other side closes."""
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    if allowed == resource.RLIM_INFINITY or allowed > MEMORY_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable()  # what cannot be read is a result here, no news
    judge("\\boxed{x+1}", "1+x", extract)  # loads sympy and the grammar
    with Connection(fd) as connection:
        connection.send_bytes(b"null")
        while True:
            try:
                completion, reference = json.loads(connection.recv_bytes())
            except EOFError:
                return
            # Nobody is left to end a worker whose parent was killed: SIGALRM does, unhandled.
            signal.setitimer(signal.ITIMER_REAL, seconds + 60)
            connection.send_bytes(json.dumps(_reply(completion, reference, extract)).encode())
            signal.setitimer(signal.ITIMER_REAL, 0)


def _reply(completion: str, reference: str, extract: Any) -> list[Any]:
    try:
        result = judge(completion, reference, extract)
    except Exception as error:  # of sympy there may be any
        return [0.0, "error", f"math-verify raised {type(error).__name__}: {str(error)[:200]}"]
    return [result.score, result.status, result.detail]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
