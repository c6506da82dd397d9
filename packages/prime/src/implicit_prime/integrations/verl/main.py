"""Train with verl from a TOML file.

    python -m implicit_prime.integrations.verl.main run.toml [table.key=value ...] [--check]

With --check nothing is trained: the configuration is put together, verl validates it, and it is shown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from implicit_prime.errors import PrimeError
from implicit_prime.integrations.verl.settings import compose_config, prime_settings, read_tables
from implicit_prm import ImplicitPRMError, cli_options, terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, or check; a user's mistake is told in a sentence, with exit code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    files = [word for word in words if "=" not in word and not word.startswith("-")]
    if len(files) != 1 or any(word.startswith("-") and word != "--check" for word in words):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 0 if "--help" in words else 2
    try:
        changes = cli_options.assignments("", [word for word in words if "=" in word])
        config = compose_config(read_tables(files[0]), changes)
        validate(config)
    except (PrimeError, ImplicitPRMError) as error:
        terminal.tell(f"{files[0]}: {error}")
        return 2
    if "--check" in words:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(config, resolve=True))
        return 0
    run(config)
    return 0


def validate(config: Any) -> None:
    """Raise `PrimeError` for what verl finds wrong with a configuration, or we."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    prime_settings(config)
    try:
        validate_config(config, need_reference_policy(config), need_critic(config))
    except (ValueError, AssertionError, HydraException, OmegaConfBaseException) as error:
        raise PrimeError(f"verl says: {error}") from error


def run(config: Any) -> None:
    """Train on a Ray cluster, the one that is there or else one on this machine."""
    from verl.trainer.main_ppo import run_ppo
    from verl.utils.device import auto_set_device

    from implicit_prime.integrations.verl.runner import PrimeTaskRunner

    auto_set_device(config)
    run_ppo(config, task_runner_class=PrimeTaskRunner)


if __name__ == "__main__":
    sys.exit(main())
