#!/bin/bash
# A study on one node of a Slurm cluster, in the environment where the sweeper is installed:
#   SWEEPER_VLLM_PYTHON=/path/to/vllm/bin/python sbatch examples/slurm/one_node.sh
# Another study: sbatch examples/slurm/one_node.sh +experiment=serving_random platform=mi300x
#
# The time limit ends it as Ctrl-C does: five minutes before, SIGTERM reaches the step, engines are ended and results
# are kept. Submit it again to go on; exit code 143 says that there is more to do.
#SBATCH --job-name=sweeper
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@300
#SBATCH --output=sweeper-%j.log

set -euo pipefail

[ $# -gt 0 ] || set -- +experiment=tune model=llama_3_1_70b_instruct platform=mi300x

# srun gives the step all processors of the node: vLLM and its benchmark share them.
exec srun --ntasks=1 --cpus-per-task="${SLURM_CPUS_ON_NODE:-1}" \
  python -m sweeper "$@" \
  engine.python="${SWEEPER_VLLM_PYTHON:?name the interpreter that has vLLM}" \
  study.outputs="${SWEEPER_OUTPUTS:-$PWD/outputs}"
