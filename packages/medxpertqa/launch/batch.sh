#!/usr/bin/env bash
# The same without a server: requests in files, answered by `vllm run-batch`, turn by turn.
#
#     launch/batch.sh qwen25_72b text        # into logs/qwen25_72b/text
#
# What was answered is kept: the same command asks for what is still open.
set -euo pipefail

cd "$(dirname "$0")/.."
key=$1 subset=$2
source launch/model.sh "$key"
folder=logs/$key/$subset
for turn in 1 2; do
    medxpertqa batch export --config "launch/$subset/$key.toml" --model "$hub" --log-dir "$folder"
    for requests in "$folder"/requests-*.jsonl; do
        [ -s "$requests" ] || continue
        replies=${requests/requests-/replies-of-turn-$turn-}
        vllm run-batch --input-file "$requests" --output-file "$replies" --model "$hub" "${served[@]}"
        medxpertqa batch import "$replies" --log-dir "$folder" --subset "$subset"
    done
done
medxpertqa score "$folder"
