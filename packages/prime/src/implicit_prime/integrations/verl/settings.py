r"""A run in a TOML file, as verl's configuration.

    [prime]                                       # settings of `PrimeConfig` that verl does not have
    beta = 0.05

    [verifier.math]                               # as in the files of `implicit-prime train`
    extract = "boxed"

    [actor_rollout_ref.model]                     # all other tables are verl's own
    path = "PRIME-RL/Eurus-2-7B-SFT"

A key that verl's configuration does not have is an error; with a plus before it, it is added, as in Hydra.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from implicit_prime.config import PrimeConfig
from implicit_prime.errors import PrimeError
from implicit_prime.verifiers.named import check_verifiers

if TYPE_CHECKING:
    from omegaconf import DictConfig

OURS = ("prime", "verifier")
_SETTINGS = {
    "beta", "prm_update", "ref", "advantage", "process_baseline", "process_norm", "process_weight",
    "process_gamma", "outcome_gamma", "whiten", "accuracy_range", "filter_truncated", "max_refill_rounds",
}  # fmt: skip
_ACTOR = "actor_rollout_ref.actor"
_ROLLOUT = "actor_rollout_ref.rollout"
# Where verl has what `PrimeConfig` calls otherwise.
_ELSEWHERE = {
    "output_dir": "trainer.default_local_dir",
    "max_steps": "trainer.total_training_steps",
    "num_train_epochs": "trainer.total_epochs",
    "prompts_per_step": "data.train_batch_size",
    "num_generations": f"{_ROLLOUT}.n",
    "prm_epochs": "critic.ppo_epochs",
    "learning_rate": f"{_ACTOR}.optim.lr",
    "weight_decay": f"{_ACTOR}.optim.weight_decay",
    "max_grad_norm": f"{_ACTOR}.optim.clip_grad",
    "prm_learning_rate": "critic.optim.lr",
    "prm_weight_decay": "critic.optim.weight_decay",
    "prm_max_grad_norm": "critic.optim.clip_grad",
    "mini_batch_size": f"{_ACTOR}.ppo_mini_batch_size (in prompts)",
    "micro_batch_size": f"{_ACTOR}.ppo_micro_batch_size_per_gpu",
    "loss_agg": f"{_ACTOR}.loss_agg_mode",
    "clip": f"{_ACTOR}.clip_ratio, clip_ratio_low and clip_ratio_high",
    "kl_coef": f"{_ACTOR}.kl_loss_coef",
    "temperature": f"{_ROLLOUT}.temperature",
    "max_prompt_length": "data.max_prompt_length",
    "max_completion_length": "data.max_response_length",
    "rollout": f"{_ROLLOUT}.name",
    "save_steps": "trainer.save_freq",
    "eval_steps": "trainer.test_freq",
    "report_to": "trainer.logger",
    "seed": "data.seed",
}
# What verl does by default and PRIME does not: a KL term, a second clip of PPO, and a critic's optimiser.
_DEFAULTS: dict[str, Any] = {
    f"{_ACTOR}.kl_loss_coef": 0.0,
    f"{_ACTOR}.clip_ratio_c": 1e6,
    "critic.model.path": "${actor_rollout_ref.model.path}",
    "critic.optim.lr": 1e-6,
    "critic.optim.weight_decay": 0.0,
    "critic.optim.clip_grad": 10.0,
}
_DECIDED = (
    "algorithm.adv_estimator",
    "algorithm.filter_groups.enable",
    "algorithm.filter_groups.metric",
    "algorithm.use_kl_in_reward",
    f"{_ACTOR}.use_kl_loss",
    "critic.enable",
    "reward.reward_manager",
    "trainer.v1.trainer_mode",
    "trainer.use_v1",
)
_HERE = "implicit_prime.integrations.verl"


def read_tables(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `PrimeError` for a file that is not there or is no TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PrimeError(f"there is no file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PrimeError(f"{path} is no TOML: {error}") from error


def compose_config(tables: Mapping[str, Any], assignments: Mapping[str, Any] | None = None) -> DictConfig:
    """verl's configuration with the values of the tables, then of assignments such as {"data.seed": 1}.

    What [prime] asks for is set in verl's tables. Raises `PrimeError` for keys that do not exist, for those
    that [prime] decides, and as `prime_settings` does.
    """
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf, open_dict

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer")
    given = dict(_leaves({name: table for name, table in tables.items() if name not in OURS}))
    ours = {name: dict(tables.get(name, {})) for name in OURS}
    for key, value in (assignments or {}).items():
        name, _, rest = key.partition(".")
        (_assign(ours[name], rest, value) if name in OURS else given.update({key: value}))
    for key in given:
        for decided in _DECIDED:
            if f"{key}.".startswith(f"{decided}."):
                raise PrimeError(f"{key} is decided by [prime] and [verifier]: leave it out")
    open_tables: set[str] = set()
    for key, value in {**_DEFAULTS, **given}.items():
        _put(config, key, value, open_tables)
    with open_dict(config):
        for name, table in ours.items():
            config[name] = OmegaConf.create(table)
    _decide(config)
    return config


def prime_settings(config: DictConfig) -> PrimeConfig:
    """The settings of PRIME in verl's configuration, with what verl's tables say of batches and sampling.

    Raises `PrimeError` as `PrimeConfig` does, for settings that verl has elsewhere or cannot have, for a
    temperature other than 1, and for a PRM that is asked for in vain, or needed and not asked for.
    """
    from omegaconf import OmegaConf

    table: Any = OmegaConf.to_container(config.prime, resolve=True)
    known = {field.name for field in fields(PrimeConfig)}
    for name in table:
        if name in _ELSEWHERE:
            raise PrimeError(f"{name} has no place in [prime]: it is verl's {_ELSEWHERE[name]}")
        if name in known - _SETTINGS:
            raise PrimeError(f"{name} is not to be had with verl; `PrimeTrainer` has it")
    if table.get("advantage") == "ppo":
        raise PrimeError("advantage is 'ppo', which needs a critic, and the PRM has its place")
    rollout = config.actor_rollout_ref.rollout
    settings = PrimeConfig.from_dict(
        {
            "output_dir": str(config.trainer.default_local_dir),
            "num_generations": rollout.n,
            "prompts_per_step": config.data.train_batch_size,
            "mini_batch_size": config.actor_rollout_ref.actor.ppo_mini_batch_size * rollout.n,
            "temperature": rollout.temperature,
            "max_completion_length": config.data.max_response_length,
        }
        | table
    )
    if uses_prm(settings) and settings.temperature != 1:
        raise PrimeError(
            f"{_ROLLOUT}.temperature is {settings.temperature}: verl's workers give log-probs at that "
            "temperature, and process rewards are of temperature 1"
        )
    if settings.process_weight == "accuracy" and settings.prm_update == "before":
        raise PrimeError(
            "process_weight is 'accuracy', which is that of scores given before the PRM learns: with verl it "
            "needs prm_update='after' or 'none'"
        )
    if settings.advantage == "implicit_value" and not uses_prm(settings):
        raise PrimeError("advantage is 'implicit_value', and process_weight=0 asks for no PRM")
    if uses_prm(settings) and settings.prm_update == "none" and _prm_is_reference(config, settings):
        raise PrimeError(
            f"prm_update is 'none', and critic.model.path is {config.critic.model.path!r} as the actor's: a "
            "frozen PRM that equals its reference gives no rewards; give a critic.model.path of its own, or "
            "set process_weight=0"
        )
    return settings


def _prm_is_reference(config: DictConfig, settings: PrimeConfig) -> bool:
    """Whether the PRM begins as verl's reference, which is the actor's model without its adapter."""
    prm = config.critic.model
    same = prm.path == config.actor_rollout_ref.model.path and prm.get("lora_adapter_path") is None
    return bool(settings.ref == "sft" and same)


def uses_prm(settings: PrimeConfig) -> bool:
    """Whether there are process rewards at all; without them the run is the baseline of outcomes alone."""
    return settings.process_weight != 0


def _decide(config: DictConfig) -> None:
    """Set in verl's tables what [prime] and [verifier] mean there."""
    from omegaconf import open_dict

    check_verifiers(config.verifier)
    settings = prime_settings(config)
    prm = uses_prm(settings)
    actor = config.actor_rollout_ref.actor
    with open_dict(config):
        config.trainer.v1.trainer_mode = "prime"
        config.algorithm.adv_estimator = f"prime_{settings.advantage}"
        config.algorithm.filter_groups.enable = settings.accuracy_range is not None
        config.critic.enable = prm
        # verl loads its reference model for a KL term; with the coefficient 0 there is the model alone.
        actor.use_kl_loss = (prm and settings.ref == "sft") or actor.kl_loss_coef > 0
        config.reward.reward_manager.source = "importlib"
        config.reward.reward_manager.name = "VerifierRewardManager"
        config.reward.reward_manager.module.path = f"pkg://{_HERE}.rewards"


