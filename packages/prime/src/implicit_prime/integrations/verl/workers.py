"""The PRM in the place of verl's critic: a language model that is scored and trained on outcomes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from verl.single_controller.base.decorator import make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.workers.engine_workers import TrainingWorker
from verl.workers.utils.padding import no_padding_2_padding

from implicit_prime.objectives import prm_loss
from implicit_prm.functional import implicit_rewards

_COUNT = "prm_responses"


class PRMWorker(TrainingWorker):
    """verl's worker of a critic, with a causal language model where that has a value head.

    `config` is a `TrainingWorkerConfig`. Optimiser, sharding, offload and checkpoints are verl's. Its loss is
    to be set to `prm_ce_loss` by `set_loss_fn`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(replace(config, model_type="language_model"))

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)
    def train_batch(self, data: Any) -> Any:
        """One step of the optimiser on a mini-batch, of which this process has its share."""
        count = _with_tokens(data["loss_mask"]).sum().to(get_device_id())
        torch.distributed.all_reduce(count, group=self.engine.get_data_parallel_group())
        tu.assign_non_tensor(data, **{_COUNT: count.item()})
        return super().train_batch(data)


def prm_ce_loss(
    model_output: dict[str, Tensor], data: Any, dp_group: Any = None, *, beta: float, reference: str
) -> tuple[Tensor, dict[str, Any]]:
    """A micro-batch's share of the cross-entropy of sigma(h) and the outcome, in verl's form of a loss.

    h = beta sum_t log p/p_ref over the response's tokens. The shares of a mini-batch add up to the mean over
    its responses with tokens, on all processes; the number of processes is in it, as FSDP divides by that.
    `reference` is the field of `data` with the reference's log-probs: "ref_log_prob" or "old_log_probs".
    """
    log_probs = no_padding_2_padding(model_output["log_probs"], data).float()
    fields = data.select("response_mask", "rm_scores", reference).to_padded_tensor()
    mask = fields["response_mask"].bool()
    rewards = implicit_rewards(log_probs, fields[reference].float(), mask, beta).outcome
    weights = mask.any(1).to(rewards) * (data["dp_size"] / max(data[_COUNT], 1))
    outcomes = fields["rm_scores"].sum(-1).to(rewards)
    groups = torch.zeros(len(outcomes), dtype=torch.long, device=outcomes.device)  # "ce" compares none
    return prm_loss(rewards, outcomes, groups, weights, "ce"), {}


def _with_tokens(mask: Tensor) -> Tensor:
    """Which rows of a nested mask have a token: bool [B]."""
    return torch.stack([row.bool().any() for row in mask.unbind()])
