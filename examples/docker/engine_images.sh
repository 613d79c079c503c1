#!/bin/bash
# The sweeper in a container, and each engine in a container of its own, beside it: for comparing images where nothing may
# be installed on the node. From the root of a checkout:
#   examples/docker/engine_images.sh engine.image=rocm/vllm:TAG +experiment=tune model=llama_3_1_70b_instruct platform=mi300x
#
# The host's docker starts the engines, so whatever they share with the sweeper has to lie at the same path on the host:
# this checkout, its outputs and both caches are mounted where they are, and the sweeper is run from the checkout. It has to see the host's
# processes and network, for it proves that a server's port is held by the container that it started.
# Whoever may use the docker socket is root on the node.
set -euo pipefail

hub=${HF_HOME:-$HOME/.cache/huggingface}
caches=$PWD/.cache
mkdir -p outputs "$hub" "$caches"
exec docker run --rm --init \
  --network host --ipc host --pid host \
  --device /dev/kfd --device /dev/dri --group-add video \
  --cap-add SYS_PTRACE --security-opt seccomp=unconfined \
  --env HF_TOKEN --env HF_HOME="$hub" --env XDG_CACHE_HOME="$caches" \
  --volume /var/run/docker.sock:/var/run/docker.sock \
  --volume "$PWD:$PWD" --volume "$hub:$hub" --workdir "$PWD" \
  "${SWEEPER_IMAGE:-sweeper}" engine.container_runtime=docker "$@"