def _leaves(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _assign(table: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for name in path:
        table = table.setdefault(name, {})
    table[last] = value


def _put(config: DictConfig, key: str, value: Any, open_tables: set[str]) -> None:
    """Set a value whose key exists, is below an empty table of verl's, or has a plus before it.

    `open_tables` are those that were empty; they are found out as values are put.
    """
    from omegaconf import DictConfig, OmegaConf, open_dict

    added = "+" in key
    names = key.replace("+", "").split(".")
    node: Any = config
    for depth, name in enumerate(names):
        above = ".".join(names[:depth])
        if above and not len(node):
            open_tables.add(above)
        free = added or any(f"{above}.".startswith(f"{table}.") for table in open_tables)
        if not free and name not in list(node):  # "name in node" is false for what verl leaves open
            near = difflib.get_close_matches(name, list(map(str, node)), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise PrimeError(f"{key}: {above or 'the configuration of verl'} has no {name!r}{hint}")
        if depth == len(names) - 1:
            with open_dict(config):
                node[name] = OmegaConf.create(value) if isinstance(value, dict | list) else value
            return
        with open_dict(config):
            if node.get(name) is None:
                node[name] = {}
        node = node[name]
        if not isinstance(node, DictConfig):
            raise PrimeError(f"{key}: {'.'.join(names[: depth + 1])} is a value, not a table")
