#!/usr/bin/env bash
# Many data sets with one language model: a vLLM server that all runs share, then the runs of a manifest.
#
#   MODEL=Qwen/Qwen3-32B GPUS=2 launch/run.sh manifest.csv
#
# The manifest has a row a run: input, out, metadata, condition, reference, ... (options of `proteus-omics run`);
# a row may name a planner of its own, such as rules. Each run is a folder that is gone on with when this is repeated. The paper used twelve data sets, which it does
# not name by accession in what we could read: fill the manifest with yours.
set -euo pipefail
manifest=$1
: "${MODEL:?a model of the hub}" "${GPUS:=1}" "${PORT:=8000}" "${WORKERS:=4}"

vllm serve "$MODEL" --tensor-parallel-size "$GPUS" --enable-prefix-caching --port "$PORT" > vllm.log 2>&1 &
server=$!
trap 'kill "$server"' EXIT
until curl --silent --fail "http://localhost:$PORT/health" > /dev/null; do
  kill -0 "$server" || { echo "the server ended; see vllm.log" >&2; exit 1; }
  sleep 5
done
proteus-omics batch "$manifest" --workers "$WORKERS" --planner llm \
  --base-url "http://localhost:$PORT/v1" --model "$MODEL"
