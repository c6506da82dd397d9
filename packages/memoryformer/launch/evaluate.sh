#!/usr/bin/env bash
# The six zero-shot tasks of the paper's Table 1, by lm-evaluation-harness, on a run that has finished.
#
#     launch/evaluate.sh DIR [arguments of `memoryformer eval` ...]
#
# Leave WSC out of the average, or say that it is in: its 104 items gave constant answers in the paper's table.
set -euo pipefail

exec memoryformer eval "$1/model" --tasks piqa,winogrande,wsc,arc_easy,arc_challenge,logiqa "${@:2}"
