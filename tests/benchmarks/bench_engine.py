"""Our epoch against a plain PyTorch loop on the same model and the same tensors.

    python tests/benchmarks/bench_engine.py [--backbone tinycnn] [--clips 640] [--seconds 2] [--repeats 5]
    [--device cpu]

Both train `--clips` generated clips in batches of 64 with Adam, clipping and the same loss terms; ours also
logs every term, times the data, checks every loss for NaN and can accumulate, mix and schedule. Prints the
ratio of the medians (ours / plain speed; 1 is equal, the target is at least 0.95).
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
import tyro
from torch import nn

from datasets.batch import Batch
from datasets.labels import LabelSpace
from trainables.contract import AudioFormat
from trainables.engine import train_epoch
from trainables.recipe import configure
from trainables.registry import family


@dataclass
class Request:
    backbone: str = "tinycnn"
    width: float = 1.0
    clips: int = 640
    seconds: float = 2.0
    repeats: int = 5
    threads: int = 1
    device: str = "cpu"


def plain_epoch(model: nn.Module, batches: list[Batch], optimiser: torch.optim.Optimizer) -> float:
    """What one would write in a notebook for cSEM: the four losses, clipping, a step."""
    model.train()
    running = 0.0
    for batch in batches:
        optimiser.zero_grad()
        out = model(batch.waveform)
        log_scene = out.scene_logits.log_softmax(1)
        events = out.event_logits.sigmoid()
        scene = -(log_scene * batch.scene).sum(1).mean()
        event = nn.functional.binary_cross_entropy(events, batch.events)
        scene_from_event = nn.functional.mse_loss(out.scene_from_event, log_scene)
        event_from_scene = nn.functional.mse_loss(out.event_from_scene, events)
        loss = scene + 0.5 * event + 0.01 * scene_from_event + 0.01 * event_from_scene
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        running += loss.item()
    return running / len(batches)


def main(request: Request) -> None:
    torch.set_num_threads(request.threads)
    torch.manual_seed(0)
    labels = LabelSpace(tuple(f"s{i}" for i in range(10)), tuple(f"e{i}" for i in range(32)))
    samples = int(16000 * request.seconds)
    audio = AudioFormat(16000, 1, samples)
    config, _ = configure("csem", {"backbone": request.backbone, "width": request.width})
    fam = family("csem")
    size = 64
    batches = [
        Batch(
            torch.randn(size, 1, samples) * 0.1,
            torch.eye(10)[torch.randint(10, (size,))],
            (torch.rand(size, 32) > 0.9).float(),
            torch.ones(size, 32),
            torch.arange(size),
        ).to(request.device)
        for _ in range(request.clips // size)
    ]

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = fam.build(config, labels, audio).to(request.device)
        return model, torch.optim.Adam(model.parameters(), lr=1e-3)

    def ours() -> None:
        train_epoch(
            ours_model.train(), list(ours_model.parameters()), fam.terms(config), fam.weights(config),
            batches, ours_optimiser, learning_rate=lambda update: 1e-3, first_update=0, steps=len(batches),
            clip_norm=5.0,
        )  # fmt: skip

    (ours_model, ours_optimiser), (plain_model, plain_optimiser) = fresh(), fresh()
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for repeat in range(request.repeats + 1):
        for name, run in (
            ("ours", ours),
            ("plain", lambda: plain_epoch(plain_model, batches, plain_optimiser)),
        ):
            started = time.perf_counter()
            run()
            if request.device == "cuda":
                torch.cuda.synchronize()
            if repeat:  # the first of each warms up
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{request}")
    for name, median in medians.items():
        speed = len(batches) * size / median
        print(
            f"{name:6s} {median:7.3f} s an epoch, {speed:8.0f} clips/s  {[round(t, 3) for t in times[name]]}"
        )
    print(f"ours / plain speed: {medians['plain'] / medians['ours']:.3f}")


if __name__ == "__main__":
    main(tyro.cli(Request))
