#!/usr/bin/env bash
# Score a file of responses on all GPUs of a machine, then best of 4, 16 and 64 by the lowest step reward.
#
#     launch/score_math500_bon.sh responses.jsonl runs/llama31-8b-ce scored/
#
# responses.jsonl: 64 responses to each of MATH-500's problems at temperature 0.5 with `prompt`, `completion`
# and `label` or `answer`, as the official evaluation's files or `implicit-prm sample` have them. REFERENCE is
# the model that training began from; BACKEND=vllm serves both models instead. The same command goes on
# after an interrupt.
#
# Expected of the paper's models (Table 1, +-1.5), Mistral-7B / Llama-3.1-8B / Llama-3.1-70B as generators:
#     CE    18.8 24.0 28.0 / 52.6 54.4 53.0 / 70.6 67.0 67.2
#     DPO   18.6 24.4 28.8 / 54.0 55.4 57.0 / 71.8 71.2 72.2
set -euo pipefail

responses=$1 model=$2 out=$3
gpus=${GPUS:-$(nvidia-smi -L | wc -l)}
mkdir -p "$out"
jobs=()
for ((gpu = 0; gpu < gpus; gpu++)); do
    CUDA_VISIBLE_DEVICES=$gpu implicit-prm score "$responses" "$out/part-$gpu.jsonl" --shard "$((gpu + 1))/$gpus" \
        --model "$model" --ref "${REFERENCE:-meta-llama/Llama-3.1-8B-Instruct}" --beta 0.05 \
        --steps step_header --render official --backend "${BACKEND:-hf}" --option dtype=bfloat16 &
    jobs+=("$!")
done
for job in "${jobs[@]}"; do wait "$job"; done
cat "$out"/part-*.jsonl >"$out/scored.jsonl"
for subset in first all; do  # the paper's way, and the mean over all subsets
    implicit-prm bon "$out/scored.jsonl" --n 4 16 64 --subset "$subset"
done
