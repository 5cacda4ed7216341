"""A data-parallel trial: a Tune function that runs a Ray Train worker group with the same engine and run
folder."""

from __future__ import annotations

from typing import Any

import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from searchspace.study import Job
from trainables.allocator import keep_freed_pages
from trainables.trial import Place, advance, noted, open_run


def data_parallel_trial(config: dict[str, Any], *, cpus: float) -> None:
    """Run one job on `place.workers` workers with `cpus` CPUs (and `place.gpus` GPUs) each; rank 0 reports
    every epoch."""
    place = Place(**config["place"])
    TorchTrainer(
        work,
        train_loop_config=config,
        scaling_config=train.ScalingConfig(
            num_workers=place.workers,
            use_gpu=place.gpus > 0,
            resources_per_worker={"CPU": cpus} | ({"GPU": place.gpus} if place.gpus else {}),
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
            result = advance(folder, job)
            train.report(result)
            if folder.finished or "diverged" in result:
                return
