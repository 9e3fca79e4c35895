#!/usr/bin/env bash
# Starts run small-20tpp of family small family, every seed in turn.
# Rendered by collapse-planner VERSION for modelzoo+cs3 from plan PLAN-DIGEST.
#
#   ./launch.sh [fit|validate|compile|--print] [argument of cszoo...]
#
# --print, or print, only prints the commands.
# Safe to run again: a seed that is done is skipped, one that was interrupted goes on from its last
# checkpoint. PLANNER_RUNS_DIR replaces the folder that runs write below, PLANNER_PROGRAM the
# command cszoo (words separated by blanks).
# Names and folders are literal text, whatever they look like.
# shellcheck disable=SC2016
set -euo pipefail

run=small-20tpp
run_digest=RUN-DIGEST
folder=small-20tpp
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=runs
root=${PLANNER_RUNS_DIR:-$root}
place=$root/small-family-eb942cd9/RUN
program=(cszoo)
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

# The data folders come from the environment. In YAML single quotes nothing but the quote is special.
variables=(TRAIN_DATA_DIR)
fill_in() {
  local name value text
  text=$(cat -- "$1" && printf .)
  text=${text%.}
  for name in "${variables[@]}"; do
    value=${!name:-}
    if [[ -z $value && $mode != print ]]; then
      printf '%s: set %s to the folder of the data\n' "$0" "$name" >&2
      exit 2
    fi
    # Also the line ends that only YAML takes for such: U+0085, U+2028, U+2029.
    if [[ $value == *[[:cntrl:]]* || $value == *$'\xc2\x85'* || $value == *$'\xe2\x80\xa8'* ||
      $value == *$'\xe2\x80\xa9'* ]]; then
      printf '%s: %s holds a control character\n' "$0" "$name" >&2
      exit 2
    fi
    value="data_dir: '${value//"'"/"''"}'"
    text=${text//"data_dir: \"\${$name}\""/"$value"}
  done
  printf '%s' "$text"
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
    fit | print) argv=("${program[@]}" fit "$config" --target_device CSX --model_dir "$output" "${@:4}") ;;
    validate) argv=("${program[@]}" config validate "$config" "${@:4}") ;;
    compile) argv=("${program[@]}" fit "$config" --target_device CSX --compile_only --model_dir "$output" "${@:4}") ;;
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

start 0 params-seed0.yaml checkpoint_100.mdl "$@"
