"""A batch script for Slurm: the head and the workers as steps of one job, the study as the job itself."""

from __future__ import annotations

import shlex

from study.cluster.shape import CREDENTIALS, DRAIN, ClusterShape

FILE = "mtl-study.sbatch"


def render(shape: ClusterShape) -> dict[str, str]:
    """File name to text. ``sbatch FILE`` runs ``shape.study``; ``sbatch FILE STUDY [OPTIONS]`` another one."""
    directives = [
        f"--job-name={shape.name}",
        f"--nodes={shape.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={shape.cpus_per_node}",
        *([f"--gpus-per-node={shape.gpus_per_node}"] if shape.gpus_per_node else []),
        f"--mem={shape.memory_per_node}G",
        f"--time={shape.hours}:00:00",
        f"--output={shape.name}-%j.log",
        "--open-mode=append",
        # The script, not its steps, hears of the end in time; it ends the study, which then goes on in the next job.
        f"--signal=B:TERM@{shape.notice_seconds}",
        "--requeue",
    ]
    container = ["apptainer", "exec", *(["--nv"] if shape.gpus_per_node else []), "--bind", shape.home, shape.image]
    # The nodes end after the study, when there is nothing left to wait for.
    environment = {**shape.environment, DRAIN: "0"}
    values = {
        "@DIRECTIVES@": "\n".join(f"#SBATCH {line}" for line in directives),
        "@ENVIRONMENT@": "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        "@CONTAINER@": shlex.join(container) if shape.image else "",
        "@STUDY@": shlex.join((shape.study, *shape.options)),
        "@HOME@": shlex.quote(shape.home),
        "@NAME@": shape.name,
        "@NODES@": str(shape.nodes),
        "@CPUS@": str(shape.cpus_per_node),
        "@GPUS@": str(shape.gpus_per_node),
        "@CREDENTIALS@": CREDENTIALS,
    }
    text = _SCRIPT
    for mark, value in values.items():
        text = text.replace(mark, value)
    return {FILE: text}


_SCRIPT = """\
#!/usr/bin/env bash
@DIRECTIVES@

# A Ray cluster over the nodes of this job, and a study on it.
#   sbatch mtl-study.sbatch [STUDY [OPTIONS OF mtl-study run]]
# The home must be on a file system that every node mounts. Credentials: ~/@CREDENTIALS@, NAME=VALUE lines, mode 0600.
# Job control, so that a step and all it started can be signalled together.
set -euo pipefail -m
umask 077

home=${MTL_STUDY_HOME:-@HOME@}
container=(@CONTAINER@)
if (($# == 0)); then set -- @STUDY@; fi
if [[ -r ~/@CREDENTIALS@ ]]; then set -a; . ~/@CREDENTIALS@; set +a; fi
@ENVIRONMENT@

mkdir -p "$home"
export RAY_AUTH_TOKEN_PATH=$home/.ray-token-$SLURM_JOB_ID
od -An -N32 -tx1 /dev/urandom | tr -d ' \\n' > "$RAY_AUTH_TOKEN_PATH"

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
# The first of its addresses; --ip-address may say 127.0.1.1.
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | awk '{print $1; exit}')
# Jobs that share a node do not share a port.
port=$((20000 + SLURM_JOB_ID % 10000))
address=$head_ip:$port

steps=()
driver=
noticed=
finish() {
  trap - EXIT TERM
  # The workers before the head, which they would look for.
  for ((last = ${#steps[@]} - 1; last >= 0; last--)); do
    kill -TERM -- "-${steps[last]}" 2>/dev/null || true
    wait "${steps[last]}" || true
  done
  rm -f "$RAY_AUTH_TOKEN_PATH"
}
notice() {
  noticed=1
  if [[ -n $driver ]]; then kill -TERM -- "-$driver" 2>/dev/null || true; fi
}
trap finish EXIT
trap notice TERM

# Each Ray node keeps its sockets and logs on its own disk.
scratch=/tmp/@NAME@-$SLURM_JOB_ID
node=(ray start --block --disable-usage-stats --num-cpus=@CPUS@ --num-gpus=@GPUS@)
srun --nodes=1 --ntasks=1 --cpus-per-task=@CPUS@ --nodelist="$head" "${container[@]}" \\
  "${node[@]}" --head --node-ip-address="$head_ip" --port="$port" --temp-dir="$scratch" \\
  --dashboard-host=127.0.0.1 --dashboard-port=$((port + 10000)) --ray-client-server-port=$((port + 20000)) &
steps+=($!)
for ((tries = 0; ; tries++)); do
  if (exec 3<> "/dev/tcp/$head_ip/$port") 2>/dev/null; then break; fi
  if ((tries == 120)); then echo "the head on $head did not start" >&2; exit 1; fi
  if [[ -n $noticed ]]; then exit 143; fi
  sleep 1
done
if ((${#hosts[@]} > 1)); then
  workers=$((${#hosts[@]} - 1))
  srun --nodes="$workers" --ntasks="$workers" --cpus-per-task=@CPUS@ --exclude="$head" "${container[@]}" \\
    "${node[@]}" --address="$address" &
  steps+=($!)
fi
"${container[@]}" mtl-study cluster wait --address "$address" --nodes "${#hosts[@]}" --timeout 300

if [[ -n $noticed ]]; then exit 143; fi
"${container[@]}" mtl-study run "$@" --home "$home" --cluster "$address" &
driver=$!
code=0
wait "$driver" || code=$?
# A signal ends the wait, not the study.
while kill -0 "$driver" 2>/dev/null; do code=0; wait "$driver" || code=$?; done
if [[ -n $noticed ]]; then
  echo "stopped with $code on notice; what is unfinished goes on in the requeued job" >&2
  scontrol requeue "$SLURM_JOB_ID" || echo "not requeued; the same sbatch goes on where it was" >&2
fi
exit "$code"
"""
