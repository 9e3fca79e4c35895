#!/usr/bin/env bash
# Trains run 110M-20tpp of family llama-like with one seed: the part of one node.
# Rendered by collapse-planner VERSION for megatron+slurm from plan PLAN-DIGEST.
# Run digest RUN-DIGEST. A seed costs not estimated: neither the plan nor an option names accelerator and MFU.
#
#   start.sh SEED [argument of the trainer...]
#
# The launcher calls it on every node and names in torchrun's own variables (PET_NNODES,
# PET_NPROC_PER_NODE, PET_RDZV_ENDPOINT or PET_MASTER_ADDR...) where the nodes meet; without them it is
# one process on this machine.
# Safe to run again: a seed that is done is skipped, one that was interrupted goes on from its last
# checkpoint. USR1 and TERM let the trainer write a checkpoint and stop; the exit status is then 75.
# PLANNER_RUNS_DIR replaces the folder that runs write below, PLANNER_TORCHRUN the command torchrun
# (words separated by blanks).
# Names and folders are literal text, whatever they look like.
# shellcheck disable=SC2016,SC2034,SC2317,SC2329
set -euo pipefail

run=110M-20tpp
run_digest=RUN-DIGEST
plan_digest=PLAN-DIGEST
bundle=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
root=runs
root=${PLANNER_RUNS_DIR:-$root}
place=$root/llama-like/RUN
node=${PET_NODE_RANK:-${SLURM_NODEID:-0}}
torchrun=(torchrun)
if [[ -n ${PLANNER_TORCHRUN:-} ]]; then
  read -r -a torchrun <<<"$PLANNER_TORCHRUN"
fi

seed=${1:-}
case $seed in
  0)
    config=$bundle/110M-20tpp/config-seed0.yaml
    output=$place/110M-20tpp/seed0
    finished=finished
    argv=("$bundle"/110M-20tpp/train.py "$config" --output "$output" "${@:2}")
    ;;
  *)
    printf '%s: got seed %q, wanted one of: 0\n' "$0" "$seed" >&2
    exit 2
    ;;
esac
required=(MEGATRON_LM_DIR TRAIN_DATA_DIR)
for name in "${required[@]}"; do
  if [[ -z ${!name:-} ]]; then
    printf '%s: set %s, which the trainer reads\n' "$0" "$name" >&2
    exit 2
  fi
done

is_done() {
  [[ -e $output/done || -e $output/$finished ]]
}
if is_done; then
  printf '%s seed %s: done, nothing to start\n' "$run" "$seed"
  exit 0
fi

# What the seed ran with, kept beside its checkpoints. Other variables, secrets too, stay out.
record() {
  mkdir -p -- "$output/environment"
  cp -- "$config" "$output/environment/"
  local name
  {
    date -u '+started %Y-%m-%dT%H:%M:%SZ'
    printf 'run %s\nrun digest %s\nplan digest %s\nseed %s\n' "$run" "$run_digest" "$plan_digest" "$seed"
    printf 'host %s\n' "$(uname -a)"
    for name in PET_NNODES PET_NPROC_PER_NODE SLURM_JOB_ID SLURM_RESTART_COUNT SLURM_JOB_NODELIST \
      SKYPILOT_TASK_ID; do
      [[ -z ${!name:-} ]] || printf '%s %s\n' "$name" "${!name}"
    done
    printf 'torchrun %s\n' "$(command -v -- "${torchrun[0]}" || printf missing)"
    git -C "$bundle" rev-parse HEAD 2>/dev/null | sed 's/^/bundle commit /' || true
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || true
    python --version 2>&1 || true
    python -m pip freeze 2>/dev/null || true
  } >"$output/environment/$(date -u +%Y%m%dT%H%M%SZ)-$$.txt"
}

mkdir -p -- "$output"
if [[ $node == 0 ]]; then
  if command -v flock >/dev/null; then
    exec 9>"$output/lock"
    held=0
    flock -n -E 100 9 || held=$?
    if ((held == 100)); then
      printf '%s seed %s: already running\n' "$run" "$seed" >&2
      exit 1
    fi
  fi
  record
  printf '%s seed %s: %s\n' "$run" "$seed" "$output"
fi

# torchrun kills its processes 30 seconds after it is told to stop, which may be too soon for a
# checkpoint. So it is told nothing, and the processes that it started are: those below it that have
# its variables.
workers() {
  local child children
  read -r -d '' -a children < <(cat "/proc/$1/task/"*/children 2>/dev/null) || true
  for child in ${children[@]+"${children[@]}"}; do
    if grep -qz '^TORCHELASTIC_RUN_ID=' "/proc/$child/environ" 2>/dev/null; then
      printf '%s\n' "$child"
    else
      workers "$child"
    fi
  done
}
# A process that is still starting up does not catch the signal (15) yet and would pass over it.
catches() {
  local key mask
  while read -r key mask; do
    if [[ $key == SigCgt: ]]; then
      (((16#${mask: -8} & 1 << 14) != 0))
      return
    fi
  done 2>/dev/null <"/proc/$1/status"
  return 1
}
stop=
told=
tell() {
  stop=$1
  if [[ -n $told ]]; then
    return # A second TERM would end the trainer before its checkpoint is written.
  fi
  local found each
  read -r -d '' -a found < <(workers "$agent") || true
  if [[ -z ${found[0]:-} ]]; then
    kill -HUP "$agent" 2>/dev/null || true # It has not started any yet.
    return
  fi
  for each in "${found[@]}"; do
    catches "$each" || return 0
  done
  told=1
  kill -TERM "${found[@]}" 2>/dev/null || true
}

export PET_MAX_RESTARTS=0 PET_SIGNALS_TO_HANDLE=SIGINT,SIGHUP,SIGQUIT
(
  trap '' USR1 TERM
  exec "${torchrun[@]}" "${argv[@]}" 9>&-
) &
agent=$!
trap 'tell USR1' USR1
trap 'tell TERM' TERM
status=0
wait "$agent" || status=$?
while kill -0 "$agent" 2>/dev/null; do # A signal ends the waiting, not the process.
  if [[ -n $stop && -z $told ]]; then
    sleep 2
    tell "$stop"
    continue
  fi
  status=0
  wait "$agent" || status=$?
done

if ((status == 0)) || { [[ -n $stop ]] && is_done; }; then
  if [[ $node == 0 ]]; then
    printf '%s\n' "$run_digest" >"$output/done"
  fi
  exit 0
fi
if [[ -n $stop ]]; then
  printf '%s seed %s: stopped by %s; start again to go on\n' "$run" "$seed" "$stop" >&2
  exit 75
fi
exit "$status"
