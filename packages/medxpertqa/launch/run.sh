#!/usr/bin/env bash
# Serve one of the paper's open models by vLLM on this machine's GPUs, and put the exam to it.
#
#     launch/run.sh qwen25_72b text          # into logs/qwen25_72b/text
#     launch/run.sh qvq_72b mm 2/8           # a part of it, into logs/qvq_72b/mm/2
#
# The same command goes on where it stopped. When it is through it says whether the accuracy agrees with the
# printed one (launch/text, launch/mm); `tenfold run medxpertqa --scale paper` judges all models in logs/.
set -euo pipefail

cd "$(dirname "$0")/.."
key=$1 subset=$2 shard=${3:-}
source launch/model.sh "$key"
port=${PORT:-8000}
arguments=(--config "launch/$subset/$key.toml" --base-url "http://127.0.0.1:$port/v1")
[ -z "$shard" ] || arguments+=(--shard "$shard" --log-dir "logs/$key/$subset/${shard%/*}")

vllm serve "$hub" --served-model-name "$key" --host 127.0.0.1 --port "$port" "${served[@]}" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" || true' EXIT
until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health"; do
    kill -0 "$server" 2>/dev/null || { echo "run.sh: vLLM ended before it answered" >&2; exit 1; }
    sleep 5
done
medxpertqa eval "${arguments[@]}" --yes
