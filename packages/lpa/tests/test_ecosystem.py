"""Low-rank models in the libraries that people train, adapt, compile, shard and evaluate models with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, Trainer, TrainingArguments

import lpa

Build = Callable[..., PreTrainedModel]


def low_rank(build: Build, **changes: Any) -> PreTrainedModel:
    return lpa.apply_lpa(build(), lpa.LPAConfig(rank=9, init="matched", **changes))


class Tokens(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.ids = torch.randint(0, 64, (64, 16), generator=torch.Generator().manual_seed(3))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def trainer(model: PreTrainedModel, folder: Path) -> Trainer:
    arguments = TrainingArguments(
        str(folder),
        max_steps=5,
        save_steps=3,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    return Trainer(model, arguments, train_dataset=Tokens())


def test_trainer_resumes_bit_for_bit(tiny_llama: Build, tmp_path: Path) -> None:
    model = low_rank(tiny_llama)
    start = copy.deepcopy(model)
    trainer(model, tmp_path / "whole").train()
    changed = [not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True)]
    assert all(changed)  # every factor trains
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    assert torch.load(checkpoint / "optimizer.pt")["state"]
    resumed = low_rank(tiny_llama)
    trainer(resumed, tmp_path / "resumed").train(resume_from_checkpoint=str(checkpoint))
    for (name, own), other in zip(model.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(own, other), name


def test_fsdp2_by_decoder_layer(tiny_llama: Build, tmp_path: Path) -> None:
    ids = torch.randint(0, 64, (2, 40))  # tokens enough for the stacked product
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        mesh = dist.init_device_mesh("cpu", (1,))
        for inner in (False, True):  # low-rank layers sharded on their own, too: then nothing can be stacked
            plain, sharded = (low_rank(tiny_llama) for _ in range(2))
            sharded.load_state_dict(plain.state_dict())
            for layer in sharded.model.layers:
                for module in layer.self_attn.children() if inner else ():
                    fully_shard(module, mesh=mesh)
                fully_shard(layer, mesh=mesh)
            fully_shard(sharded, mesh=mesh)
            for model in (plain, sharded):
                model(ids, labels=ids).loss.backward()
            for (name, own), other in zip(plain.named_parameters(), sharded.parameters(), strict=True):
                assert isinstance(other, DTensor)
                torch.testing.assert_close(other.grad.full_tensor(), own.grad, atol=1e-6, rtol=1e-4, msg=name)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_compiling_breaks_no_graph(tiny_llama: Build, token_ids: torch.Tensor) -> None:
    layer = lpa.LowRankLinear(32, 48, 8, bias_up=True)
    x = torch.randn(3, 5, 32)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))
    model = low_rank(tiny_llama)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(
        compiled(token_ids, use_cache=False).logits, model(token_ids).logits, atol=1e-4, rtol=1e-4
    )


def test_graphs_are_whole_without_a_compiler(tiny_llama: Build, token_ids: torch.Tensor) -> None:
    model = low_rank(tiny_llama)
    traced = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(traced(token_ids, use_cache=False).logits, model(token_ids).logits)


def test_export(token_ids: torch.Tensor) -> None:
    model = nn.Sequential(nn.Embedding(64, 32), lpa.LowRankLinear(32, 48, 8, bias_down=True))
    program = torch.export.export(
        model, (token_ids,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=8)},)
    )
    torch.testing.assert_close(program.module()(token_ids[:2]), model(token_ids[:2]))


def test_export_of_a_whole_model(tiny_llama: Build, token_ids: torch.Tensor) -> None:
    model = low_rank(tiny_llama)
    program = torch.export.export(model, (), {"input_ids": token_ids, "use_cache": False}, strict=False)
    logits = program.module()(input_ids=token_ids, use_cache=False).logits
    torch.testing.assert_close(logits, model(token_ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(tiny_llama: Build, dtype: torch.dtype) -> None:
    ids = torch.randint(0, 64, (2, 40))
    model = low_rank(tiny_llama)
    exact = model(ids, labels=ids)
    with torch.autocast("cpu", dtype):
        outputs = model(ids, labels=ids)
    outputs.loss.backward()
    assert outputs.logits.dtype == dtype
    assert (outputs.logits - exact.logits).abs().max() < 0.1 * exact.logits.abs().max()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_gradient_checkpointing_changes_no_gradient(tiny_llama: Build) -> None:
    ids = torch.randint(0, 64, (2, 40))
    model = low_rank(tiny_llama).train()
    checkpointed = copy.deepcopy(model)
    for reentrant in (False, True):
        checkpointed.zero_grad()
        model.zero_grad()
        checkpointed.gradient_checkpointing_enable({"use_reentrant": reentrant})
        for each in (model, checkpointed):
            each(ids, labels=ids, use_cache=False).loss.backward()
        for (name, own), other in zip(model.named_parameters(), checkpointed.parameters(), strict=True):
            torch.testing.assert_close(other.grad, own.grad, msg=name)


def test_lora_on_the_factors(tiny_llama: Build) -> None:
    ids = torch.randint(0, 64, (2, 40))
    model = low_rank(tiny_llama)
    before = model(ids).logits
    names = lpa.lora_targets(model)
    assert len(names) == 2 * 4 * 2
    assert "model.layers.1.self_attn.q_proj.down" in names
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=names))
    torch.testing.assert_close(adapted(ids).logits, before)  # adapters start at 0
    adapted(ids, labels=ids).loss.backward()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    assert len(trained) == 2 * len(names)
    assert sum(parameter.grad.abs().sum() > 0 for parameter in trained) == len(names)  # each lora_B
    with torch.no_grad():
        for parameter in trained:
            parameter.normal_(std=0.1)
    after = adapted(ids).logits  # for so many tokens the A's would be stacked, and their adapters left out
    assert not torch.allclose(after, before)
    for part, message in (
        (adapted, "PeftModel.* has it inside"),
        (adapted.base_model.model, "merge_and_unload"),
    ):
        with pytest.raises(lpa.LPAError, match=message):
            lpa.merge(part)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, after, atol=1e-4, rtol=1e-4)
    assert lpa.is_lpa(merged)
    torch.testing.assert_close(lpa.merge(merged)(ids).logits, after, atol=1e-4, rtol=1e-4)


def test_lora_by_suffix(tiny_llama: Build) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj.down", "v_proj.up"])
    adapted = peft.get_peft_model(low_rank(tiny_llama), config)
    assert sum("lora_A" in name for name, _ in adapted.named_parameters()) == 2 * 2


def test_lora_on_a_whole_layer_says_what_to_do(tiny_llama: Build) -> None:
    with pytest.raises(
        ValueError, match=r"adapters such as LoRA go on its down and up, see lpa\.lora_targets"
    ):
        peft.get_peft_model(low_rank(tiny_llama), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(lpa.LPAError, match="has no low-rank layer"):
        lpa.lora_targets(tiny_llama())


def test_evaluation_harness(tiny_llama: Build) -> None:
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(64)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="w0", eos_token="w63", pad_token="w62"
    )
    model = low_rank(tiny_llama)
    harness = huggingface.HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=1)
    from lm_eval.api.instance import Instance

    request = Instance("loglikelihood", {}, ("w5 w9 w12", " w7 w8"), 0)
    ((likelihood, _),) = harness.loglikelihood([request], disable_tqdm=True)
    ids = torch.tensor([[5, 9, 12, 7, 8]])
    chosen = model(ids).logits.log_softmax(-1)[0, [2, 3], ids[0, 3:]]
    assert likelihood == pytest.approx(chosen.sum().item(), abs=1e-4)
