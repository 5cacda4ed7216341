#!/usr/bin/env bash
#SBATCH --job-name=scenetune
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
#SBATCH --signal=B:INT@300
#SBATCH --output=scenetune-%j.log
#
# A Ray cluster inside a Slurm job, and a study on it:
#
#     python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[remote]'       # once, on a shared folder
#     sbatch clusters/slurm.sh --family csem --data /shared/shards --study /shared/studies/first --trials 200
#     tail -f scenetune-JOB.log
#     sbatch clusters/slurm.sh --study /shared/studies/first --resume                        # when the time was too short
#
# Run them in the project's folder, which lies where every node sees it, as studies and shards do. Costs what the
# nodes cost; takes about a minute to begin. Nodes, CPUs, GPUs and hours are the #SBATCH lines above, or options of
# sbatch before the script's name. Five minutes before the time is over the search is interrupted, as by Ctrl-C.
# The cluster's token is the job's own: made here, readable by you alone, gone when the job ends. The dashboard listens
# on the first node only: ssh -L 8265:127.0.0.1:8265 NODE.
set -euo pipefail

project=${SLURM_SUBMIT_DIR:?run it with sbatch}
export PATH="$project/.venv/bin:$PATH" RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_TOKEN_PATH=$project/.slurm-token-$SLURM_JOB_ID
gpus=${SLURM_GPUS_ON_NODE:-0} cpus=${SLURM_CPUS_PER_TASK:-1}
port=$((20000 + SLURM_JOB_ID % 10000)) # several jobs may share a node

clean() {
    rm -f "$RAY_AUTH_TOKEN_PATH"
    kill "${nodes[@]}" 2> /dev/null || true
    wait || true
}
nodes=()
trap clean EXIT
(umask 077 && openssl rand -hex 32 > "$RAY_AUTH_TOKEN_PATH")

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 -w "$first" hostname --ip-address | awk '{print $1}')
srun --nodes=1 --ntasks=1 --exact -w "$first" ray start --head --block --port="$port" --node-ip-address="$address" \
    --dashboard-host=127.0.0.1 --num-cpus="$((cpus - 1))" --num-gpus="$gpus" &
nodes+=($!)
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes="$((SLURM_JOB_NUM_NODES - 1))" --ntasks="$((SLURM_JOB_NUM_NODES - 1))" --exact --exclude="$first" \
        bash -c "sleep 10; exec ray start --block --address=$address:$port --num-cpus=$cpus --num-gpus=$gpus" &
    nodes+=($!)
fi

export RAY_ADDRESS=$address:$port
for ((tried = 0; tried < 60; tried++)); do # 5 minutes for all nodes to come
    joined=$(python -c 'import ray; ray.init(); print(sum(n["Alive"] for n in ray.nodes()))' 2> /dev/null || echo 0)
    [ "$joined" -ge "$SLURM_JOB_NUM_NODES" ] && break
    sleep 5
done
if [ "$joined" -lt "$SLURM_JOB_NUM_NODES" ]; then
    echo "only $joined of $SLURM_JOB_NUM_NODES nodes joined the Ray cluster in 5 minutes" >&2
    exit 1
fi

python "$project/tune_csem.py" "$@" &
search=$!
trap 'kill -INT "$search"' INT TERM
wait "$search" || wait "$search" # the first wait ends when the signal comes
