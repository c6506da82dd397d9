"""verl's synchronous trainer with the filter, the online PRM and the advantages of PRIME."""

from __future__ import annotations

from functools import partial
from typing import Any

import ray
import torch
import transfer_queue as tq
from torch import Tensor
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.padding import response_from_nested

from implicit_prime import core
from implicit_prime.credit import process_weight
from implicit_prime.errors import PrimeError
from implicit_prime.integrations.verl.advantages import group_numbers, learnable, process_rewards
from implicit_prime.integrations.verl.filtering import AccuracyReplayBuffer, judged
from implicit_prime.integrations.verl.settings import prime_settings
from implicit_prime.integrations.verl.workers import PRMWorker, prm_ce_loss
from implicit_prm.functional import implicit_rewards
from implicit_prm.pretrained import check_same_tokenizer

_PRM_LOG_PROBS = "prm_log_probs"


@register_trainer("prime")
class PrimePPOTrainer(PPOTrainerSync):
    """`trainer.v1.trainer_mode=prime`, for configurations as `settings.compose_config` makes them.

    The PRM is where verl has its critic: critic.model, critic.optim and the rest are the PRM's, its
    checkpoints lie in "critic", and trainer.critic_warmup are steps in which it alone learns. The reference
    is verl's, or with ref="policy" the policy before its step. Responses that could not be judged are left
    out of everything, and counted as "prime/unjudged".

    Raises `PrimeError` as `settings.prime_settings` does, for a PRM with another tokenizer than the policy's,
    and for rewards that are not finite.
    """

    use_critic: bool

    def __init__(self, config: Any) -> None:
        self.prime = prime_settings(config)
        super().__init__(config)

    # ---- what verl calls to set things up

    def _build_replay_buffer(self) -> AccuracyReplayBuffer:
        self.trainer_mode = "sync"  # by this name verl knows where it need not expect stale rollouts
        sampler = self.config.trainer.v1.sampler
        return AccuracyReplayBuffer(
            prime=self.prime,
            trainer_mode=self.trainer_mode,
            trainer_config=self.config.trainer.v1.sync,
            max_off_policy_threshold=sampler.max_off_policy_threshold,
            max_off_policy_strategy=sampler.max_off_policy_strategy,
            sampler_kwargs=sampler.sampler_kwargs,
            refill_fn=self._add_prompts_to_generate,
            filter_groups_metric=self._resolve_filter_groups_metric(),
            sync_refill_failed_groups=sampler.sync_refill_failed_groups,
            train_batch_size=self.config.data.train_batch_size,
            gen_batch_size=1,
            max_inflight_gen_batches=self.config.algorithm.filter_groups.max_inflight_gen_batches,
        )

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        if self.use_critic:
            check_same_tokenizer(self.tokenizer, omega_conf_to_dataclass(self.config.critic.model).tokenizer)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        if self.use_critic:
            self.role_worker_mapping[Role.Critic] = ray.remote(PRMWorker)

    def _setup(self) -> None:
        super()._setup()
        if self.use_critic:
            loss = partial(prm_ce_loss, beta=self.prime.beta, reference=self._reference)
            self.critic_wg.set_loss_fn(loss)

    # ---- the steps of a step, in verl's order

    def _balance_batch(self, batch: Any, metrics: dict[str, Any], **others: Any) -> Any:
        self._leave_out_unjudged(batch, metrics)
        return super()._balance_batch(batch, metrics, **others)

    def _compute_values(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """Where verl's critic gives values: the PRM's log-probs, after its update if that comes before."""
        if self.prime.prm_update == "before":
            batch = self._train_prm(batch, metrics)
        batch.extra_info.update(calculate_entropy=False, compute_loss=False, temperature=1.0)
        ray.get(self.critic_wg.infer_batch(batch).futures)
        data = self._read(batch, "log_probs", "response_mask")
        data[_PRM_LOG_PROBS] = response_from_nested(data.pop("log_probs"), data["response_mask"])
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data.select(_PRM_LOG_PROBS))
        return batch

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        process, weight = self._process(batch, metrics) if self.use_critic else (None, 1.0)
        with process_rewards(process, self.prime, weight):
            return super()._compute_advantage(batch, metrics)

    def _update_critic(self, batch: Any, metrics: dict[str, Any]) -> Any:
        return self._train_prm(batch, metrics) if self.prime.prm_update == "after" else batch

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], *args: Any, **others: Any) -> None:
        used, self.use_critic = self.use_critic, False  # of a critic verl logs its values
        try:
            super()._compute_metrics(batch, metrics, *args, **others)
        finally:
            self.use_critic = used

    # ---- PRIME

    @property
    def _reference(self) -> str:
        return "ref_log_prob" if self.prime.ref == "sft" else "old_log_probs"

    def _read(self, batch: Any, *names: str) -> Any:
        return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(names))

    def _leave_out_unjudged(self, batch: Any, metrics: dict[str, Any]) -> None:
        """Take the tokens of responses without a verdict out of all masks."""
        data = self._read(batch, "extra_fields", "response_mask")
        known = judged(data["extra_fields"])
        metrics["prime/unjudged"] = float((~known).sum())
        if known.all():
            return
        rows = zip(data["response_mask"].unbind(), known, strict=True)
        mask = torch.nested.as_nested_tensor([row * seen for row, seen in rows], layout=torch.jagged)
        masks = data.select("response_mask").clone()
        masks["response_mask"], masks["loss_mask"] = mask, mask.clone()
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=masks)

    def _train_prm(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info.update(calculate_entropy=False)
        found: dict[str, Any] = {}
        batch = super()._update_critic(batch, found)
        metrics.update({name.replace("critic/", "prm/"): value for name, value in found.items()})
        return batch

    def _process(self, batch: Any, metrics: dict[str, Any]) -> tuple[Tensor, float]:
        """Process rewards of all tokens, normalised, float32 [B, T], and their weight; adds what to log."""
        data = self._read(batch, "uid", "response_mask", "rm_scores", _PRM_LOG_PROBS, self._reference)
        uids = data.pop("uid").tolist()
        padded = data.to_padded_tensor()
        mask, groups = padded["response_mask"].bool(), group_numbers(uids)
        found = implicit_rewards(
            padded[_PRM_LOG_PROBS].float(), padded[self._reference].float(), mask, self.prime.beta
        )
        process = found.token_rewards
        if not process.isfinite().all():
            raise PrimeError(
                "process rewards are not finite: the PRM has diverged (lower critic.optim.lr), or a model's "
                "log-probs are no numbers"
            )
        rows = learnable(mask, groups)
        outcomes = padded["rm_scores"].sum(-1).float()
        accuracy = core.pair_accuracy(found.outcome[rows], outcomes[rows], groups[rows])
        weight = process_weight(self.prime, accuracy)
        seen = "_seen" if self.prime.prm_update == "before" else ""
        metrics |= {
            f"prm/accuracy{seen}": accuracy,
            f"prm/calibration_error{seen}": core.calibration_error(found.outcome[rows], outcomes[rows]),
            "prm/outcome_reward": float(found.outcome[rows].mean()),
            "prm/token_reward": float(process.abs().sum() / mask.sum().clamp(min=1)),
            "prm/weight": weight,
        }
        return core.normalize_process(process, mask, self.prime.process_norm), weight
