#!/usr/bin/env bash
# Starts run 300M-20tpp of family celerity, every seed in turn.
# Rendered by collapse-planner VERSION for cstorch+cs3 from plan PLAN-DIGEST.
#
#   ./launch.sh [fit|validate|compile|--print] [argument of python...]
#
# --print, or print, only prints the commands.
# Safe to run again: a seed that is done is skipped, one that was interrupted goes on from its last
# checkpoint. PLANNER_RUNS_DIR replaces the folder that runs write below, PLANNER_PROGRAM the
# command python (words separated by blanks).
# Names and folders are literal text, whatever they look like.
# shellcheck disable=SC2016
set -euo pipefail

run=300M-20tpp
run_digest=RUN-DIGEST
folder=300M-20tpp
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
bundle=${here%/*}
root=runs
root=${PLANNER_RUNS_DIR:-$root}
place=$root/celerity/RUN
program=(python)
if [[ -n ${PLANNER_PROGRAM:-} ]]; then
  read -r -a program <<<"$PLANNER_PROGRAM"
fi

mode=fit
if (($#)); then
  mode=$1
  shift
fi
case $mode in
  fit) ;;
  validate) ;;
  compile) ;;
  print | --print) mode=print ;;
  *)
    printf '%s: unknown mode %q; wanted fit, validate, compile or --print\n' "$0" "$mode" >&2
    exit 2
    ;;
esac

fill_in() {
  cat -- "$1"
}

# What the seed ran with, kept beside its checkpoints. Values of environment variables stay out.
record() {
  local to=$1
  mkdir -p -- "$to"
  {
    date -u '+started %Y-%m-%dT%H:%M:%SZ'
    printf 'run %s\ndigest %s\n' "$run" "$run_digest"
    printf 'host %s\n' "$(uname -a)"
    printf 'program %s\n' "$(command -v -- "${program[0]}" || printf missing)"
    git -C "$here" rev-parse HEAD 2>/dev/null | sed 's/^/bundle commit /' || true
    python --version 2>&1 || true
    python -m pip freeze 2>/dev/null || true
  } >"$to/$(date -u +%Y%m%dT%H%M%SZ)-$$.txt"
}

start() {
  local seed=$1 source=$2 finished=$3
  local base=$place/$folder/seed$seed
  local output=$base config=$base/params.yaml
  if [[ $mode == compile ]]; then
    output=$base/compile # Not among the checkpoints, which a compile would try to load.
  fi
  local argv
  case $mode in
    fit | print) argv=("${program[@]}" "$bundle"/300M-20tpp/train.py "$config" --output "$output" "${@:4}") ;;
    validate) argv=("${program[@]}" "$bundle"/300M-20tpp/train.py "$config" --check "${@:4}") ;;
    compile) argv=("${program[@]}" "$bundle"/300M-20tpp/train.py "$config" --output "$output" --compile-only "${@:4}") ;;
  esac
  if [[ $mode == print ]]; then
    printf '%q ' "${argv[@]}"
    printf '\n'
    return
  fi
  if [[ $mode == fit && (-e $base/done || -e $base/$finished) ]]; then
    printf '%s seed %s: done, nothing to start\n' "$run" "$seed"
    return
  fi
  mkdir -p -- "$output"
  if [[ $mode == fit ]] && command -v flock >/dev/null; then
    exec 9>"$base/lock"
    if ! flock -n 9; then
      printf '%s seed %s: already running from this machine or another\n' "$run" "$seed" >&2
      exit 1
    fi
  fi
  fill_in "$here/$source" >"$config.new"
  mv -f -- "$config.new" "$config"
  if [[ $mode == fit ]]; then
    record "$base/environment"
  fi
  printf '%s seed %s: %s\n' "$run" "$seed" "$mode"
  "${argv[@]}" 9>&-
  if [[ $mode == fit ]]; then
    printf '%s\n' "$run_digest" >"$base/done"
  fi
}

start 0 config-seed0.yaml checkpoint_3755.whole "$@"
