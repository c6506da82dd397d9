"""GSM8K with Qwen2.5-1.5B-Instruct in TRL's trainer, rollouts by vLLM in the same process; one GPU of 80 GB.

accelerate launch --num_processes 1 --mixed_precision bf16 launch/qwen25_1p5b_trl.py
"""

from __future__ import annotations

from typing import Any

from datasets import load_dataset
from trl import GRPOConfig

from implicit_prime.integrations.trl import PrimeGRPOTrainer, verifier_reward
from implicit_prime.verifiers import MathVerifier

MODEL = "Qwen/Qwen2.5-1.5B-Instruct"
SUFFIX = "\n\nReason step by step. End with the final number alone after ####, as in: #### 42"

# Rollouts and the policy's optimisation are TRL's: 256 prompts x 4 responses, four gradient steps.
ARGS: dict[str, Any] = {
    "output_dir": "runs/qwen25-1p5b-trl",
    "max_steps": 400,
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 32,
    "steps_per_generation": 128,
    "max_completion_length": 512,
    "temperature": 1.0,
    "learning_rate": 5e-7,
    "lr_scheduler_type": "constant",
    "weight_decay": 1e-2,
    "max_grad_norm": 1.0,
    "loss_type": "dapo",
    "epsilon": 0.2,
    "beta": 0.0,
    "use_vllm": True,
    "vllm_mode": "colocate",
    "vllm_gpu_memory_utilization": 0.3,
    "save_steps": 50,
    "report_to": "tensorboard",
}
# PRM, advantages and filter are ours.
PRIME: dict[str, Any] = {"prm_learning_rate": 1e-6, "mini_batch_size": 256, "micro_batch_size": 8}


def main() -> None:
    """Train, and save policy and PRM."""
    rows = load_dataset("openai/gsm8k", "main", split="train")
    rows = rows.map(
        lambda row: {"prompt": [{"role": "user", "content": row["question"] + SUFFIX}]},
        remove_columns=["question"],
    )
    trainer = PrimeGRPOTrainer(
        MODEL,
        verifier_reward(MathVerifier(extract="gsm8k")),
        GRPOConfig(**ARGS),
        prime=PRIME,
        train_dataset=rows,
    )
    trainer.train()
    trainer.save_model()
    trainer.save_prm("runs/qwen25-1p5b-trl/prm")


if __name__ == "__main__":
    main()
