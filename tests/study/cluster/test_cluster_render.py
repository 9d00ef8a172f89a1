from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml

from study.cli import run
from study.cluster.render import LAUNCHERS, render, write
from study.cluster.shape import ClusterShape
from trainables.errors import ConfigError, StoreError

GPU = ClusterShape(nodes=3, cpus_per_node=16, gpus_per_node=4, image="registry.example/mtl-study:0.1.0")
CPU = ClusterShape(nodes=1, cpus_per_node=2)
HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


def shape(**over: Any) -> ClusterShape:
    return ClusterShape(**{"nodes": 3, "cpus_per_node": 16, "gpus_per_node": 4, **over})


RAY_SHAPES = {
    "hosts": shape(hosts=HOSTS),
    "hosts in a container": shape(hosts=HOSTS, image="registry.example/mtl-study:0.1.0"),
    "one host": ClusterShape(nodes=1, cpus_per_node=2, hosts=("node-1",)),
    "aws": shape(instance_type="g5.12xlarge", region="eu-west-1"),
}


def ray_config(of: ClusterShape) -> dict[str, Any]:
    (text,) = render("ray", of).values()
    config = yaml.safe_load(text)
    assert isinstance(config, dict)
    return config


@pytest.fixture(scope="session")
def prepare() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What ``ray up`` does before it validates: its defaults filled in."""
    util = pytest.importorskip("ray.autoscaler._private.util")

    def prepared(config: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = util.prepare_config(copy.deepcopy(config))
        return out

    return prepared


@pytest.fixture(scope="session")
def ray_schema() -> dict[str, Any]:
    out: dict[str, Any] = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    return out


@pytest.mark.parametrize("name", RAY_SHAPES)
def test_ray_up_takes_the_configuration(
    name: str, prepare: Callable[[dict[str, Any]], dict[str, Any]], ray_schema: dict[str, Any]
) -> None:
    config = prepare(ray_config(RAY_SHAPES[name]))
    jsonschema.validate(config, ray_schema)
    assert config["head_node_type"] in config["available_node_types"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "max_worker": 2}, ray_schema)


def test_ray_up_counts_the_head_among_the_nodes() -> None:
    config = ray_config(RAY_SHAPES["hosts"])
    assert config["provider"] == {"type": "local", "head_ip": HOSTS[0], "worker_ips": list(HOSTS[1:])}
    assert config["max_workers"] == config["min_workers"] == 2
    types = ray_config(RAY_SHAPES["aws"])["available_node_types"]
    assert types["worker"]["max_workers"] == 2
    assert {kind["resources"]["GPU"] for kind in types.values()} == {4}


def test_ray_up_binds_the_dashboard_to_loopback_and_wants_the_token() -> None:
    config = ray_config(RAY_SHAPES["hosts"])
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in worker
    assert "--num-gpus=4" in worker
    for command in (head, worker):
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({}, "either --host"),
        ({"hosts": HOSTS, "instance_type": "g5.12xlarge"}, "either --host"),
        ({"hosts": HOSTS[:2]}, "--nodes 3: --host is given 2 times"),
        ({"hosts": (HOSTS[0], HOSTS[1], HOSTS[0])}, "given twice"),
    ],
)
def test_ray_up_says_which_machines_it_lacks(over: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        render("ray", shape(**over))


SCHEMAS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "kuberay_schema.yaml").read_text(encoding="utf-8"))


def check_manifest(manifest: dict[str, Any]) -> None:
    schema = {**SCHEMAS[manifest["kind"]], "definitions": SCHEMAS["definitions"]}
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(manifest, schema)


def manifests(of: ClusterShape) -> dict[str, dict[str, Any]]:
    return {(found := yaml.safe_load(text))["kind"]: found for text in render("kuberay", of).values()}


@pytest.mark.parametrize("of", [GPU, ClusterShape(nodes=2, cpus_per_node=8, image="mtl-study")])
def test_kuberay_manifests_fit_the_api(of: ClusterShape) -> None:
    found = manifests(of)
    assert set(found) == {"RayCluster", "RayJob", "PersistentVolumeClaim"}
    for manifest in found.values():
        check_manifest(manifest)


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m["spec"].update(entryPoint="x"),
        lambda m: m["spec"]["rayClusterSpec"].pop("headGroupSpec"),
        lambda m: m["spec"]["rayClusterSpec"]["headGroupSpec"].pop("template"),
        lambda m: m["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(maxReplicas="3"),
        lambda m: m["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    ],
)
def test_the_schema_refuses_what_the_api_would(damage: Callable[[dict[str, Any]], Any]) -> None:
    job = manifests(GPU)["RayJob"]
    damage(job)
    with pytest.raises(jsonschema.ValidationError):
        check_manifest(job)


def test_kuberay_pods_hold_the_gpus_the_home_and_the_credentials_by_reference() -> None:
    found = manifests(GPU)
    spec = found["RayCluster"]["spec"]
    assert found["RayJob"]["spec"]["rayClusterSpec"] == spec
    assert spec["rayVersion"] == version("ray")
    assert spec["authOptions"] == {"mode": "token"}
    (group,) = spec["workerGroupSpecs"]
    assert group["maxReplicas"] == 3
    (worker,) = group["template"]["spec"]["containers"]
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    # The head trains nothing, so that no trial is lost with the driver's pod and the driver with no trial's.
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    claim = found["PersistentVolumeClaim"]["metadata"]["name"]
    for pod in (spec["headGroupSpec"]["template"]["spec"], group["template"]["spec"]):
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim
        assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == GPU.home
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "mtl-study-env", "optional": True}}]
        assert pod["terminationGracePeriodSeconds"] == 120


def test_kuberay_needs_an_image() -> None:
    with pytest.raises(ConfigError, match="--image: KubeRay"):
        render("kuberay", CPU)


@pytest.mark.parametrize("of", [GPU, CPU, shape(image="docker://registry.example/mtl-study:0.1.0")])
def test_slurm_script_is_valid_shell_and_asks_for_what_was_wanted(of: ClusterShape, tmp_path: Path) -> None:
    (path,) = write(render("slurm", of), tmp_path)
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    text = path.read_text()
    assert not re.search(r"@[A-Z]+@", text)
    directives = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2] for line in text.splitlines() if line.startswith("#SBATCH ")
    )
    assert directives["nodes"] == str(of.nodes)
    assert directives["signal"] == "B:TERM@120"
    assert directives.get("gpus-per-node") == (str(of.gpus_per_node) if of.gpus_per_node else None)
    # Directives count only before the first command.
    first_command = next(index for index, line in enumerate(text.splitlines()) if line and not line.startswith("#"))
    assert all(not line.startswith("#SBATCH") for line in text.splitlines()[first_command:])


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"nodes": 0}, "--nodes 0: at least 1"),
        ({"gpus_per_node": -1}, "--gpus-per-node -1"),
        ({"name": "a b"}, "--name 'a b'"),
        ({"name": "x; rm -rf ~"}, "--name"),
        ({"image": "$(id)"}, "--image"),
        ({"home": "relative"}, "--home 'relative'"),
        ({"home": "/x$(id)"}, "--home"),
        ({"hosts": ("a", "b;c")}, "--host"),
        ({"hosts": ("-oProxyCommand=x",)}, "--host"),
        ({"instance_type": "g5 12"}, "--instance-type"),
    ],
)
def test_values_that_would_not_survive_a_shell_or_manifest_are_refused(over: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        shape(**over)


def test_run_options_are_quoted_and_workers_fill_the_full_cluster() -> None:
    of = shape(run_options=("--set", "method.name=a b"), image="x")
    words = shlex.split(manifests(of)["RayJob"]["spec"]["entrypoint"])
    assert words[:5] == ["mtl-study", "run", "table4_d5", "--set", "method.name=a b"]
    assert words[words.index("--workers") + 1] == "12"
    assert shape(gpus_per_node=0).options == ("--workers", "48")
    assert shape(run_options=("--workers=2",)).options == ("--workers=2",)


def test_no_launcher_writes_a_secret_and_all_read_the_same_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "not-to-be-written")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-written")
    for launcher in LAUNCHERS:
        text = "".join(render(launcher, shape(image="x", hosts=HOSTS)).values())
        assert "not-to-be-written" not in text
        assert "mtl-study-env" in text


def test_unknown_launcher_and_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'slurm'"):
        render("slrm", CPU)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--out"):
        write({"a": "b"}, tmp_path / "file")


def test_command_writes_the_files_and_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cluster", "render", "kuberay", "--nodes", "2", "--cpus-per-node", "8", "--gpus-per-node", "1"]
    assert run([*words, "--image", "x", "--profile", "smoke", "--out", str(tmp_path / "launch")]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in paths} == {"raycluster.yaml", "rayjob.yaml", "storage.yaml"}
    job = yaml.safe_load((tmp_path / "launch" / "rayjob.yaml").read_text())
    assert "--profile smoke" in job["spec"]["entrypoint"]
    container = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["memory"] == "32Gi"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--study", "table4_d55"], "did you mean 'table4_d5'"),
        (["--profile", "smoek"], "did you mean 'smoke'"),
        (["--nodes", "0"], "--nodes 0"),
    ],
)
def test_command_refuses_in_one_line(
    extra: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cluster", "render", "slurm", "--nodes", "1", "--cpus-per-node", "8", "--out", str(tmp_path / "launch")]
    assert run([*words, *extra]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "launch").exists()


def test_the_image_has_the_pinned_versions_the_nodes_environment_and_the_pods_group() -> None:
    from study.cluster.shape import NODE_ENVIRONMENT

    root = Path(__file__).parents[3]
    recipe = (root / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    copied = [word for line in recipe.splitlines() if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert all((root / name).exists() for name in copied)
    assert {"constraints.txt", "pyproject.toml", "study", "trainables", "search_spaces", "analysis"} <= set(copied)
    ignored = (root / ".dockerignore").read_text(encoding="utf-8").split()
    assert not set(copied) & set(ignored)
    installs = [line for line in recipe.splitlines() if "pip install" in line]
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)
    assert all(f"{name}={value}" in recipe for name, value in NODE_ENVIRONMENT.items())
    (group,) = re.findall(r"useradd .*--uid (\d+)", recipe)
    pod = manifests(GPU)["RayCluster"]["spec"]["headGroupSpec"]["template"]["spec"]
    assert pod["securityContext"]["fsGroup"] == int(group)
