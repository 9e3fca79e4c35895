#!/usr/bin/env bash
# Starts all runs of family small family, small ones first; stops at the first that fails.
# Rendered by collapse-planner VERSION for modelzoo+cs3 from plan PLAN-DIGEST.
#
#   ./launch.sh [mode | --print] [argument...]      as each run's own launch.sh, which can also be started alone
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
folders=(
  small-20tpp
  large-20tpp
)
for folder in "${folders[@]}"; do
  "$here/$folder/launch.sh" "$@" || {
    status=$?
    printf '%s: stopped at %s; start again to go on from there\n' "$0" "$folder" >&2
    exit "$status"
  }
done
