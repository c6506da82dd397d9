"""The models of a run: policy, PRM and reference, none loaded twice that can be shared."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from implicit_prime.errors import PrimeError, PrimeWarning
from implicit_prime.learner import active_adapter
from implicit_prm import ImplicitPRM, ScoredResponse
from implicit_prm.model import BASE
from implicit_prm.pretrained import check_causal, check_same_tokenizer, load_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from implicit_prime.config import PrimeConfig

PRM_ADAPTER = "prm"


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """What a run trains.

    adapter      the policy's PEFT adapter, None without
    prm          None: outcomes alone
    prm_adapter  the adapter that is the PRM where it shares the policy's model
    """

    policy: Any
    adapter: str | None
    tokenizer: PreTrainedTokenizerBase
    prm: ImplicitPRM | None
    prm_adapter: str | None


class AdapterPRM(ImplicitPRM):
    """The PRM that shares a model with the policy: whichever adapter is active, it computes with its own."""

    def score(self, rows: Iterable[Mapping[str, Any]], *args: Any, **kwargs: Any) -> list[ScoredResponse]:
        """See `ImplicitPRM.score`."""
        with active_adapter(self.model, PRM_ADAPTER):
            return super().score(rows, *args, **kwargs)

    def log_probs(
        self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor | None = None
    ) -> Tensor:
        """See `ImplicitPRM.log_probs`; to train, activate the adapter until after the backward pass."""
        with active_adapter(self.model, PRM_ADAPTER):
            return super().log_probs(input_ids, attention_mask, completion_mask)


def prepare_models(
    model: str | nn.Module,
    prm: str | nn.Module | ImplicitPRM | None,
    args: PrimeConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Models:
    """Policy, PRM and reference.

    A model given by name is loaded in float32, because the paper's steps are lost in bfloat16 weights; launch
    with mixed_precision=bf16 to compute in that. `prm` None begins as the policy: as a copy of it or, where
    the policy is a PEFT model, as a second adapter on its base, with the base as reference. A PRM by name or
    as a module has a frozen copy of itself as reference; an `ImplicitPRM` has its own. With process_weight=0
    and kl_coef=0, `prm` None means no PRM at all.

    Raises `PrimeError`, `implicit_prm.ImplicitPRMError` for models, tokenizers and settings that do not fit.
    """
    if tokenizer is None:
        if not isinstance(model, str):
            raise PrimeError("the model is a module: give its tokenizer as processing_class")
        tokenizer = load_tokenizer(model)
    policy = load_model(model, trainable=True, dtype="float32") if isinstance(model, str) else model
    check_causal(policy, "the policy")
    _warn_of_low_precision(policy)
    adapter: str | None = str(policy.active_adapter) if hasattr(policy, "peft_config") else None
    if prm is None and args.process_weight == 0 and args.kl_coef == 0:
        if args.advantage == "implicit_value":
            raise PrimeError("advantage is 'implicit_value', and process_weight=0 asks for no PRM")
        return Models(policy, adapter, tokenizer, None, None)
    if prm is None and args.prm_update == "none" and args.process_weight != 0:
        raise PrimeError(
            "prm_update is 'none' and no prm is given: a frozen PRM that equals its reference gives no "
            "rewards; give prm, or set process_weight=0"
        )
    if prm is None and adapter is not None:
        return Models(
            policy, adapter, tokenizer, _second_adapter(policy, adapter, tokenizer, args), PRM_ADAPTER
        )
    return Models(policy, adapter, tokenizer, _prm(policy, prm, args, tokenizer), None)


def _prm(
    policy: Any,
    prm: str | nn.Module | ImplicitPRM | None,
    args: PrimeConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> ImplicitPRM:
    if isinstance(prm, ImplicitPRM):
        check_same_tokenizer(tokenizer, prm.tokenizer)
        if prm.beta != args.beta:
            raise PrimeError(f"beta is {args.beta}, and the PRM's is {prm.beta}; make them equal")
        return prm
    if isinstance(prm, str):
        check_same_tokenizer(tokenizer, load_tokenizer(prm))
        prm = load_model(prm, trainable=True, dtype="float32")
    if prm is policy:
        raise PrimeError("model and prm are one object; leave prm out for a copy")
    first: Any = copy.deepcopy(policy) if prm is None else prm
    _warn_of_low_precision(first)
    reference: Any = None
    if args.ref == "sft":
        reference = BASE if hasattr(first, "peft_config") else copy.deepcopy(first).requires_grad_(False)
    return ImplicitPRM(first, tokenizer, reference, args.beta)


def _second_adapter(
    policy: Any, adapter: str, tokenizer: PreTrainedTokenizerBase, args: PrimeConfig
) -> ImplicitPRM:
    """The PRM as an adapter like the policy's, with its weights of now."""
    policy.add_adapter(PRM_ADAPTER, copy.deepcopy(policy.peft_config[adapter]))
    weights = dict(policy.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            if f".{adapter}." in name:
                weights[name.replace(f".{adapter}.", f".{PRM_ADAPTER}.")].copy_(weight)
    reference: Any = BASE if args.ref == "sft" else None
    return AdapterPRM(policy, tokenizer, reference, args.beta)


def _warn_of_low_precision(model: nn.Module) -> None:
    trained = (weight for weight in model.parameters() if weight.requires_grad)
    low = next((weight.dtype for weight in trained if torch.finfo(weight.dtype).bits < 32), None)
    if low is not None:
        warnings.warn(
            f"the trained weights are {low}, in which a step of {torch.finfo(low).eps / 2:g} of a weight or "
            "less is lost; load the model in float32 and launch with mixed_precision=bf16",
            PrimeWarning,
            stacklevel=4,
        )
