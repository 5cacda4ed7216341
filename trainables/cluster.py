"""The Ray cluster a study runs on: joined or started, what it holds and may grow to, what its nodes see.

A cluster changes while a study runs: spot nodes go, others come, the launcher adds some when trials wait. So
how many trials run at once is asked again and again (`Room`), and never waited for without a limit.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.air.execution._internal import RayActorManager
from ray.tune.execution import class_cache
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from datasets.waits import seconds_of
from trainables.access import keep_token_private, of_this_machine, reachable, refuse_public
from trainables.allocator import ONE_ARENA

LAUNCHED = Path(
    "~/ray_bootstrap_config.yaml"
)  # where Ray's launcher leaves the cluster file, on the head node
ANSWER = 120.0  # s that a node has to say what it sees; it may have to start Python first
NODE_WAIT = 1800.0  # s that a study waits for a node that holds a trial
LOOK_AGAIN = 5.0  # s between two looks at the cluster's nodes

Resources = Mapping[str, float]


def connect(dashboard: bool) -> None:
    """Join the Ray cluster this runs on (RAY_ADDRESS, or one `ray start` made here); else start one on this
    machine, with a token of its own.

    Raises ValueError for a cluster of several nodes that takes commands without a token: whoever reaches its
    ports could run anything there; and for one with public addresses.
    """
    keep_token_private()
    ray.init(
        include_dashboard=dashboard,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {k: v for k, v in ONE_ARENA.items() if k not in os.environ}},
    )
    keep_token_private()
    # Ray sets the variable itself where it finds a token; "disabled" is somebody's own word.
    several = len(live_nodes()) > 1
    if several and not os.environ.get("RAY_AUTH_MODE"):
        raise ValueError(
            f"the Ray cluster at {ray.get_runtime_context().gcs_address} has no token: whoever reaches its "
            "ports can run anything there. Start it as clusters/README.md says, or set "
            "RAY_AUTH_MODE=disabled if its network is closed"
        )
    if several:
        refuse_public(addresses())


def addresses() -> list[str]:
    """Those of the nodes that are up."""
    return [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]


def outlive_memory_monitor() -> None:
    """Have Tune take a process that Ray's memory monitor killed for what it is, a dead process.

    Ray reports it as an OutOfMemoryError, which is none of the two kinds of error that Tune (2.60) knows: it
    would end the whole search with a traceback.
    """
    tunes = RayActorManager._actor_task_failed

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.OutOfMemoryError):
            exception = ray.exceptions.RayActorError(error_msg=str(exception))
        tunes(self, tracked_actor_task, exception)

    if tunes.__module__ != __name__:
        RayActorManager._actor_task_failed = failed  # type: ignore[method-assign]


def keep_credentials_out_of_logs() -> None:
    """Have Tune (2.60) not hand the driver's AWS_* on to trials: Ray writes what is handed on into its logs.

    Trials have those of the machine they run on.
    """
    secret = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(secret)


def anchor_elastic_training() -> None:
    """Start the actor that shares out an elastic range's workers on this node, the driver's.

    Ray 2.60 makes one for the whole cluster where the first trial's controller happens to run, bound to that
    node: when that one died every later trial asked it in vain, 4000 times a second and without end.
    """
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        get_or_create_autoscaling_coordinator,
    )

    get_or_create_autoscaling_coordinator()


def live_nodes() -> list[Resources]:
    """The resources of every node that is up."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def possible_nodes(live: Sequence[Resources], launched: Path = LAUNCHED) -> list[Resources]:
    """The nodes that are up, or, under Ray's launcher, the head and every node the launcher may add to it."""
    try:
        file = yaml.safe_load(launched.expanduser().read_text())
    except OSError:
        return list(live)
    kinds = file.get("available_node_types") or {}
    added = [
        kind.get("resources") or {}
        for name, kind in kinds.items()
        if name != file.get("head_node_type")
        for _ in range(kind.get("max_workers", 0))
    ]
    head = [node for node in live if "node:__internal_head__" in node]
    grown = head + added[: file.get("max_workers", len(added))]
    return max(list(live), grown, key=lambda nodes: (_sum(nodes, "GPU"), _sum(nodes, "CPU")))


