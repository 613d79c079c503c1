#!/bin/bash
# A study on several nodes of a Slurm cluster: Ray on each, the sweeper on the first.
#   SWEEPER_VLLM_PYTHON=/shared/vllm/bin/python sbatch --nodes=4 examples/slurm/several_nodes.sh
# A trial runs on one node; more nodes run more trials at once. All nodes see this folder, the interpreters, the model and
# the outputs at the same paths (docs/cluster.md says what is checked).
#SBATCH --job-name=sweeper
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@300
#SBATCH --output=sweeper-%j.log

set -euo pipefail

[ $# -gt 0 ] || set -- +experiment=tune model=llama_3_1_70b_instruct platform=mi300x
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Every node runs the same line: the first starts Ray's head, waits for the others, runs the sweeper and stops Ray; the
# others join it. Its exit code is the sweeper's.
exec srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_ON_NODE:-1}" \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  python -m sweeper "$@" \
  executor.address="$head:6379" \
  engine.python="${SWEEPER_VLLM_PYTHON:?name the interpreter that has vLLM, at a path that all nodes have}" \
  study.outputs="${SWEEPER_OUTPUTS:-$PWD/outputs}"
