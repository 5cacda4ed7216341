"""What the coupling costs, and our cSEM-PANN against a direct implementation of the released structure.

    python tests/benchmarks/bench_coupling.py [--batch 4] [--repeats 15] [--width 1] [--threads 1]

One training step (forward, loss terms, backward, Adam) on the paper's features, 320×64, with 10 scenes and
527 events, of MlhE-PANN, cSEM-PANN and the direct one, taken in turns so that whatever else the machine does
falls on all alike. Each ratio is the median of the ratios within a turn. Then the coupling by itself:
Algorithm 1's extra lines and their two loss terms, forward and backward, as a share of MlhE's step; and the
same in multiply-accumulates of the forward pass. The direct one starts from our weights and must give our
outputs. On a busy machine the ratio of processor times says more than that of elapsed ones. Targets: the
coupling adds at most 1 %, ours / direct is at most 1.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from datasets.batch import Batch
from datasets.labels import LabelSpace
from trainables.contract import AudioFormat
from trainables.describe import count_macs
from trainables.losses import total
from trainables.parts.coupling import infer
from trainables.recipe import configure
from trainables.registry import family

SCENES, EVENTS, FRAMES, MELS = 10, 527, 320, 64
LABELS = LabelSpace(tuple(f"s{i}" for i in range(SCENES)), tuple(f"e{i}" for i in range(EVENTS)))
AUDIO = AudioFormat(44100, 1, 441000)


@dataclass
class Request:
    batch: int = 4
    repeats: int = 15
    width: float = 1.0
    threads: int = 1


class DirectBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, pool: int) -> Tensor:
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        return F.dropout(F.avg_pool2d(x, pool), 0.2, self.training)


class Direct(nn.Module):
    """cSEM-PANN as one would write it down from the released structure: nothing configurable."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        pairs = list(zip([1, *channels], channels))
        self.shared = nn.ModuleList(DirectBlock(a, b) for a, b in pairs[:2])
        self.scene = nn.ModuleList(DirectBlock(a, b) for a, b in pairs[2:])
        self.event = nn.ModuleList(DirectBlock(a, b) for a, b in pairs[2:])
        width = channels[-1]
        self.fc_scene, self.fc_event = nn.Linear(width, width), nn.Linear(width, width)
        self.final_scene, self.final_event = nn.Linear(width, SCENES), nn.Linear(width, EVENTS)

    def embed(self, x: Tensor, blocks: nn.ModuleList, fc: nn.Linear) -> Tensor:
        for block, pool in zip(blocks, (2, 2, 2, 1)):
            x = block(x, pool)
        x = x.mean(3)
        x = F.dropout(x.max(2)[0] + x.mean(2), 0.5, self.training)
        return F.relu_(fc(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        for block in self.shared:
            x = block(x, 2)
        scene = self.embed(x, self.scene, self.fc_scene)
        event = self.embed(x, self.event, self.fc_event)
        w_s, w_e = self.final_scene.weight, self.final_event.weight
        w_se = w_s @ w_e.T
        y_s = event @ (torch.softmax(w_se, 1) @ w_e).T
        y_e = scene @ (torch.softmax(w_se.T, 1) @ w_s).T
        return F.log_softmax(self.final_scene(scene), 1), torch.sigmoid(self.final_event(event)), y_s, y_e

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        log_scene, events, y_s, y_e = self(x)
        loss = F.nll_loss(log_scene, batch.scene.argmax(1)) + 0.5 * F.binary_cross_entropy(
            events, batch.events
        )
        return loss + 0.01 * F.mse_loss(y_s, log_scene) + 0.01 * F.mse_loss(y_e, events)


def direct_like(ours: nn.Module) -> Direct:
    """The direct one with our weights: the same tensors in the same order within each part."""
    state = ours.state_dict()
    channels = [v.shape[0] for n, v in state.items() if n.startswith(("shared", "scene.")) and "conv2" in n]
    direct = Direct(channels)
    parts = {
        "shared": "shared.block", "scene": "scene.block", "event": "event.block",
        "fc_scene": "scene.fc1", "fc_event": "event.fc1",
        "final_scene": "scene_classifier", "final_event": "event_classifier",
    }  # fmt: skip
    renamed = {}
    for part, prefix in parts.items():
        first = 3 if part in ("scene", "event") else 1
        for name, value in state.items():
            if name.startswith(prefix):
                rest = name[len(prefix) :]
                if "block" in prefix:
                    number, rest = rest.split(".", 1)
                    rest = f".{int(number) - first}.{rest}"
                renamed[part + rest] = value
    direct.load_state_dict(renamed)
    return direct


def build(framework: str, width: float) -> tuple[nn.Module, Callable[[Tensor, Batch], Tensor]]:
    fam = family("csem")
    config, _ = configure("csem", {"framework": framework, "width": width})
    model = fam.build(config, LABELS, AUDIO)
    terms, weights = fam.terms(config), fam.weights(config)

    def loss(x: Tensor, batch: Batch) -> Tensor:
        output = model.from_features(x)  # type: ignore[operator]
        return total({name: term(output, batch) for name, term in terms.items()}, weights)

    return model, loss


def stepper(
    model: nn.Module, loss: Callable[[Tensor, Batch], Tensor], x: Tensor, batch: Batch
) -> Callable[[], None]:
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    model.train()

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(x, batch).backward()
        optimiser.step()

    return step


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """(elapsed, processor time of all threads)"""
    started, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started, time.process_time() - used


def coupling_alone(ours: nn.Module, batch: Batch) -> Callable[[], None]:
    """Algorithm 1, lines 8-16, forward and backward, on embeddings and answers of the right size."""
    w_s, w_e = ours.get_parameter("scene_classifier.weight"), ours.get_parameter("event_classifier.weight")
    size, width = len(batch), w_s.shape[1]
    scene, event = (torch.rand(size, width, requires_grad=True) for _ in range(2))
    answers = [torch.randn(size, n, requires_grad=True) for n in (SCENES, EVENTS)]

    def run() -> None:
        y_s, y_e = infer(scene, event, w_s, w_e)
        loss = F.mse_loss(y_s, answers[0].log_softmax(1)) + F.mse_loss(y_e, answers[1].sigmoid())
        loss.backward()

    return run


def must_agree(ours: nn.Module, direct: Direct, x: Tensor) -> None:
    ours.eval(), direct.eval()
    with torch.no_grad():
        output, theirs = ours.from_features(x), direct(x)  # type: ignore[operator]
    mine = (
        output.scene_logits.log_softmax(1),
        output.event_logits.sigmoid(),
        output.scene_from_event,
        output.event_from_scene,
    )
    for name, a, b in zip(("scene", "event", "scene_from_event", "event_from_scene"), mine, theirs):
        if not torch.allclose(a, b, rtol=1e-4, atol=1e-5):
            raise SystemExit(f"{name} differs from the direct one by up to {(a - b).abs().max():.2g}")


def main(request: Request) -> None:
    torch.set_num_threads(request.threads)
    torch.manual_seed(0)
    size = request.batch
    x = torch.randn(size, 1, FRAMES, MELS)
    scene = torch.eye(SCENES)[torch.randint(SCENES, (size,))]
    events = (torch.rand(size, EVENTS) > 0.99).float()
    batch = Batch(torch.zeros(size, 1, 1), scene, events, torch.ones(size, EVENTS), torch.arange(size))

    (csem, csem_loss), (mlhe, mlhe_loss) = build("csem", request.width), build("mlhe", request.width)
    direct = direct_like(csem)
    must_agree(csem, direct, x)
    steps = {
        "mlhe": stepper(mlhe, mlhe_loss, x, batch),
        "csem": stepper(csem, csem_loss, x, batch),
        "direct": stepper(direct, direct.loss, x, batch),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for turn in range(request.repeats + 1):
        first = turn % len(steps)
        for name in (*list(steps)[first:], *list(steps)[:first]):
            taken = seconds(steps[name])
            if turn:  # the first warms up
                times[name].append(taken)
    alone = coupling_alone(csem, batch)
    extra = statistics.median([seconds(alone)[1] for _ in range(50)][5:])

    print(request)
    for name, both in times.items():
        elapsed = [clocks[0] for clocks in both]
        print(f"{name:7s} {statistics.median(elapsed):7.3f} s a step  {[round(v, 3) for v in elapsed]}")
    for above, below in (("csem", "mlhe"), ("csem", "direct")):
        for clock, label in enumerate(("elapsed", "processor time")):
            ratios = [ours[clock] / other[clock] for ours, other in zip(times[above], times[below])]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"{above} / {below}, {label}: {middle:.4f}  (quartiles {low:.4f} … {high:.4f})")
    step = statistics.median([used for _, used in times["mlhe"]])
    print(
        f"coupling and its terms alone: {1000 * extra:.2f} ms, {100 * extra / step:.3f} % of a step of mlhe"
    )
    shape = (size, 1, FRAMES, MELS)
    macs = {f: count_macs(_on_meta(f, request.width), shape)[""] for f in ("csem", "mlhe")}
    print(f"MACs of the forward pass: {macs['csem'] / macs['mlhe'] - 1:.4%} more than mlhe")


def _on_meta(framework: str, width: float) -> nn.Module:
    with torch.device("meta"):
        return build(framework, width)[0].to("meta")


if __name__ == "__main__":
    main(tyro.cli(Request))
