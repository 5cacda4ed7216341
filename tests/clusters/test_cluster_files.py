"""Every cluster file against the schema of those who read it; nothing is started."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private import util

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "clusters"
LAUNCHED = ["cpu", "gcp-gpu", "gpu", "onprem"]
# The fields of KubeRay's ray.io/v1 kinds (v1.5) as far as a user writes them.
RAY_JOB = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint",
    "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata",
    "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig",
    "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
}  # fmt: skip
RAY_CLUSTER = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions",
    "headGroupSpec", "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "workerGroupSpecs",
}  # fmt: skip
HEAD_GROUP = {
    "enableIngress",
    "headService",
    "labels",
    "rayStartParams",
    "resources",
    "serviceType",
    "template",
}
WORKER_GROUP = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams",
    "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip


def text(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text()


def loaded(name: str) -> dict[str, Any]:
    return yaml.safe_load(text(name))


def commands(config: Mapping[str, Any]) -> str:
    return "\n".join(line for key, lines in config.items() if key.endswith("_commands") for line in lines)


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_accepts_the_file(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = loaded(name)
    for remote, local in config["file_mounts"].items():  # what a user makes first lies in the home folder
        if local.startswith("~"):
            (tmp_path / local[2:]).parent.mkdir(exist_ok=True)
            (tmp_path / local[2:]).write_text("x")
        else:
            assert (ROOT / local).exists() and remote == f"~/scenetune/{local}"
    prepared = util.prepare_config(copy.deepcopy(config))
    util.validate_config(prepared)
    with pytest.raises(jsonschema.ValidationError, match="rsync_excludes"):  # the check can fail
        util.validate_config(prepared | {"rsync_excludes": []})


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_whole_project_goes_to_every_node(name: str) -> None:
    mounted = {local for local in loaded(name)["file_mounts"].values() if not local.startswith("~")}
    packages = yaml.safe_load(
        re.search(r"^packages = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.M)[1]
    )  # type: ignore[index]
    assert {package.split(".")[0] for package in packages} <= mounted
    assert {"tune_csem.py", "pyproject.toml", "constraints.txt", "README.md", "clusters"} <= mounted


@pytest.mark.parametrize("name", LAUNCHED)
def test_nothing_starts_without_a_token_and_nothing_but_ssh_is_open(name: str) -> None:
    config = loaded(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == f"~/.ray/{config['cluster_name']}.token"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = (line for line in config[key] if "ray start" in line)
        assert re.search(r"export RAY_AUTH_MODE=token\b.*ray start", start)
    assert "--dashboard-host=127.0.0.1" in commands(config) and "0.0.0.0" not in commands(config)
    rules = config["provider"].get("security_group", {}).get("IpPermissions", [])
    assert all(rule["FromPort"] == rule["ToPort"] == 22 for rule in rules)
    assert rules or config["provider"]["type"] != "aws"


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_file_opens_with_the_commands_that_use_it(name: str) -> None:
    opening = text(name).split("cluster_name:")[0]
    for command in ("ray up", "ray submit", "ray rsync-down", "ray down"):
        assert (
            f"{command} clusters/{name}.yaml" in opening
            or f"{command} --tmux clusters/{name}.yaml" in opening
        )
    assert "Cost" in opening and "minute" in opening and f"{loaded(name)['cluster_name']}.token" in opening
    for word in re.findall(r"\b[A-Z]{2,}_[A-Z_]+\b", commands(loaded(name))):
        assert word in opening or word.startswith("RAY_"), f"{word} is to be changed, and nobody says so"


@pytest.mark.parametrize("name", ["gpu", "gcp-gpu"])
def test_the_head_of_a_gpu_cluster_takes_no_trials_and_workers_come_as_they_are_needed(name: str) -> None:
    kinds = loaded(name)["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    assert kinds["worker"]["min_workers"] == 0 and kinds["worker"]["resources"]["GPU"] == 1
    assert kinds["worker"]["max_workers"] == loaded(name)["max_workers"]


def test_kuberay_fields_are_those_of_its_definitions() -> None:
    documents = {d["kind"]: d for d in yaml.safe_load_all(text("kuberay"))}
    job, cluster = documents["RayJob"]["spec"], documents["RayCluster"]["spec"]
    assert job.keys() <= RAY_JOB and documents["RayJob"]["apiVersion"] == "ray.io/v1"
    claim = documents["PersistentVolumeClaim"]["metadata"]["name"]
    for spec in (job["rayClusterSpec"], cluster):
        assert spec.keys() <= RAY_CLUSTER and spec["authOptions"] == {"mode": "token"}
        assert (
            spec["headGroupSpec"].keys() <= HEAD_GROUP and spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        )
        groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        for group in groups[1:]:
            assert group.keys() <= WORKER_GROUP
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        for group in groups:
            pod = group["template"]["spec"]
            assert all(isinstance(value, str) for value in group["rayStartParams"].values())
            assert pod["volumes"] == [{"name": "shared", "persistentVolumeClaim": {"claimName": claim}}]
            assert (
                pod["containers"][0]["resources"]["limits"] == pod["containers"][0]["resources"]["requests"]
            )
    installed = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert installed and cluster["rayVersion"] == installed[1]
    assert f"ray:{installed[1]}-" in (FOLDER / "Dockerfile").read_text()


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_well_formed(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], capture_output=True).returncode == 0
    assert "set -euo pipefail" in script.read_text()
    checker = shutil.which("shellcheck")
    if checker:
        checked = subprocess.run([checker, str(script)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_slurm_options_precede_the_first_command() -> None:
    lines = (FOLDER / "slurm.sh").read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    asked = [line for line in lines if line.startswith("#SBATCH")]
    assert asked and asked == [line for line in lines[:first] if line.startswith("#SBATCH")]
