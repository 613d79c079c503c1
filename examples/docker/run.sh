#!/bin/bash
# A study inside the image of Dockerfile, with the vLLM of that image. Results go to ./outputs:
#   examples/docker/run.sh +experiment=tune model=llama_3_1_70b_instruct platform=mi300x
#   examples/docker/run.sh audit
# The options are those of AMD's command for vLLM. --pid host lets the sweeper see who else is on a GPU.
set -euo pipefail

mkdir -p outputs
exec docker run --rm --init \
  --network host --ipc host --pid host \
  --device /dev/kfd --device /dev/dri --group-add video \
  --cap-add SYS_PTRACE --security-opt seccomp=unconfined \
  --env HF_TOKEN --env HF_HOME=/work/huggingface --env XDG_CACHE_HOME=/work/cache \
  --volume "$PWD/outputs:/work/outputs" \
  --volume "${HF_HOME:-$HOME/.cache/huggingface}:/work/huggingface" \
  --volume "${XDG_CACHE_HOME:-$HOME/.cache}/mi300x-sweeper:/work/cache/mi300x-sweeper" \
  "${SWEEPER_IMAGE:-sweeper}" "$@"
