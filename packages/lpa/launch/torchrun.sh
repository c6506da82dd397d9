#!/usr/bin/env bash
# Train on the GPUs of one machine, sharded by FSDP2; the same command goes on after an interrupt.
#
#     launch/torchrun.sh launch/setting2_130m.toml --out DIR [--set KEY=VALUE ...]
#
# A run file, then what `lmlab train` takes. `accelerate launch` is torchrun with the settings of lmlab's
# fsdp2.yaml. GPUS is how many to use, all of them if it is not set. Steps and batch do not depend on it:
# `--set training.gradient_accumulation_steps=N` gives each GPU smaller micro-batches, to save memory.
set -euo pipefail

config=$(python -c 'from importlib.resources import files; print(files("lmlab") / "configs" / "fsdp2.yaml")')
exec accelerate launch --config_file "$config" --num_processes "${GPUS:-$(nvidia-smi -L | wc -l)}" \
    -m lmlab.train --config "$@"
