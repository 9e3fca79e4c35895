#!/usr/bin/env bash
# Submits all runs of family llama-like to Slurm, small sizes first.
# Rendered by collapse-planner VERSION for torch+slurm from plan PLAN-DIGEST.
#
#   ./launch.sh [--print | --test-only] [RUN...]
#
# --print only prints the commands, --test-only lets Slurm check the jobs without submitting them. RUN is
# a run's folder; without any, all runs are submitted, each size after the one before has finished well.
# Safe to run again: what is done or in the queue is left alone.
# PLANNER_RUNS_DIR replaces the folder that runs write below; Slurm's own variables (SBATCH_ACCOUNT,
# SBATCH_PARTITION...) replace what the scripts say.
# Names and folders are literal text, whatever they look like.
# shellcheck disable=SC2016
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=/shared/runs
root=${PLANNER_RUNS_DIR:-$root}
if [[ $root != /* ]]; then
  root=$PWD/$root
fi
logs=$root/llama-like/slurm
export PLANNER_BUNDLE=$here PLANNER_RUNS_DIR=$root

mode=submit
case ${1:-} in
  --print | --test-only)
    mode=${1#--}
    shift
    ;;
esac
known=' 110M-20tpp 410M-20tpp '
for wanted in "$@"; do
  if [[ $known != *" $wanted "* ]]; then
    printf '%s: there is no run %q; wanted one of:%s\n' "$0" "$wanted" "$known" >&2
    exit 2
  fi
done
wanted=" $* "
if [[ $mode == submit ]]; then
  required=(TRAIN_DATA_DIR)
  for name in "${required[@]}"; do
    if [[ -z ${!name:-} ]]; then
      printf '%s: set %s, which the trainer reads\n' "$0" "$name" >&2
      exit 2
    fi
  done
fi

# Jobs that the next ones wait for, and jobs of the size at hand, each with a colon before it.
before=
now=
next() {
  before=${now:-$before}
  now=
}

# submit NAME JOB_NAME FOLDERS [OUTPUT FINISHED]...
submit() {
  local name=$1 job_name=$2 chosen='' finished=1 folder words id
  for folder in $3; do
    if [[ $wanted == '  ' || $wanted == *" $folder "* ]]; then
      chosen=1
    fi
  done
  if [[ -z $chosen ]]; then
    return
  fi
  shift 3
  if [[ $mode == test-only ]]; then
    sbatch --test-only "$here/slurm/$name.sh"
    return
  fi
  while (($#)); do
    if [[ ! -e $root/$1/done && ! -e $root/$1/$2 ]]; then
      finished=
    fi
    shift 2
  done
  if [[ -n $finished ]]; then
    printf '%s: done, nothing to submit\n' "$name"
    return
  fi
  words=(sbatch --parsable --chdir="$logs")
  if [[ -n $before ]]; then
    words+=(--dependency="afterok$before" --kill-on-invalid-dep=yes)
  fi
  words+=("$here/slurm/$name.sh")
  if [[ $mode == print ]]; then
    printf '%q ' "${words[@]}"
    printf '\n'
    now+=:$name
    return
  fi
  id=$(squeue --noheader --user="$(id -un)" --name="$job_name" --format=%F | head -n 1)
  if [[ -n $id ]]; then
    printf '%s: in the queue as job %s\n' "$name" "$id"
  else
    mkdir -p -- "$logs"
    id=$("${words[@]}")
    id=${id%%;*}
    printf '%s: submitted as job %s\n' "$name" "$id"
  fi
  now+=:$id
}

submit 110M-20tpp llama-like.110M-20tpp.RUN 110M-20tpp \
  llama-like/RUN/110M-20tpp/seed0 checkpoints/step-00002100.pt
next
submit 410M-20tpp llama-like.410M-20tpp.RUN 410M-20tpp \
  llama-like/RUN/410M-20tpp/seed0 checkpoints/step-00007900.pt \
  llama-like/RUN/410M-20tpp/seed1 checkpoints/step-00007900.pt
