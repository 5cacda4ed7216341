"""How fast clips come, as ratios measured in one run.

    python tests/benchmarks/bench_data.py [--shards SHARDS] [--repeats 5] [--no-ray]

    limit        libsndfile decoding the same clips from memory into one buffer, in one process and in two
    stream       our streaming reader, with one and with two workers (threads)
    webdataset   webdataset's own pipeline: shards, shuffle, the same decoder, batches; with two workers in
                 torch's DataLoader
    files        one file a clip, torch's DataLoader, shuffled
    ray          ray.data.read_webdataset on two cores, shuffled in a window, batches
    cache        an epoch from our cache, and building it

Everything makes batches of 64 float waveforms with their labels. Medians over rounds in which the readers
take turns, so that a busy machine disturbs all alike. CPU time is that of all processes of a reader and
leaves out what other programs take. Targets: stream at 0.9 of the limit of as many processes and ahead of the
other three; the cache built at decoding speed and read at 10 times that. Without --shards, 512 generated
clips of 10 s at 16 kHz are used.
"""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
import torch
import tyro
import webdataset
from torch import nn
from torch.utils.data import DataLoader, Dataset

from datasets import synthetic
from datasets.batch import Batch
from datasets.cache import open_cached
from datasets.shards import Index, read_members
from datasets.source import open_source
from trainables.allocator import keep_freed_pages

BATCH, WORKERS, WINDOW = 64, 2, 1000
Speed = tuple[float, float]
"""Clips a second of wall time, clips a second of CPU time."""


def decode_all(clips: Sequence[bytes], index: Index) -> int:
    """The limit: decode each clip into the same memory and forget it."""
    memory = np.empty((index.samples, index.channels), dtype=np.float32)
    for data in clips:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            file.read(dtype="float32", always_2d=True, out=memory[: file.frames])
    return len(clips)


_HELD: list[bytes] = []  # what forked processes decode, without sending it to them


def _decode_part(part: int, index: Index) -> int:
    return decode_all(_HELD[part::WORKERS], index)


def decode_in_processes(index: Index) -> int:
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork")) as pool:
        return sum(pool.map(_decode_part, range(WORKERS), [index] * WORKERS))


def waveform(data: bytes, samples: int) -> np.ndarray:
    """(C, samples) float32, as a user of any library would decode it."""
    found = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T
    return np.pad(found, ((0, 0), (0, samples - found.shape[1])))


def webdataset_epoch(index: Index, workers: int) -> int:
    """What a user of webdataset would write, with the same decoder."""
    urls = [str(index.root / shard.name) for shard in index.split("train").shards]
    data = webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False).shuffle(WINDOW)
    data = data.to_tuple("flac;wav", "json").map_tuple(lambda a: waveform(a, index.samples), json.loads)
    batches = data.batched(BATCH)
    if workers:
        batches = DataLoader(batches, batch_size=None, num_workers=workers)
    return sum(len(waveforms) for waveforms, _ in batches)


class Files(Dataset):
    """One file a clip, its labels in a table."""

    def __init__(self, files: Sequence[Path], labels: Sequence[bytes], samples: int) -> None:
        self.files, self.labels, self.samples = files, labels, samples

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, str]:
        labels = json.loads(self.labels[number])
        return torch.from_numpy(waveform(self.files[number].read_bytes(), self.samples)), str(labels["scene"])


def files_epoch(data: Files, workers: int) -> int:
    batches = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=workers)
    return sum(len(waveforms) for waveforms, _ in batches)


def ray_epoch(index: Index) -> int:
    """What a user of Ray Data would write."""
    import ray

    samples = index.samples

    def decode(sample: dict[str, Any]) -> dict[str, Any]:
        audio = next(sample[name] for name in ("flac", "wav") if name in sample)
        found = soundfile.read(io.BytesIO(audio), dtype="float32", always_2d=True)[0].T
        padded = np.pad(found, ((0, 0), (0, samples - found.shape[1])))
        return {"waveform": padded, "scene": str(json.loads(sample["json"])["scene"])}

    paths = [str(index.root / shard.name) for shard in index.split("train").shards]
    data = ray.data.read_webdataset(paths, decoder=decode, shuffle="files")
    batches = data.iter_batches(batch_size=BATCH, batch_format="numpy", local_shuffle_buffer_size=4 * BATCH)
    return sum(len(batch["waveform"]) for batch in batches)


def count(batches: Iterable[Batch]) -> int:
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

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        window = torch.hamming_window(self.window)
        fft = 1 << (self.window - 1).bit_length()
        x = torch.stft(sound.mean(1), fft, self.hop, self.window, window, return_complex=True)
        x = (x.abs()[:, :64] + 1e-8).log().transpose(1, 2)[:, None]  # (B, 1, T, 64)
        x = nn.functional.max_pool2d(self.first(x).relu(), 5)
        return nn.functional.max_pool2d(self.second(x).relu(), 5)


