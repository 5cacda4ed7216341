#!/usr/bin/env bash
# Runs tune_csem.py on a cluster with its arguments whole:
#
#     clusters/submit.sh clusters/gpu.yaml [--tmux | --screen] [--start] [--stop] -- --family csem --data 's3://b/my shards'
#
# `ray submit` joins what follows `--` with spaces and gives it to a shell on the head node, so that an argument
# with a space, quote, $ or ; falls apart there. Here each is quoted once more; nothing else differs from
#
#     ray submit clusters/gpu.yaml [--tmux …] tune_csem.py -- --family csem …
set -euo pipefail
cluster=${1:?usage: submit.sh CLUSTER.yaml [options of ray submit] -- [options of tune_csem.py]}
shift
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    options+=("$1")
    shift
done
[ $# -gt 0 ] && shift
arguments=()
for argument in "$@"; do
    arguments+=("$(printf %q "$argument")")
done
script=$(cd "$(dirname "$0")/.." && pwd)/tune_csem.py
exec ray submit "${options[@]}" "$cluster" "$script" -- "${arguments[@]}"
