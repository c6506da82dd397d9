"""The reference while training: a frozen model, the model without its adapter, or what was kept of either."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from implicit_prm.collation import Batch, RewardDataset
from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.logprobs import causal_log_probs
from implicit_prm.reference_cache import Floats, ReferenceCache, model_digest

if TYPE_CHECKING:
    from accelerate import Accelerator


class Reference:
    """Gives the reference's log-probs of a batch; made before the model is wrapped or trained.

    Without a `ref_model` it is the model as it is now: of a PEFT model the base, by switching the adapter
    off, of another one a frozen copy. With `args.precompute_ref_log_probs` nothing is copied and nothing
    kept: `precompute` goes through the data sets, and their batches bring the log-probs along.
    """

    def __init__(
        self, model: nn.Module, ref_model: nn.Module | None, args: ImplicitPRMConfig, accelerator: Accelerator
    ) -> None:
        self.args = args
        self.accelerator = accelerator
        self.sharded = accelerator.distributed_type.value == "FSDP"
        self.adapter_off = ref_model is None and hasattr(model, "peft_config")
        self.scorer: nn.Module | None = None
        self._digest = ""
        if args.reference == "none":
            return
        if args.precompute_ref_log_probs:
            # The model itself can be asked before it is trained, unless it is to be sharded later.
            self._digest = self._same_everywhere(
                lambda: model_digest(ref_model or model, adapter_off=self.adapter_off)
            )
            copied = ref_model is not None or self.sharded
            self.scorer = self._frozen(ref_model or copy.deepcopy(model)) if copied else model
        elif not self.adapter_off:
            self.scorer = self._frozen(ref_model or copy.deepcopy(model))

    def log_probs(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """float32 [B, T] of a batch of the trainer's; None where there is no reference."""
        if self.args.reference == "none":
            return None
        if "ref_log_probs" in batch:
            return batch["ref_log_probs"]
        if self.adapter_off and self.scorer is None:
            scorer = self.accelerator.unwrap_model(model)
        elif self.scorer is not None:
            scorer = self.scorer
        else:
            raise ImplicitPRMError(
                "these rows came after the reference was let go of: with precompute_ref_log_probs, give all "
                "data sets to the trainer when it is made"
            )
        return self._score(scorer, batch)

    def precompute(self, datasets: list[RewardDataset]) -> None:
        """Where `args` asks for it, score `datasets` or find them scored, and let go of the reference."""
        if not self.args.precompute_ref_log_probs or self.args.reference == "none":
            return
        for dataset in datasets:
            dataset.ref = self._cached(dataset)
        self.scorer = None

    @torch.no_grad()
    def _score(self, scorer: nn.Module, batch: Batch) -> Tensor:
        was_training = scorer.training
        scorer.eval()
        with self.precision(), self._without_adapter(scorer):
            inputs = batch["input_ids"], batch["attention_mask"], self.args.chunk_size
            result = causal_log_probs(scorer, *inputs, batch["completion_mask"], self.args.padding_free)
        scorer.train(was_training)
        return result

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The mixed precision of training; FSDP2 casts by its own policy, and accelerate adds none to it."""
        return contextlib.nullcontext() if self.sharded else self.accelerator.autocast()

    def _without_adapter(self, scorer: nn.Module) -> contextlib.AbstractContextManager[Any]:
        return cast(Any, scorer).disable_adapter() if self.adapter_off else contextlib.nullcontext()

    def _frozen(self, model: nn.Module) -> nn.Module:
        """The model without gradients, sharded or on this process's device."""
        if self.accelerator.distributed_type.value == "DEEPSPEED":
            raise ImplicitPRMError(
                "a reference model beside the model is not supported under DeepSpeed; launch with FSDP2, "
                "train an adapter (PEFT), or use reference='none'"
            )
        model.requires_grad_(False)
        if not self.sharded:
            return model.to(self.accelerator.device)
        if not self.accelerator.is_fsdp2:
            raise ImplicitPRMError("the reference can only be sharded by FSDP2: set fsdp_version to 2")
        from accelerate.utils.fsdp_utils import fsdp2_prepare_model

        return cast(nn.Module, fsdp2_prepare_model(self.accelerator, model))

    # ---- ahead of training

    def _cached(self, dataset: RewardDataset) -> Floats:
        key = hashlib.sha256(
            f"{self._digest} {dataset.store.digest()} {self.accelerator.mixed_precision}".encode()
        ).hexdigest()[:32]
        folder = self.args.reference_cache_dir or Path(str(self.args.output_dir)) / "reference"
        cache = ReferenceCache(folder, key, dataset.store)
        if self.accelerator.is_main_process:
            cache.create()
        self.accelerator.wait_for_everyone()
        values = cache.open(writable=True)
        rows = self._same_everywhere(lambda: cache.missing(values))
        for part in self._parts(dataset, rows):
            self._fill(dataset, part, cache, values)
        cast(np.memmap, values).flush()
        self.accelerator.wait_for_everyone()
        return cache.open()

    def _parts(self, dataset: RewardDataset, rows: Any) -> Iterator[Any]:
        """This process's batches of rows, longest first; every process has as many, as FSDP needs."""
        rows = rows[np.argsort(-dataset.store.lengths[rows], kind="stable")]
        processes = self.accelerator.num_processes
        size = max(self.args.per_device_train_batch_size, self.args.per_device_eval_batch_size)
        parts = [rows[first : first + size] for first in range(0, len(rows), size)]
        for first in range(0, len(parts), processes):
            yield parts[min(first + self.accelerator.process_index, len(parts) - 1)]

    def _fill(self, dataset: RewardDataset, rows: Any, cache: ReferenceCache, values: Floats) -> None:
        batch = {name: tensor.to(self.accelerator.device) for name, tensor in dataset.pad(rows).items()}
        assert self.scorer is not None
        log_probs = self._score(self.scorer, batch).cpu().numpy()
        mask = batch["completion_mask"].cpu().numpy()
        for row, found, chosen in zip(rows, log_probs, mask, strict=True):
            if not np.isfinite(found[chosen]).all():
                raise ImplicitPRMError(
                    f"the reference's log-probs of row {dataset.store.ids[row]!r} are no numbers: look at "
                    "its tokens and at the reference's weights"
                )
            cache.write(values, row, found[chosen])

    def _same_everywhere(self, value: Any) -> Any:
        """What the first process finds, on every process."""
        from accelerate.utils import broadcast_object_list

        held = [value() if self.accelerator.is_main_process else None]
        broadcast_object_list(held)
        return held[0]
