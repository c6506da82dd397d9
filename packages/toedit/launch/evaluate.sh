#!/usr/bin/env bash
# The paper's tasks as far as lm-evaluation-harness has them, on one model.
#
#     launch/evaluate.sh general|biomedicine|math|finetuned MODEL [arguments of lm_eval ...]
#
# The finance tasks, and the rest of biomedicine, are AdaptLLM's: data and code on the hub, AdaptLLM/finance-tasks.
# The paper reports no error bars: compare each task's difference with the stderr that this prints.
set -euo pipefail

case $1 in
    general) tasks=arc_easy,arc_challenge,boolq,hellaswag,openbookqa,piqa,sciq,winogrande ;;
    biomedicine) tasks=pubmedqa,medmcqa,medqa_4options ;;
    math) tasks=gsm8k,hendrycks_math ;;
    finetuned) tasks=piqa,boolq,hellaswag,social_iqa,winogrande ;;
    *) echo "evaluate.sh: the first argument is general, biomedicine, math or finetuned" >&2; exit 2 ;;
esac
exec lm_eval --model hf --model_args "pretrained=$2,dtype=bfloat16" --tasks "$tasks" --batch_size auto "${@:3}"
