"""Programs on a SandboxFusion server (github.com/bytedance/SandboxFusion), spoken to as verl does."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from implicit_prime.errors import PrimeError
from implicit_prime.sandbox.base import SandboxResult, result_of

ATTEMPTS = 4
_BUSY = (429, 502, 503, 504)


class RemoteSandbox:
    """A SandboxFusion server at `url`, such as "http://localhost:8080".

    It has one limit of time for a program, so that `cpu_s` is not used and `wall_s` is what counts.
    """

    def __init__(self, url: str, memory_mb: int = 512) -> None:
        self.url = url.rstrip("/")
        self.memory_mb = memory_mb

    def run(self, code: str, stdin: str = "", cpu_s: float = 2, wall_s: float = 20) -> SandboxResult:
        """See `Sandbox.run`. A busy server is asked `ATTEMPTS` times.

        Raises `PrimeError` if there is no answer, or none that a SandboxFusion server gives.
        """
        answer = self._ask(
            {
                "language": "python",
                "code": code,
                "stdin": stdin,
                "compile_timeout": wall_s,
                "run_timeout": wall_s,
                "memory_limit_MB": self.memory_mb,
                "files": {},
                "fetch_files": [],
            },
            seconds=wall_s + 30,
        )
        run = answer.get("run_result")
        if answer.get("status") not in ("Success", "Failed") or not isinstance(run, dict):
            raise PrimeError(f"{self.url} could not run the program: {answer.get('message') or answer}")
        return result_of(
            run["return_code"] if run.get("return_code") is not None else -1,
            run.get("stdout") or "",
            run.get("stderr") or "",
            stopped=run.get("status") == "TimeLimitExceeded",
        )

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        body, headers = json.dumps(request).encode(), {"Content-Type": "application/json"}
        for attempt in range(ATTEMPTS):
            try:
                message = urllib.request.Request(f"{self.url}/run_code", body, headers)
                with urllib.request.urlopen(message, timeout=seconds) as reply:
                    answer = json.load(reply)
                if isinstance(answer, dict):
                    return answer
                problem: object = f"an answer that is no object: {str(answer)[:200]}"
                break
            except urllib.error.HTTPError as error:
                problem = error
                if error.code not in _BUSY:
                    break
            except OSError as error:
                problem = error
            except (ValueError, HTTPException) as error:  # no address, no JSON, or no HTTP
                problem = error
                break
            time.sleep(0.5 * 2**attempt)
        raise PrimeError(
            f"no answer from the sandbox server {self.url}: {problem}; is it up, and the address right?"
        )
