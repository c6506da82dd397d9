"""Where programs of unknown origin run: by default in bubblewrap, with no network and no files of yours."""

from implicit_prime.sandbox.base import Sandbox, SandboxResult
from implicit_prime.sandbox.bubblewrap import BubblewrapSandbox
from implicit_prime.sandbox.remote import RemoteSandbox
from implicit_prime.sandbox.rlimits import RlimitSandbox

__all__ = ["BubblewrapSandbox", "RemoteSandbox", "RlimitSandbox", "Sandbox", "SandboxResult"]
