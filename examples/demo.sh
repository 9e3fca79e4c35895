#!/usr/bin/env bash
# The whole loop: plan -> render -> (run) -> ingest -> score -> forecast -> fit -> plan.
# The runs of the tiny family were recorded before (examples/tiny-family); everything else happens
# here. Run it by `make demo`, or with `planner` on the PATH: examples/demo.sh OUT
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out}

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\033[1m' plain=$'\033[0m'
fi

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

# Print a command as it would be typed, and run it.
run() {
  printf '\n$ %s\n' "$(quoted "$@")"
  "$@"
}

# The same for a command that ends with exit code 1 (done, and something needs attention), if $1 is
# `always`; with `maybe`, 0 will do as well.
attention() {
  local when=$1 code=0
  shift
  run "$@" || code=$?
  if [ "$code" -eq 1 ]; then
    echo "(exit code 1: done, and something needs attention)"
  elif [ "$code" -ne 0 ] || [ "$when" = always ]; then
    echo "error: exit code $code, wanted 1: something here needs attention" >&2
    exit 1
  fi
}

quoted() {
  local word line=
  for word; do
    case $word in *[*?\ \>\<]*) word="'$word'" ;; esac
    line+="$word "
  done
  echo "${line% }"
}

say "A published family, planned and rendered for ModelZoo"
mkdir -p "$out/celerity" "$out/tiny-family"
run planner plan examples/celerity.yaml -o "$out/celerity/plan.json" --force
run planner render "$out/celerity/plan.json" --target modelzoo -o "$out/celerity/jobs"

tiny=$out/tiny-family
plan=$tiny/plan.json
say "A family that was really trained, on one CPU core: planned, and rendered for two launchers"
run planner plan examples/tiny-family/family.yaml -o "$plan" --force
run planner render "$plan" --target torch+local -o "$tiny/jobs" --set data_dir=data
run planner render "$plan" --target torch+slurm -o "$tiny/jobs-slurm" --set data_dir=data

say "What was recorded of it, read into an archive; the sweep of tau into another"
runs=examples/tiny-family/runs
run planner ingest "$runs/*tpp.jsonl.gz" "$runs/*tpp-[cdfs]*.jsonl.gz" "$plan" -o "$tiny/archive"
run planner runs "$tiny/archive" --plan "$plan" --where 'params>50k'
run planner ingest "$runs/*-tau*-seed*.jsonl.gz" -o "$tiny/sweep"

say "Every run against its family: the one whose loss kernel went wrong at 60 % is found"
family=(--metric eval/loss --where 'schedule=linear*' --where 'tau>0.2' --where 'tau<0.5')
attention always planner score "$tiny/archive" --plan "$plan" "${family[@]}"
run planner plot "$tiny/archive" --plan "$plan" "${family[@]}" -o "$tiny/family.png"

say "The final loss of the largest size, from a fifth of its run and what has finished"
run planner forecast "$tiny/archive" 151k-20tpp --at 0.2 --plan "$plan" --metric eval/loss

say "A loss and a tau law of these runs, and the plan that they make: published ones are of other text"
attention maybe planner fit loss "$tiny/archive" --metric eval/loss --run '*tpp' --run '*tpp-seed*' \
  -o "$tiny/laws.yaml" --force
attention maybe planner fit tau "$tiny/sweep" --metric eval/loss -o "$tiny/laws.yaml" --force
printf '\n$ (sed "s/^timescale:.*/timescale: fitted-tau/" family.yaml;'
printf ' echo "laws: laws.yaml"; echo "loss_law: fitted-loss") > next.yaml\n'
(
  sed 's/^timescale:.*/timescale: fitted-tau/' examples/tiny-family/family.yaml
  echo "laws: laws.yaml"
  echo "loss_law: fitted-loss"
) >"$tiny/next.yaml"
run planner plan "$tiny/next.yaml" -o "$tiny/next.json" --force
run planner explain "$tiny/next.json" 151k-20tpp.predicted.loss
run planner explain "$tiny/next.json" 151k-20tpp.optimizer.tau

say "Pictures and files are in $out: open $tiny/family.png"
