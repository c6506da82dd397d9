"""What Ray runs as the driver of a training: verl's task runner, with our trainer known to it."""

from __future__ import annotations

from typing import Any

import ray
from verl.trainer.main_ppo import TaskRunnerV1

_Base: Any = TaskRunnerV1.__ray_metadata__.modified_class.__ray_actor_class__


class _TaskRunner(_Base):
    def run(self, config: Any) -> None:
        import implicit_prime.integrations.verl.trainer  # noqa: F401  # verl then knows "prime"

        super().run(config)


PrimeTaskRunner = ray.remote(_TaskRunner)
"""For `verl.trainer.main_ppo.run_ppo(config, task_runner_class=...)`."""
