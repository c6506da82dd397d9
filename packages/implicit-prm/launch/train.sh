#!/usr/bin/env bash
# Train on the GPUs of one machine, model and reference sharded by FSDP2.
#
#     launch/train.sh launch/llama31_8b_ce.toml [further arguments of `implicit-prm train`]
#
# Started again, it goes on from the last checkpoint. `accelerate launch` is torchrun with the settings of fsdp2.yaml. GPUS is how many to use, all of them if it
# is not set; a step has per_device_train_batch_size x gradient_accumulation_steps x GPUS examples.
set -euo pipefail

exec accelerate launch --config_file "$(dirname "$0")/fsdp2.yaml" \
    --num_processes "${GPUS:-$(nvidia-smi -L | wc -l)}" -m implicit_prm train --config "$@"
