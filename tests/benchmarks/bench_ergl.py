"""The graph part of ERGL: python tests/benchmarks/bench_ergl.py [--device cuda]

Forward and backward of learned edges and two graph layers on nodes of 64 numbers, one thread, the least
process CPU time of several steps (the figure that other processes disturb least), against

    copies   the order of work of ME-GraphAU, which ERGL cites: every pair's tokens are copied n² times before
             queries, keys and values are projected, and the graph layers gather by one-hot products (n² × n)
    loop     a Python loop over the pairs

All three have the same attention, edges and layers of the same widths; `copies` and `loop` are written here.
On a GPU it is the wall time of a step that ends when the device has, and the peak of the memory it holds.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.parts.event_graph import ChannelEdges, ConstantEdges, GatedGraphConvolution, TimeEdges

WIDTH, LAYERS, STEPS = 64, 2, 10
CASES = ((4, 10), (4, 25), (4, 50), (4, 100), (1, 400))


class Attention(nn.Module):
    """queries (M, D, C), keys (M, L, C) → (M, D, C), one head of C / 2 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, w) for w in (WIDTH // 2, WIDTH // 2, WIDTH))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        scores = self.q(queries) @ self.k(keys).transpose(-1, -2) / math.sqrt(WIDTH // 2)
        return scores.softmax(-1) @ self.v(keys)


class CopiedEdges(nn.Module):
    """tokens (B, n, D, C) → edges (B, n², C)"""

    def __init__(self) -> None:
        super().__init__()
        self.context, self.pair = Attention(), Attention()

    def forward(self, tokens: Tensor) -> Tensor:
        batch, n, steps, width = tokens.shape
        everything = tokens.reshape(batch, 1, n * steps, width).expand(-1, n, -1, -1)
        aware = self.context(tokens.flatten(0, 1), everything.flatten(0, 1)).view_as(tokens)
        ends = aware.repeat_interleave(n, 1)  # n² copies
        starts = aware.repeat(1, n, 1, 1)
        met = self.pair(starts.flatten(0, 1), ends.flatten(0, 1))
        return met.mean(1).view(batch, n * n, width)


class OneHotLayer(nn.Module):
    """nodes (B, n, C), edges (B, n², C): a gated layer that gathers and scatters with (n², n) matrices."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.own, self.sent, self.start, self.end, self.edges = (nn.Linear(WIDTH, WIDTH) for _ in range(5))
        self.node_norm, self.edge_norm = nn.BatchNorm1d(n), nn.BatchNorm1d(n * n)
        eye = torch.eye(n)
        self.register_buffer("ends", eye.repeat_interleave(n, 0))
        self.register_buffer("starts", eye.repeat(n, 1))

    def forward(self, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        start = torch.einsum("en,bnc->bec", self.starts, self.start(nodes))
        end = torch.einsum("en,bnc->bec", self.ends, self.end(nodes))
        edges = edges + F.relu(self.edge_norm(self.edges(edges) + start + end))
        gate = edges.sigmoid()
        sent = torch.einsum("en,bnc->bec", self.starts, self.sent(nodes))
        received = torch.einsum("en,bec->bnc", self.ends, gate * sent)
        total = torch.einsum("en,bec->bnc", self.ends, gate)
        return nodes + F.relu(self.node_norm(self.own(nodes) + received / (total + 1e-6))), edges


class LoopedEdges(CopiedEdges):
    """One pair after another."""

    def forward(self, tokens: Tensor) -> Tensor:
        batch, n, steps, width = tokens.shape
        everything = tokens.reshape(batch, n * steps, width)
        aware = [self.context(tokens[:, i], everything) for i in range(n)]
        return torch.stack([self.pair(aware[j], aware[i]).mean(1) for i in range(n) for j in range(n)], 1)


def ours(edges: nn.Module) -> Callable[[Tensor], Tensor]:
    layers = [GatedGraphConvolution(WIDTH, 0.0, edges_out=i + 1 < LAYERS) for i in range(LAYERS)]

    def forward(tokens: Tensor) -> Tensor:
        nodes, e = tokens.flatten(2) if tokens.shape[-1] == 1 else tokens.mean(2), edges(tokens)
        for layer in layers:
            nodes, e = layer(nodes, e)
        return nodes

    return forward


def theirs(edges: nn.Module, n: int) -> Callable[[Tensor], Tensor]:
    layers = [OneHotLayer(n) for _ in range(LAYERS)]

    def forward(tokens: Tensor) -> Tensor:
        nodes, e = tokens.mean(2), edges(tokens)
        for layer in layers:
            nodes, e = layer(nodes, e)
        return nodes

    return forward


def system(name: str, n: int) -> tuple[Callable[[Tensor], Tensor], tuple[int, int]]:
    """(forward, (tokens of a node, width of a token))"""
    if name == "channel":
        return ours(ChannelEdges(WIDTH, 1)), (WIDTH, 1)
    made = {
        "time": lambda: ours(TimeEdges(WIDTH, 1)),
        "constant": lambda: ours(ConstantEdges(WIDTH)),
        "copies": lambda: theirs(CopiedEdges(), n),
        "loop": lambda: theirs(LoopedEdges(), n),
    }
    return made[name](), (STEPS, WIDTH)


def measure(name: str, batch: int, n: int, repeats: int) -> tuple[float, int]:
    """(least CPU seconds of a step, peak memory of the process in MiB above what it had before)"""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    forward, tokens = system(name, n)
    x = torch.randn(batch, n, *tokens, requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    least = math.inf
    for _ in range(repeats + 1):
        started = time.process_time()
        forward(x).square().mean().backward()
        least = min(least, time.process_time() - started)
    return least, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def measure_on_gpu(name: str, batch: int, n: int, repeats: int) -> tuple[float, int]:
    """(least wall seconds of a step, peak memory of the device in MiB)"""
    torch.manual_seed(0)
    least = math.inf
    with torch.device("cuda"):
        forward, tokens = system(name, n)
        x = torch.randn(batch, n, *tokens, requires_grad=True)
        for _ in range(repeats + 3):
            torch.cuda.synchronize()
            started = time.perf_counter()
            forward(x).square().mean().backward()
            torch.cuda.synchronize()
            least = min(least, time.perf_counter() - started)
    return least, torch.cuda.max_memory_allocated() // 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--one", nargs=4, metavar=("SYSTEM", "B", "N", "REPEATS"), help="one case, as numbers"
    )
    parser.add_argument("--loop-up-to", type=int, default=50, help="largest n for the loop over pairs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    if args.one:
        taken = measure if args.device == "cpu" else measure_on_gpu
        print(*taken(args.one[0], *map(int, args.one[1:])))
        return
    print(f"{'B':>3} {'n':>4} {'system':10} {'s':>8} {'peak MiB':>9} {'against time':>13}")
    for batch, n in CASES:
        first = None
        for name in ("time", "channel", "constant", "copies", "loop"):
            if (name == "loop" and n > args.loop_up_to) or (n == 400 and name in ("copies", "loop")):
                continue
            # A process each: the peak of a process's memory only ever grows.
            command = [sys.executable, __file__, "--one", name, str(batch), str(n), "10" if n < 100 else "4"]
            command += ["--device", args.device]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            seconds, peak = float(out[0]), int(out[1])
            first = first or seconds
            print(f"{batch:3} {n:4} {name:10} {seconds:8.4f} {peak:9} {seconds / first:12.1f}x", flush=True)


if __name__ == "__main__":
    main()
