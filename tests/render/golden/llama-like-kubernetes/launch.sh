#!/usr/bin/env bash
# Makes the jobs of all runs of family llama-like on Kubernetes, small sizes first.
# Rendered by collapse-planner VERSION for torch+kubernetes from plan PLAN-DIGEST.
#
#   ./launch.sh [--print | --dry-run] [RUN...]
#
# --print only prints the commands, --dry-run lets the API server check the objects without making them.
# RUN is a run's folder; without any, all runs are started.
# Safe to run again: a job that is there, waiting, running or done, is left alone. To start one again
# that has failed, delete it first; it goes on from its last checkpoint.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
mode=create
case ${1:-} in
  --print | --dry-run)
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

# make RUN SEED...
make() {
  local folder=$1 seed file
  if [[ $wanted != '  ' && $wanted != *" $folder "* ]]; then
    return
  fi
  shift
  case $mode in
    print)
      printf 'kubectl apply -f %q\n' "$here/$folder/files.yaml"
      for seed in "$@"; do
        printf 'kubectl create -f %q\n' "$here/$folder/seed$seed.yaml"
      done
      return
      ;;
    dry-run)
      kubectl apply --dry-run=server -f "$here/$folder/files.yaml"
      for seed in "$@"; do
        kubectl apply --dry-run=server -f "$here/$folder/seed$seed.yaml"
      done
      return
      ;;
  esac
  kubectl apply -f "$here/$folder/files.yaml"
  for seed in "$@"; do
    file=$here/$folder/seed$seed.yaml
    # Not applied again: that would suspend a job that its queue has let go.
    if kubectl get -f "$file" >/dev/null 2>&1; then
      printf '%s seed %s: there already\n' "$folder" "$seed"
    else
      kubectl create -f "$file"
    fi
  done
}

make 110M-20tpp 0
make 410M-20tpp 0 1