def _sum(nodes: Iterable[Resources], kind: str) -> float:
    return sum(node.get(kind, 0.0) for node in nodes)


def trials_at_once(nodes: Sequence[Resources], workers: int, cpus: float, gpus: float) -> int:
    """How many trials of `workers` workers with `cpus` CPUs and `gpus` GPUs each the `nodes` hold.

    `nodes` are the resources of each; a worker lies on one node. Raises ValueError with the sums if they
    can't hold one.
    """
    needs = {kind: each for kind, each in (("CPU", cpus), ("GPU", gpus)) if each}
    places = sum(places_of(node, cpus, gpus) for node in nodes)
    if places >= workers:
        return places // workers
    asked = " and ".join(f"{workers} x {each:g} = {workers * each:g} {kind}s" for kind, each in needs.items())
    have = "; ".join(" and ".join(f"{node.get(kind, 0.0):g} {kind}s" for kind in needs) for node in nodes)
    raise ValueError(f"a trial needs {asked}, the cluster's nodes have {have or 'all gone'}")


def places_of(node: Resources, cpus: float, gpus: float) -> int:
    """How many workers with `cpus` CPUs and `gpus` GPUs each a node holds."""
    needs = {kind: each for kind, each in (("CPU", cpus), ("GPU", gpus)) if each}
    return min(int((node.get(kind, 0.0) + 1e-6) // each) for kind, each in needs.items())


@dataclass(frozen=True)
class Share:
    """What one trial takes: `workers` workers with `cpus` CPUs and `gpus` GPUs each, `least` of which will do
    (None: all); `at_once` is how many trials are wanted at a time (None: as many as fit)."""

    workers: int
    cpus: float
    gpus: float
    at_once: int | None = None
    least: int | None = None

    def fits(self, nodes: Sequence[Resources]) -> int:
        """How many trials at once: as many as wanted, also ones that wait for nodes still to come, else as
        many as there is room for. Raises ValueError with the sums if there is no room for one.

        A trial of several workers never waits: Ray Train gives up on workers that do not come in a minute.
        """
        if self.at_once is not None and self.workers == 1:
            return self.at_once
        return min(self.at_once or sys.maxsize, self.room(nodes))

    def room(self, nodes: Sequence[Resources]) -> int:
        """How many trials fit; one, of fewer workers, where all of its workers don't."""
        try:
            return trials_at_once(nodes, self.workers, self.cpus, self.gpus)
        except ValueError:
            if self.least is None:
                raise
            return min(1, trials_at_once(nodes, self.least, self.cpus, self.gpus))

    def on(self, node: Resources) -> int:
        """How many workers may come to lie on this one node."""
        wanted = sys.maxsize if self.at_once is None else self.at_once * self.workers
        return min(places_of(node, self.cpus, self.gpus), wanted)


def plan_of(share: Share) -> dict[str, Any]:
    """What a study's record says of its machines: {"concurrent", "nodes", "may_grow_to", "trial_takes"}."""
    live = live_nodes()
    possible = possible_nodes(live)
    each = f"{share.cpus:g} CPUs" + (f", {share.gpus:g} GPUs" if share.gpus else "")
    return {
        "concurrent": share.fits(possible),
        "nodes": shown(live),
        "may_grow_to": shown(possible) if shown(possible) != shown(live) else None,
        "trial_takes": f"{share.workers} x ({each})" + (f", at least {share.least}" if share.least else ""),
    }


def concerns(share: Share, each: float) -> list[str]:
    """What there is to say of the nodes that are up, for processes of `each` bytes: too little memory, public
    addresses; none of it stops a search."""
    return short_of_memory(share, live_nodes(), each) + reachable([*addresses(), *of_this_machine()])


def short_of_memory(share: Share, nodes: Sequence[Resources], each: float) -> list[str]:
    """A line with the sums for each kind of node whose memory is too small for the workers it may hold, of
    `each` bytes; none for GPU trials, whose memory Ray does not know, and for nodes to come.

    A warning and no refusal: the prediction is of some configurations, and what runs out of memory fails
    alone (trainables.failures).
    """
    said = {}
    for node in nodes if not share.gpus else ():
        count, has = share.on(node), node.get("memory", 0.0) + node.get("object_store_memory", 0.0)
        takes = count * each
        if count and has and takes > has:
            said[shown([node])] = (
                f"memory: {count} workers x {each / 1e9:.1f} GB = {takes / 1e9:.1f} GB on a node that has "
                f"{has / 1e9:.1f} GB; --trials-at-once makes them fewer, --set batch_size smaller"
            )
    return list(said.values())


class Room:
    """How many trials may run at once, as nodes come and go.

    Where no node is up that holds a trial, that is said once through `say`, and after `limit` seconds
    (SCENETUNE_NODE_WAIT; 30 minutes) the study ends with a TimeoutError; nothing finished is lost.
    """

    def __init__(self, share: Share, say: Callable[[str], object], limit: float | None = None) -> None:
        self.share, self._say = share, say
        self._limit = seconds_of("SCENETUNE_NODE_WAIT", NODE_WAIT) if limit is None else limit
        self._looked, self._room, self._since = -math.inf, 1, math.inf

    def __call__(self) -> int:
        now = time.monotonic()
        if now - self._looked >= LOOK_AGAIN:
            self._looked = now
            self._room = self._look(live_nodes(), now)
        return self._room

    def _look(self, live: Sequence[Resources], now: float) -> int:
        try:
            self.share.room(live)
            self._since = math.inf
        except ValueError as error:
            if self._since == math.inf:
                self._since = now
                self._say(f"waiting up to {self._limit / 60:.0f} min for a node: {error}")
            if now - self._since > self._limit:
                raise TimeoutError(
                    f"no node came up in {self._limit / 60:.0f} min (SCENETUNE_NODE_WAIT, in s): {error}"
                ) from None
        try:
            return self.share.fits(possible_nodes(live))
        except ValueError:
            return 1  # one that waits for a node shows the launcher what is missing


def check_nodes(study: Path, needed: Iterable[Path]) -> None:
    """Raises ValueError naming the node that lacks this project, has a public address, or does not see the
    same study folder or one of the `needed` paths; trials there would leave their results where nobody
    looks."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return
    asked = {
        node["NodeManagerAddress"]: ray.remote(num_cpus=0, max_retries=0)(seen)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(str(study.resolve() / "study.json"), [str(Path(path).resolve()) for path in needed])
        for node in nodes
    }
    expected = (study / "study.json").read_bytes()
    # All of them first: Ray writes of an answer that is still awaited when a search ends, as of a lost one
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER)
    for address, answer in asked.items():
        try:
            found, missing, listening = ray.get(answer, timeout=1.0)
        except ray.exceptions.GetTimeoutError:
            raise ValueError(f"node {address} gave no answer in {ANSWER:.0f} s") from None
        except ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[-1]
            raise ValueError(f"node {address} can't run this project: {cause}") from None
        refuse_public(listening)
        if found != expected:
            missing = [str(study.resolve())]
        if missing:
            raise ValueError(
                f"node {address} does not see {missing[0]}: studies and shards in folders must lie where "
                "every node sees them under one name, on NFS say; --study and --data name them"
            )


def seen(record: str, needed: Sequence[str]) -> tuple[bytes | None, list[str], list[str]]:
    """What a node finds: the bytes of the study's record, which of the `needed` paths are not there, and its
    own addresses."""
    found = Path(record).read_bytes() if Path(record).is_file() else None
    return found, [path for path in needed if not Path(path).exists()], of_this_machine()


def shown(nodes: Sequence[Resources]) -> str:
    """Nodes in a few words: 1 x (4 CPUs), 2 x (16 CPUs, 1 GPUs)."""
    kinds: dict[str, int] = {}
    for node in nodes:
        holds = [f"{node[kind]:g} {kind}s" for kind in ("CPU", "GPU") if node.get(kind)]
        words = ", ".join(holds) or "no CPUs"
        kinds[words] = kinds.get(words, 0) + 1
    return ", ".join(f"{count} x ({words})" for words, count in kinds.items())
