"""Commands for clusters: launch one, run a study there, follow it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from study.cli.options import (
    FAILURES,
    example,
    home_option,
    json_option,
    print_json,
    profile_option,
    screen,
    studies,
)
from study.cli.reading import status as study_status
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from study.cluster.jobs import JobClient

LAUNCHERS = ("ray", "kuberay", "slurm")
_GIB_PER_CORE = 4

address_option = click.option(
    "--address",
    help="http://HOST:8265 of the dashboard, or HOST:PORT of the head (else $RAY_ADDRESS, else this machine's).",
)


@click.group(
    epilog=example("mtl-study cluster render slurm --nodes 4 --cpus-per-node 96", "mtl-study cluster wait --nodes 4")
)
def cluster() -> None:
    """Launch Ray clusters and look at them."""


@cluster.command(
    "render",
    epilog=example(
        "mtl-study cluster render slurm --nodes 4 --gpus-per-node 8 --cpus-per-node 96 --out launch",
        "mtl-study cluster render kuberay --nodes 4 --gpus-per-node 8 --cpus-per-node 96 --image IMAGE",
        "mtl-study cluster render ray --nodes 2 --cpus-per-node 16 --host 10.0.0.1 --host 10.0.0.2",
    ),
)
@click.argument("launcher", type=click.Choice(LAUNCHERS))
@click.option("--nodes", type=int, required=True, help="Machines that train.")
@click.option("--cpus-per-node", type=int, required=True)
@click.option("--gpus-per-node", type=int, default=0, show_default=True)
@click.option("--memory-per-node", type=int, help="GiB (default: 4 per core).")
@click.option("--image", default="", help="Container image; KubeRay needs one.")
@click.option("--name", default="mtl-study", show_default=True, help="Of the cluster.")
@click.option("--study", default="table4_d5", show_default=True, help="What the job runs (kuberay, slurm).")
@click.option("--profile", help="The study's profile.")
@click.option("--shared-home", default="/mnt/mtl-study", show_default=True, help="Folder of all state, on every node.")
@click.option("--host", "hosts", multiple=True, help="ray: a machine there is, the head first; once for each.")
@click.option("--instance-type", default="", help="ray: AWS machines of this type instead.")
@click.option("--region", default="us-east-1", show_default=True, help="ray, on AWS.")
@click.option("--ssh-user", default="ubuntu", show_default=True, help="ray.")
@click.option("--hours", type=int, default=24, show_default=True, help="slurm: time limit.")
@click.option("--notice", type=int, default=120, show_default=True, help="Seconds between SIGTERM and a node's end.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder to write into (default: here).")
def render_command(
    launcher: str,
    nodes: int,
    cpus_per_node: int,
    gpus_per_node: int,
    memory_per_node: int | None,
    image: str,
    name: str,
    study: str,
    profile: str | None,
    shared_home: str,
    hosts: tuple[str, ...],
    instance_type: str,
    region: str,
    ssh_user: str,
    hours: int,
    notice: int,
    out: Path,
) -> None:
    """Write the files that launch a cluster: a `ray up` configuration, KubeRay manifests, or a Slurm batch script."""
    from study.cluster.render import render, write
    from study.cluster.shape import ClusterShape

    for each in studies(study):
        _check_study(each, profile)
    shape = ClusterShape(
        nodes=nodes,
        cpus_per_node=cpus_per_node,
        gpus_per_node=gpus_per_node,
        memory_per_node=memory_per_node if memory_per_node is not None else _GIB_PER_CORE * max(cpus_per_node, 1),
        image=image,
        name=name,
        home=shared_home,
        study=study,
        run_options=("--profile", profile) if profile else (),
        hosts=hosts,
        instance_type=instance_type,
        region=region,
        ssh_user=ssh_user,
        hours=hours,
        notice_seconds=notice,
    )
    for path in write(render(launcher, shape), out):
        click.echo(path)


def _check_study(name: str, profile: str | None) -> None:
    from study.plan import make_plan
    from study.spec import load_spec

    make_plan(load_spec(name), profile, None, {})


@cluster.command("wait", epilog=example("mtl-study cluster wait --address 10.0.0.1:6379 --nodes 4"))
@click.option("--address", default="auto", show_default=True, help="HOST:PORT of the head, or auto.")
@click.option("--nodes", type=click.IntRange(min=1), required=True)
@click.option("--timeout", type=click.FloatRange(min=0), default=300.0, show_default=True, help="Seconds.")
@home_option
def wait_command(address: str, nodes: int, timeout: float, home: Path | None) -> int:
    """Wait until a cluster has that many nodes. Exit code 1 where it has not in time."""
    from study.cluster.connect import connect, count_nodes
    from study.home import Home

    if address == "local":
        raise ConfigError("--address local: HOST:PORT or auto is wanted")
    deadline = time.monotonic() + timeout
    with connect(address, Home.locate(home), cpus=1) as connection:
        found = connection.nodes
        while found < nodes and time.monotonic() < deadline:
            time.sleep(0.5)
            found = count_nodes()
    click.echo(f"{found} of {nodes} nodes")
    return 0 if found >= nodes else FAILURES


@click.command(
    epilog=example(
        "mtl-study submit table4_d5 --address http://127.0.0.1:8265 --profile gpu --home /mnt/mtl-study",
        "mtl-study submit d4 --environment source --follow",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("study")
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED)
@address_option
@click.option(
    "--environment",
    default="image",
    show_default=True,
    help="image: what the nodes have installed; source: this checkout, pinned to its constraints.txt.",
)
@click.option("--follow", is_flag=True, help="Print what it says until it ends; exit with 1 unless it succeeds.")
@json_option
def submit(
    study: str, run_options: tuple[str, ...], address: str | None, environment: str, follow: bool, as_json: bool
) -> int:
    """Run a study as a job of a cluster and print the job's id. All options of `run` are taken; --home is a folder of
    the cluster's shared storage. The records of an earlier run there are found and gone on with."""
    from study.cluster.jobs import JobClient, checkout, runtime_environment

    arguments = _run_arguments(study, run_options)
    runtime = runtime_environment(environment, checkout())
    client = JobClient(address)
    job_id = client.submit(study, arguments, runtime)
    if as_json:
        print_json({"job": job_id, "study": study, "address": client.address})
    else:
        click.echo(job_id)
    return _follow(client, job_id) if follow else 0


