"""`ray up`, `ray submit`, a study, `ray down`: clusters/onprem.yaml as a user runs it, on machines reached
over real SSH. One cluster for all tests of this file, which run in their order."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hosts
import pandas as pd
import pytest
from launched import ROOT, Cluster

from searchspace.code_id import code_id

pytestmark = [pytest.mark.alone, pytest.mark.ssh, pytest.mark.ray, pytest.mark.slow]
QUICK = ["--set", "width=0.25", "batch_size=16"]
LOOK = "ray status; tail -n 20 /tmp/ray/session_latest/logs/monitor*"
NODES = (
    "python -c 'import ray; ray.init(); print(len([n for n in ray.nodes() if n[\"Alive\"]]))' 2> /dev/null"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Iterator[Cluster]:
    if why := hosts.missing():
        pytest.skip(why)
    made = Cluster(tmp_path_factory.mktemp("cluster"), 2, (shards,))
    try:
        up = made.ray("up", "-y", made.file)
        assert up.returncode == 0, up.stdout + up.stderr
        yield made
    finally:
        made.remove()


def wait_until(what: Callable[[], object], seconds: float, told: Callable[[], str] = lambda: "") -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"it never came to that in {seconds} s: {told()}"
        time.sleep(0.5)


def status(study: Path) -> str:
    record = study / "study.json"
    return json.loads(record.read_text())["status"] if record.is_file() else "not begun"


def test_a_machine_with_another_host_key_is_not_spoken_to(cluster: Cluster) -> None:
    line = next(line for line in cluster.file.read_text().splitlines() if "ssh -q -p" in line).strip()
    rest = cluster.file.read_text().split(line)[1].splitlines()[1].strip()
    proxy = f"{line} {rest}"
    address = cluster.hosts[0].address
    ssh = [
        "ssh",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
    ]
    ssh += ["-i", "~/.ssh/id_ed25519", "-o", f"ProxyCommand={proxy}", f"root@{address}", "echo", "reached"]
    assert "reached" in cluster.given(*ssh).stdout
    known = cluster.client.home / ".ssh" / "scenetune_hosts"
    right = known.read_text()
    try:
        known.write_text(f"[{address}]:{hosts.SSH_PORT} {(cluster.network.folder / 'id.pub').read_text()}")
        refused = cluster.given(*ssh)
        assert refused.returncode != 0 and "reached" not in refused.stdout
    finally:
        known.write_text(right)


def test_the_worker_joins(cluster: Cluster) -> None:
    head = cluster.hosts[0]
    joined = lambda: "raylet" in cluster.hosts[1].run("ps", "-e", "-o", "comm=").stdout  # noqa: E731
    wait_until(joined, 150, lambda: cluster.on(head, LOOK).stdout)
    wait_until(lambda: "2" in cluster.on(head, NODES).stdout.split(), 60)


def test_a_public_address_and_a_folder_that_one_node_lacks_are_refused(
    cluster: Cluster, shards: Path
) -> None:
    head, worker = cluster.hosts
    search = f"python ~/scenetune/tune_csem.py --data {shards} --trials 1 --no-dashboard --study"
    worker.run("ip", "address", "add", "141.20.5.6/32", "dev", "lo")
    try:
        done = cluster.on(head, f"{search} {cluster.shared / 'studies' / 'open'}")
        assert done.returncode == 2
        assert "error: a node has the public address 141.20.5.6: Ray's ports listen there" in done.stderr
    finally:
        worker.run("ip", "address", "del", "141.20.5.6/32", "dev", "lo")
    done = cluster.on(head, f"{search} ~/of-the-head-alone")
    assert done.returncode == 2
    assert f"error: node {worker.address} does not see {hosts.HOME}/of-the-head-alone" in done.stderr
    for refused in (cluster.shared / "studies" / "open", head.home / "of-the-head-alone"):
        assert not refused.exists()  # nothing is left of a study that never began


def test_a_search_over_both_nodes_with_arguments_that_arrive_whole(cluster: Cluster, shards: Path) -> None:
    study = cluster.shared / "studies" / 'it\'s $HOME; "quoted" & whole'
    # Long enough for the second machine's processes to start before the first has done all.
    asked = ["--family", "csem", "--data", shards, "--study", study, "--trials", "6", "--epochs", "40"]
    asked += ["--confirm", "1", "--seeds", "1", "--pruner", "none", *QUICK]
    done = cluster.given("bash", "clusters/submit.sh", cluster.file, "--", *asked, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "machines 2 x (2 CPUs)" in done.stdout and status(study) == "complete"
    git = json.loads((study / "study.json").read_text())["git"]
    assert git == {"commit": None, "dirty": False, "code": code_id(ROOT)}
    runs = pd.read_parquet(study / "trials.parquet")
    assert len(runs) == 7 and (runs["state"] == "COMPLETE").all()
    where = {json.loads((study / folder / "run.json").read_text())["node"] for folder in runs["folder"]}
    assert where == {"host1", "host2"}


def test_the_report_is_fetched_back(cluster: Cluster) -> None:
    study = cluster.shared / "studies" / 'it\'s $HOME; "quoted" & whole'
    study.rename(study.with_name("whole"))
    here = cluster.client.home / "fetched"
    done = cluster.ray(
        "rsync-down", cluster.file, f"{study.with_name('whole')}/", str(hosts.HOME / "fetched")
    )
    assert done.returncode == 0, done.stderr
    assert (here / "report.html").stat().st_size > 10_000 and (here / "best" / "model.safetensors").is_file()


def test_the_job_api_answers_those_who_have_the_token_and_nobody_else(cluster: Cluster) -> None:
    head = cluster.hosts[0]
    ask = "import sys, urllib.request as u; r = u.Request('http://127.0.0.1:8265/api/jobs/', headers=dict("
    ask += (
        "[('Authorization', 'Bearer ' + sys.argv[1])] if sys.argv[1:] else [])); print(u.urlopen(r).status)"
    )
    asked = f"python -c {shlex.quote(ask)}"
    assert "401" in cluster.on(head, asked).stderr
    assert (
        "401" in cluster.on(head, f"{asked} {'0' * 64}").stderr
        or "403" in cluster.on(head, f"{asked} 0").stderr
    )
    assert cluster.on(head, f"{asked} {cluster.token.read_text()}").stdout.strip() == "200"
    assert "refused" in cluster.on(cluster.hosts[1], asked.replace("127.0.0.1", head.address)).stderr.lower()


def test_no_node_starts_or_joins_without_the_token(cluster: Cluster) -> None:
    head, worker = cluster.hosts
    listens = "RAY_AUTH_TOKEN_PATH=/nowhere ray start --head --port=6390 --dashboard-port=8290"
    refused = cluster.on(worker, listens)
    assert refused.returncode != 0 and "token" in (refused.stdout + refused.stderr).lower()
    ask = f"python -c 'import ray; ray.init(\"{head.address}:6379\"); print(ray.nodes())'"
    for token in ("", "0" * 64):
        stranger = cluster.on(worker, f"RAY_AUTH_TOKEN_PATH=/nowhere RAY_AUTH_TOKEN={token} timeout 60 {ask}")
        assert stranger.returncode != 0 and "NodeID" not in stranger.stdout


@pytest.mark.timeout(600)
def test_detached_through_a_cut_of_the_network_and_a_killed_worker_the_study_ends_complete(
    cluster: Cluster, shards: Path
) -> None:
    study, (head, worker) = cluster.shared / "studies" / "detached", cluster.hosts
    asked = ["--data", shards, "--study", study, "--trials", "3", "--epochs", "300", "--confirm", "0"]
    asked += ["--pruner", "none", *QUICK]
    begun = cluster.given("bash", "clusters/submit.sh", cluster.file, "--tmux", "--", *asked)
    assert begun.returncode == 0 and "ray attach" in begun.stdout, begun.stdout + begun.stderr
    screen = lambda: cluster.on(head, "tmux capture-pane -p -S -200").stdout  # noqa: E731 - what `ray attach --tmux` shows

    def nodes_at_work() -> set[str]:
        return {
            json.loads((path.parent / "run.json").read_text())["node"]
            for path in study.glob("runs/*/epochs.jsonl")
            if path.read_text()
        }

    wait_until(lambda: "host2" in nodes_at_work(), 120, screen)
    cluster.network.cut(worker)
    time.sleep(30)
    cluster.network.mend(worker)
    wait_until(lambda: len(nodes_at_work()) == 2, 60, screen)
    worker.kill()
    wait_until(lambda: status(study) != "running", 300, screen)
    assert status(study) == "complete", screen()
    runs = pd.read_parquet(study / "trials.parquet")
    assert len(runs) == 3 and (runs["state"] == "COMPLETE").all() and (runs["epochs"] == 300).all()
    assert "starts again" in screen()


def test_a_job_is_submitted_over_http_and_its_arguments_are_whole(cluster: Cluster) -> None:
    command = ["ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--", "python", "~/tune_csem.py"]
    command[-1] = str(hosts.HOME / "scenetune" / "tune_csem.py")
    done = cluster.on(cluster.hosts[0], shlex.join([*command, "--data", "/no such/folder's $HOME"]))
    assert "/no such/folder's $HOME: no such folder" in done.stdout + done.stderr
    assert "failed" in done.stdout.lower() and done.returncode != 0


def test_ray_down_leaves_no_ray_process_on_the_head(cluster: Cluster) -> None:
    down = cluster.ray("down", "-y", cluster.file)
    assert down.returncode == 0, down.stdout + down.stderr
    left = cluster.hosts[0].run("ps", "-e", "-o", "comm=").stdout
    assert "raylet" not in left and "gcs_server" not in left
