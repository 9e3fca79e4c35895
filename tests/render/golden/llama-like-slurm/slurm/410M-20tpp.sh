#!/usr/bin/env bash
# Slurm job of run 410M-20tpp of family llama-like, every seed.
# Rendered by collapse-planner VERSION for torch+slurm from plan PLAN-DIGEST.
# An element costs about 16.9 H100 hours, 1.05 hours on 16, at an assumed MFU of 40 %.
#
# Submitted by launch.sh. By hand, from the bundle's folder:
#   sbatch slurm/410M-20tpp.sh [argument of the trainer...]
#
#SBATCH --job-name=llama-like.410M-20tpp.RUN
#SBATCH --account=pretraining
#SBATCH --partition=gpu
#SBATCH --time=24:00:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=h100:8
#SBATCH --cpus-per-task=96
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --array=0-1
#SBATCH --output=%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#
# 120 seconds before its time is over the job writes a checkpoint and goes back into the queue.
# Names and folders are literal text.
# shellcheck disable=SC2016,SC2317,SC2329
set -euo pipefail

bundle=${PLANNER_BUNDLE:-${SLURM_SUBMIT_DIR:-.}}
folders=(
  410M-20tpp
  410M-20tpp
)
seeds=(0 1)
number=${SLURM_ARRAY_TASK_ID:-0}
folder=${folders[$number]}
seed=${seeds[$number]}
if [[ ! -e $bundle/$folder/start.sh ]]; then
  printf '%s is not the folder of the bundle: submit from there, or set PLANNER_BUNDLE\n' "$bundle" >&2
  exit 2
fi

set +u # What others wrote may use variables that are not set.
# shellcheck disable=SC1090,SC1091
source /shared/envs/train/bin/activate
set -u

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export PET_NNODES=$SLURM_JOB_NUM_NODES
export PET_NPROC_PER_NODE=8
export PET_RDZV_BACKEND=c10d
export PET_RDZV_ID=$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
export PET_RDZV_ENDPOINT=${nodes%%$'\n'*}:$((10000 + SLURM_JOB_ID % 20000))
# srun does not take it from the job since Slurm 22.05.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

stop=
step=
on_signal() {
  stop=1
  [[ -z $step ]] || kill -USR1 "$step" 2>/dev/null || true
}
trap on_signal USR1

# Slurm sends its signal once, maybe before all are there to hear it: so the time is watched here too.
watch_time() {
  local end
  end=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/.* EndTime=\([^ ]*\).*/\1/p' | head -n 1)
  end=$(date -d "$end" +%s 2>/dev/null) || return 0 # There is no limit.
  while kill -0 "$$" 2>/dev/null; do
    if (($(date +%s) >= end - 120)); then
      kill -USR1 "$$" 2>/dev/null || true
    fi
    sleep 5
  done
}
watch_time &
watcher=$!
trap 'kill "$watcher" 2>/dev/null || true' EXIT

srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 \
  bash "$bundle/$folder/start.sh" "$seed" "$@" &
step=$!
status=0
wait "$step" || status=$?
while kill -0 "$step" 2>/dev/null; do # A signal ends the waiting, not the step.
  status=0
  wait "$step" || status=$?
done

if ((status == 0)); then
  exit 0
fi
if [[ -n $stop ]] && ((${SLURM_RESTART_COUNT:-0} < 1000)); then
  printf 'requeued to go on from the last checkpoint\n'
  scontrol requeue "$SLURM_JOB_ID"
  sleep 60 # Slurm ends the job here.
fi
exit "$status"