def _run_arguments(study: str, run_options: tuple[str, ...]) -> tuple[str, ...]:
    """The options of ``run`` for a job, checked here as ``run`` would there."""
    from study.cli.running import run_command

    context = run_command.make_context("run", [study, *run_options])
    for name in studies(study):
        _check_study(name, context.params.get("profile"))
    given = {word.partition("=")[0] for word in run_options}
    return run_options if "--cluster" in given else (*run_options, "--cluster", "auto")


@click.command(epilog=example("mtl-study logs", "mtl-study logs mtl-study-table4-d5-1f0c33aa --follow"))
@click.argument("job", required=False)
@address_option
@click.option("--follow", is_flag=True, help="Go on until the job ends; exit with 1 unless it succeeds.")
def logs(job: str | None, address: str | None, follow: bool) -> int:
    """Print what a submitted study has said (default: the newest)."""
    from study.cluster.jobs import JobClient

    client = JobClient(address)
    job_id = client.job(job).id
    if follow:
        return _follow(client, job_id)
    click.echo(client.logs(job_id), nl=False)
    return 0


def _follow(client: JobClient, job_id: str) -> int:
    ended = client.follow(job_id, lambda text: click.echo(text, nl=False))
    click.echo(f"{job_id}: {ended.state}: {ended.message}", err=True)
    return 0 if ended.state == "SUCCEEDED" else FAILURES


@click.command(
    epilog=example(
        "mtl-study status table4_d5", "mtl-study status", "mtl-study status mtl-study-table4-d5-1f0c33aa --json"
    )
)
@click.argument("name", required=False, metavar="[STUDY|JOB]")
@address_option
@profile_option
@home_option
@json_option
@click.pass_context
def status(
    ctx: click.Context, name: str | None, address: str | None, profile: str | None, home: Path | None, as_json: bool
) -> None:
    """Show how far a recorded STUDY is: every trial's state and cost. With a submitted JOB: its state. With neither:
    what a cluster is doing, its nodes, CPUs, GPUs, trials and jobs."""
    from study.cluster.jobs import JobClient, is_job
    from study.cluster.state import cluster_state, print_jobs

    if name is not None and address is None and not is_job(name):
        ctx.invoke(study_status, study=name, profile=profile, home=home, as_json=as_json)
        return
    client = JobClient(address)
    if name is not None:
        job = client.job(name)
        if as_json:
            print_json(job.to_dict())
        else:
            print_jobs([job], screen())
        return
    state = cluster_state(client)
    if as_json:
        print_json(state.to_dict())
    else:
        state.print(screen())