def cpu_seconds() -> float:
    """Of this process, the children that have ended, and those that still run (Ray's)."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            spent = child.cpu_times()
            total += spent.user + spent.system
        except psutil.Error:
            pass
    return total


def measure(jobs: dict[str, Callable[[], int]], repeats: int) -> dict[str, Speed]:
    """Medians of `repeats` rounds in which every job runs once, after one that warms the page cache."""
    speeds: dict[str, list[Speed]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            start, start_cpu = time.perf_counter(), cpu_seconds()
            clips = job()
            wall, cpu = time.perf_counter() - start, cpu_seconds() - start_cpu
            if turn:
                speeds[name].append((clips / wall, clips / cpu))
    return {
        name: (median(s[0] for s in found), median(s[1] for s in found)) for name, found in speeds.items()
    }


def median(values: Iterable[float]) -> float:
    return statistics.median(list(values))


def readers(index: Index, folder: Path) -> dict[str, Callable[[], int]]:
    """Every reader but Ray by name; the cache is built for its own."""
    paths, labels = unpack(index, folder)
    _HELD[:] = [path.read_bytes() for path in paths]
    files = Files(paths, labels, index.samples)
    one, two = open_source(index.root, cache=None), open_source(index.root, cache=None, workers=WORKERS)
    cached = open_source(index.root, cache=folder / "cache")
    fresh = iter(range(10**6))
    return {
        "limit, 1 process": lambda: decode_all(_HELD, index),
        "stream, 1 worker": lambda: count(one.train_batches(BATCH, epoch=0, seed=0)),
        "webdataset, 0 workers": lambda: webdataset_epoch(index, 0),
        "files, 0 workers": lambda: files_epoch(files, 0),
        f"limit, {WORKERS} processes": lambda: decode_in_processes(index),
        f"stream, {WORKERS} workers": lambda: count(two.train_batches(BATCH, epoch=0, seed=0)),
        f"webdataset, {WORKERS} workers": lambda: webdataset_epoch(index, WORKERS),
        f"files, {WORKERS} workers": lambda: files_epoch(files, WORKERS),
        "cache, built": lambda: len(open_cached(index, "train", folder / f"cache{next(fresh)}", WORKERS)),
        "cache, read": lambda: count(cached.train_batches(BATCH, epoch=0, seed=0)),
    }


def with_ray(index: Index, repeats: int) -> dict[str, Speed]:
    """Ray after the others: its processes would take time from them."""
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        return measure({f"ray, {WORKERS} cores": lambda: ray_epoch(index)}, repeats)
    finally:
        ray.shutdown()


def table(speed: dict[str, Speed]) -> str:
    """Each reader beside the limit of as many processes."""
    lines = [f"  {'':24}{'clips/s':>9}{'of limit':>10}{'clips/CPU-s':>13}{'of limit':>10}"]
    for name, (wall, cpu) in speed.items():
        alone = name.endswith(("1 process", "0 workers", "1 worker", "read"))
        limit = speed["limit, 1 process" if alone else f"limit, {WORKERS} processes"]
        lines.append(f"  {name:24}{wall:9.0f}{wall / limit[0]:10.2f}{cpu:13.0f}{cpu / limit[1]:10.2f}")
    return "\n".join(lines)


def unpack(index: Index, folder: Path) -> tuple[list[Path], list[bytes]]:
    """The training clips' audio as single files, and their labels."""
    paths, labels = [], []
    for number in range(index.split("train").clips):
        members = read_members(index, "train", number)
        suffix = next(s for s in members if s in ("flac", "wav"))
        paths.append(folder / f"{number}.{suffix}")
        paths[-1].write_bytes(members[suffix])
        labels.append(members["json"])
    return paths, labels


def main(shards: Path | None = None, repeats: int = 5, ray: bool = True) -> None:
    """Print the table of the module's docstring.

    Args:
        shards: a shard set; default: generated clips
        repeats: rounds
        ray: with Ray Data
    """
    keep_freed_pages()  # as every training process does
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shards is None:
            shards = folder / "shards"
            synthetic.build(shards, train=512, val=10, test=10, seconds=10.0, shard_bytes=8 * 2**20)
        index = Index.load(shards)
        load = os.getloadavg()
        jobs = readers(index, folder)
        speed = measure(jobs, repeats)
        model, cached = TinyCNN(index.sample_rate), open_source(shards, cache=folder / "cache")
        waits = [data_wait(cached.train_batches(BATCH, epoch=e, seed=0), model) for e in range(3)]
        if ray:
            speed |= with_ray(index, repeats)
    print(
        f"{index.split('train').clips} clips of {index.samples / index.sample_rate:g} s, "
        f"{index.sample_rate} Hz, {index.channels} channel(s), {len(index.split('train').shards)} shards; "
        f"{os.cpu_count()} cores, load {load[0]:.1f} before, {os.getloadavg()[0]:.1f} after; "
        f"medians of {repeats}"
    )
    print(table(speed))
    print(f"  data wait of a cached TinyCNN epoch: {statistics.median(waits):.4f} of its time")


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
