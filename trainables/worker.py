"""A data-parallel trial: a Tune function that runs a Ray Train worker group with the same engine and run
folder."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from searchspace.study import Job
from trainables.allocator import keep_freed_pages
from trainables.folder import RunFolder
from trainables.trial import LATENCY, STOP, Place, advance, ends, named, noted, open_run

DRIVER_CPUS = 0.01  # of the trial's share; Tune places nothing that needs no CPU at all


def data_parallel_trial(config: dict[str, Any], *, cpus: float) -> None:
    """Run one job on `place.workers` workers with `cpus` CPUs (and `place.gpus` GPUs) each; rank 0 reports
    every epoch."""
    place = Place(**config["place"])
    least = place.least_workers or place.workers
    workers = (least, place.workers) if least < place.workers else place.workers
    TorchTrainer(
        work,
        train_loop_config=config,
        scaling_config=train.ScalingConfig(
            num_workers=workers,  # type: ignore[arg-type]  # Ray's own annotation lacks the elastic range
            use_gpu=place.gpus > 0,
            resources_per_worker={"CPU": cpus - DRIVER_CPUS} | ({"GPU": place.gpus} if place.gpus else {}),
        ),
        torch_config=TorchConfig(backend="nccl" if place.gpus else "gloo"),
        run_config=train.RunConfig(
            name=config["job"]["folder"].replace("/", "-"),
            storage_path=f"{place.study}/.ray/train",
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]  # Ray declares two Callback classes
        ),
    ).fit()


def work(config: dict[str, Any]) -> None:
    """What every worker does: epochs until done, each rank its share of every batch."""
    job, place, context = Job(**config["job"]), Place(**config["place"]), train.get_context()
    torch.set_num_threads(place.threads)
    keep_freed_pages()
    device = str(train.torch.get_device()) if place.gpus else "cpu"
    rank, world = context.get_world_rank(), context.get_world_size()
    with noted(job, place):
        folder = open_run(job, place, rank=rank, world=world, device=device)
        while True:
            named(f"RayTrainWorker:rank-{rank}", job, folder.run.epoch + 1)
            result = advance(folder, job, latency=place.second == LATENCY)
            train.report(result)
            if ends(folder, job) or "diverged" in result or told_to_stop(folder):
                return


def told_to_stop(folder: RunFolder) -> bool:
    """Whether the first rank sees the STOP file. Every rank gets the same answer, lest some wait for ever."""
    answer = [(folder.path / STOP).exists()]
    dist.broadcast_object_list(answer, src=0)
    return answer[0]
