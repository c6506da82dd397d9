# For the other scripts: what vLLM needs to serve one of the paper's open models, by its key in the claims.
#
# Sets hub (the model), gpus (of 80 GB, on one machine; DeepSeek wants eight of 141 GB) and length (tokens of
# the longest request with its reply: two turns of 2,048, or of 8,192 for the reasoning models).
case $1 in
    qwen25_32b) hub=Qwen/Qwen2.5-32B-Instruct gpus=2 length=8192 ;;
    qwen25_72b) hub=Qwen/Qwen2.5-72B-Instruct gpus=4 length=8192 ;;
    llama33_70b) hub=meta-llama/Llama-3.3-70B-Instruct gpus=4 length=8192 ;;
    qwq_32b) hub=Qwen/QwQ-32B-Preview gpus=2 length=8192 ;;
    deepseek_v3) hub=deepseek-ai/DeepSeek-V3 gpus=8 length=8192 ;;
    deepseek_r1) hub=deepseek-ai/DeepSeek-R1 gpus=8 length=20480 ;;
    qwen2_vl_72b) hub=Qwen/Qwen2-VL-72B-Instruct gpus=4 length=32768 ;;
    qwen25_vl_72b) hub=Qwen/Qwen2.5-VL-72B-Instruct gpus=4 length=32768 ;;
    qvq_72b) hub=Qwen/QVQ-72B-Preview gpus=4 length=32768 ;;
    *) echo "$1 is none of the models; launch/text has their keys" >&2; exit 2 ;;
esac
gpus=${GPUS:-$gpus}
served=(--tensor-parallel-size "$gpus" --max-model-len "$length" --generation-config vllm)
case $1 in *_vl_*|qvq_*) served+=(--limit-mm-per-prompt '{"image": 6}') ;; esac
