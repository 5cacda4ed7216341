"""How fast clips come, as ratios measured in one run.

    python tests/benchmarks/bench_data.py [--shards SHARDS] [--repeats 5]

    stream / bare      the streaming reader against a bare loop decoding the same files (target ≥ 0.9)
    webdataset / bare  webdataset's own pipeline (shuffle, the same decoder, batched) on the same tars
    cache / stream     an epoch from the cache against a streamed one
    data wait          share of a TinyCNN-like epoch spent waiting for cached batches of 64 (target < 0.05)

All decode in one thread. Medians over rounds in which they take turns, so that a busy machine disturbs
all alike.
Without --shards, 512 generated clips of 10 s at 16 kHz are used.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
import tyro
import webdataset
from torch import nn

from datasets import synthetic
from datasets.batch import Batch
from datasets.shards import Index, read_members
from datasets.source import open_source
from trainables.allocator import keep_freed_pages

BATCH = 64
RATIOS = (("stream", "bare"), ("webdataset", "bare"), ("cache", "stream"))


def bare_loop(files: list[Path]) -> int:
    """Decode each file to float32 and forget it."""
    for path in files:
        soundfile.read(path, dtype="float32", always_2d=True)
    return len(files)


def webdataset_pipeline(index: Index) -> int:
    """What a webdataset user would write, with the same decoder."""

    def audio(data: bytes) -> np.ndarray:
        samples = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T
        return np.pad(samples, ((0, 0), (0, index.samples - samples.shape[1])))

    urls = [str(index.root / shard.name) for shard in index.split("train").shards]
    data = webdataset.WebDataset(urls, shardshuffle=False).shuffle(1000).to_tuple("flac", "json")
    batches = data.map_tuple(audio, lambda labels: labels).batched(BATCH)
    return sum(len(waveforms) for waveforms, _ in batches)


def count(batches: Iterator[Batch]) -> int:
    return sum(len(batch) for batch in batches)


def data_wait(batches: Iterator[Batch], model: nn.Module) -> float:
    """The share of an epoch of forward and backward passes that goes by before the next batch is there."""
    waited, start = 0.0, time.perf_counter()
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            return waited / (time.perf_counter() - start)
        model(batch.waveform).square().mean().backward()


class TinyCNN(nn.Module):
    """Log spectrogram of 46.4 ms every 31.2 ms, 64 of its bins, and TinyCNN's two 7 x 7 convolutions."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.window, self.hop = round(0.0464 * sample_rate), round(0.0312 * sample_rate)
        self.first, self.second = nn.Conv2d(1, 32, 7, padding=1), nn.Conv2d(32, 64, 7, padding=1)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        window = torch.hamming_window(self.window)
        x = torch.stft(waveform.mean(1), 1024, self.hop, self.window, window, return_complex=True)
        x = (x.abs()[:, :64] + 1e-8).log().transpose(1, 2)[:, None]  # (B, 1, T, 64)
        x = nn.functional.max_pool2d(self.first(x).relu(), 5)
        return nn.functional.max_pool2d(self.second(x).relu(), 5)


def measure(jobs: dict[str, Callable[[], int]], repeats: int) -> dict[str, tuple[float, float]]:
    """{name: (clips a second, clips a CPU second)}, medians of `repeats` rounds in which every job runs once.

    CPU seconds leave out what other programs take from a busy machine.
    """
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # once to warm the page cache
    for _ in range(repeats):
        for name, job in jobs.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            clips = job()
            wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
            speeds[name].append((clips / wall, clips / cpu))
    return {name: tuple(map(statistics.median, zip(*values))) for name, values in speeds.items()}  # type: ignore[misc]


def main(shards: Path | None = None, repeats: int = 5) -> None:
    """Print the ratios of the module's docstring.

    Args:
        shards: a shard set; default: generated clips
        repeats: rounds
    """
    keep_freed_pages()  # as every training process does
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shards is None:
            shards = folder / "shards"
            synthetic.build(shards, train=512, val=10, test=10, seconds=10.0)
        index = Index.load(shards)
        files = unpack(index, folder)
        streamed = open_source(shards, cache=None)
        start = time.perf_counter()
        cached = open_source(shards, cache=folder / "cache")
        built = time.perf_counter() - start
        speed = measure(
            {
                "bare": lambda: bare_loop(files),
                "stream": lambda: count(streamed.train_batches(BATCH, epoch=0, seed=0)),
                "webdataset": lambda: webdataset_pipeline(index),
                "cache": lambda: count(cached.train_batches(BATCH, epoch=0, seed=0)),
            },
            repeats,
        )
        model = TinyCNN(index.sample_rate)
        waits = [data_wait(cached.train_batches(BATCH, epoch=e, seed=0), model) for e in range(3)]
    print(
        f"{len(files)} clips of {index.samples / index.sample_rate:g} s, {index.sample_rate} Hz, "
        f"{index.channels} channel(s)"
    )
    for name, (wall, cpu) in speed.items():
        print(f"  {name:18}{wall:8.0f} clips/s {cpu:8.0f} clips/CPU-s")
    print(f"  cache built in {built:.2f} s")
    for top, bottom in RATIOS:
        wall, cpu = (a / b for a, b in zip(speed[top], speed[bottom]))
        print(f"  {top} / {bottom}: {wall:.2f} by wall time, {cpu:.2f} by CPU time")
    print(f"  data wait of a cached TinyCNN epoch: {statistics.median(waits):.4f}")


def unpack(index: Index, folder: Path) -> list[Path]:
    """The training clips' audio as single files, for the bare loop."""
    paths = []
    for number in range(index.split("train").clips):
        members = read_members(index, "train", number)
        suffix = next(s for s in members if s in ("flac", "wav"))
        paths.append(folder / f"{number}.{suffix}")
        paths[-1].write_bytes(members[suffix])
    return paths


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
