"""Training and evaluation of one epoch, in plain torch: no Ray, no files, no flags."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from datasets.batch import Batch
from trainables.contract import Term, answer
from trainables.losses import known_clips, total
from trainables.metrics import Scores


class Diverged(ArithmeticError):
    """The loss is no longer a finite number; the message names every term."""


def train_epoch(
    model: nn.Module,
    parameters: list[nn.Parameter],
    terms: Mapping[str, Term],
    weights: Mapping[str, float],
    batches: Iterable[Batch],
    optimiser: torch.optim.Optimizer,
    *,
    learning_rate: Callable[[int], float],
    first_update: int,
    steps: int,
    accumulate: int = 1,
    clip_norm: float = 0.0,
    mixup: float = 0.0,
    autocast: torch.dtype | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """One pass over `batches`; returns means over clips of known label "loss", "loss/<term>" (weighted) and
    "term/<term>" (raw), "clips_per_second", "data_wait" (share of the time spent waiting for data) and
    "seconds".

    `learning_rate` maps the number of optimiser updates done so far (`first_update` at the start) to a rate.
    Gradients of `accumulate` batches make one update; the last group may be shorter, and is averaged over
    what it holds. `steps` is how many batches are coming. `mixup` is α of Beta(α, α). In a process group,
    gradients are averaged over clips, not ranks.

    Raises Diverged as soon as a loss is not finite.
    """
    started = time.perf_counter()
    clips, update = 0, first_update
    sums, masses = dict[str, Tensor](), dict[str, Tensor]()
    unread: dict[str, Tensor] | None = None
    optimiser.zero_grad(set_to_none=True)
    timed = _Timed(batches)
    for step, batch in enumerate(timed):
        if mixup > 0:
            batch = mix(batch, mixup, generator)
        group = min(accumulate, steps - step // accumulate * accumulate)
        last_of_group = (step + 1) % accumulate == 0 or step + 1 == steps
        with _sync_only_if(model, last_of_group):
            with autocasting(batch.waveform.device, autocast):
                output = answer(model, batch)
            values = {name: term(output, batch) for name, term in terms.items()}
            known = {name: known_clips(term, batch) for name, term in terms.items()}
            shares = _shares(known)
            loss = total({name: value * shares[name] for name, value in values.items()}, weights)
            (loss / group).backward()
        if unread is not None:  # one step late, so that a GPU never waits for this check
            _refuse_non_finite(unread)
        unread = {name: value.detach().double() for name, value in values.items()}
        for name, value in unread.items():
            sums[name] = sums.get(name, 0.0) + value * known[name]
            masses[name] = masses.get(name, 0.0) + known[name].double()
        clips += len(batch)
        if last_of_group:
            if clip_norm > 0:
                nn.utils.clip_grad_norm_(parameters, clip_norm)
            for param_group in optimiser.param_groups:
                param_group["lr"] = learning_rate(update)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            update += 1
    if unread is not None:
        _refuse_non_finite(unread)
    means, all_clips = _means_over_ranks(sums, masses, clips)
    seconds = time.perf_counter() - started
    speed = {"clips_per_second": all_clips / seconds, "data_wait": timed.wait / seconds, "seconds": seconds}
    return with_weights(means, weights) | speed


@torch.no_grad()
def evaluate(
    model: nn.Module,
    terms: Mapping[str, Term],
    weights: Mapping[str, float],
    batches: Iterable[Batch],
    *,
    autocast: torch.dtype | None = None,
    segment: int = 1,
) -> tuple[dict[str, float], Scores]:
    """(mean losses as in `train_epoch`, the scores to compute metrics from), over all ranks. `segment` is the
    length in frames of what segment-based metrics count.

    The model is in eval mode during the pass and back in its mode afterwards.
    """
    was_training = model.training
    model.eval()
    sums, masses = dict[str, Tensor](), dict[str, Tensor]()
    scores, clips = Scores(segment), 0
    try:
        for batch in batches:
            with autocasting(batch.waveform.device, autocast):
                output = answer(model, batch)
            for name, term in terms.items():
                known = known_clips(term, batch).double()
                sums[name] = sums.get(name, 0.0) + term(output, batch).double() * known
                masses[name] = masses.get(name, 0.0) + known
            scores.add(output, batch)
            clips += len(batch)
    finally:
        model.train(was_training)
    means, _ = _means_over_ranks(sums, masses, clips, names=list(terms))
    return with_weights(means, weights), _gathered(scores)


def mix(batch: Batch, alpha: float, generator: torch.Generator | None = None) -> Batch:
    """Mixup (Zhang et al. 2018) of waveforms and labels with one λ ~ Beta(α, α) per clip and partners drawn
    from the batch, from the same part where several shard sets are in it; clips whose events were checked are
    mixed with such, the others with others.

    A mixture is of unknown scene or event where either clip is: its scene row becomes zeros.
    """
    size = len(batch)
    gamma = torch._standard_gamma(torch.full((2, size), alpha, dtype=torch.float64), generator=generator)
    share = (gamma[0] / gamma.sum(0)).nan_to_num(0.5).float().to(batch.waveform.device)
    partner = torch.randperm(size, generator=generator).to(batch.waveform.device)
    partner = _within(2 * batch.part + (batch.curated > 0), partner)

    def blend(x: Tensor) -> Tensor:
        s = share.view(-1, *[1] * (x.dim() - 1))
        return s * x + (1 - s) * x[partner]

    known = (batch.scene.sum(1) > 0) & (batch.scene[partner].sum(1) > 0)
    return replace(
        batch,
        waveform=blend(batch.waveform),
        scene=blend(batch.scene) * known[:, None],
        events=blend(batch.events),
        event_known=batch.event_known * batch.event_known[partner],
        tags=blend(batch.tags),
        frames=blend(batch.frames),
        frame_known=batch.frame_known * batch.frame_known[partner],
    )


def _within(part: Tensor, order: Tensor) -> Tensor:
    """(B,) the permutation `order` made one that leaves every part in its places: the i-th place of a part
    gets what comes i-th of that part in `order`. One part: `order` itself."""
    partner = torch.empty_like(order)
    partner[part.argsort(stable=True)] = order[part[order].argsort(stable=True)]
    return partner


def warmup_cosine(
    lr: float, schedule: str, warmup_updates: float, all_updates: int
) -> Callable[[int], float]:
    """Update number (0-based) → learning rate: linear warm-up, then constant ("none") or a half cosine to
    zero."""

    def rate(update: int) -> float:
        if update < warmup_updates:
            return lr * (update + 1) / (warmup_updates + 1)
        if schedule == "none":
            return lr
        progress = (update - warmup_updates) / max(1.0, all_updates - warmup_updates)
        return lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return rate


def make_optimiser(
    name: str, parameters: list[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    fused = {"fused": True} if parameters[0].is_cuda else {}
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, **fused)  # type: ignore[arg-type]
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, **fused)  # type: ignore[arg-type]
    if name == "radam":
        return torch.optim.RAdam(parameters, lr=lr, weight_decay=weight_decay)
    raise ValueError(f"optimiser={name!r} is not known; known: adam, adamw, radam")


def with_weights(raw: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """{"loss", "loss/<term>", "term/<term>"} from the raw means."""
    weighted = {f"loss/{name}": weights[name] * value for name, value in raw.items()}
    return (
        {"loss": sum(weighted.values())} | weighted | {f"term/{name}": value for name, value in raw.items()}
    )


class _Timed:
    """Iterates over `batches` and adds up in `wait` the seconds spent waiting for them."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches, self.wait = batches, 0.0

    def __iter__(self) -> Iterator[Batch]:
        source = iter(self.batches)
        while True:
            asked = time.perf_counter()
            batch = next(source, None)
            self.wait += time.perf_counter() - asked
            if batch is None:
                return
            yield batch


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What the recipe's `precision` means on a device: bf16 where asked for, or by itself ("auto") on a GPU
    that has it; None is full precision."""
    if precision == "bf16":
        return torch.bfloat16
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if precision == "auto" and has_bf16 else None


def autocasting(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _sync_only_if(model: object, last_of_group: bool) -> AbstractContextManager:
    """DDP exchanges gradients only on the last batch of an accumulation group."""
    if last_of_group or not hasattr(model, "no_sync"):
        return nullcontext()
    return model.no_sync()


def _shares(known: Mapping[str, Tensor]) -> Mapping[str, float | Tensor]:
    """What this rank's mean of each term must be multiplied with for DDP's mean over ranks to be the mean
    over the step's clips of known label."""
    if _world() == 1:
        return dict.fromkeys(known, 1.0)
    here = torch.stack(list(known.values()))
    everywhere = here.clone()
    dist.all_reduce(everywhere)
    shares = here * _world() / torch.where(everywhere > 0, everywhere, 1.0)
    return dict(zip(known, shares))


def _refuse_non_finite(terms: Mapping[str, Tensor]) -> None:
    stacked = torch.stack(list(terms.values()))
    if _world() > 1:  # every rank must see what any rank sees, or the others would wait for it for ever
        dist.all_reduce(stacked)
        stacked /= _world()
    values = dict(zip(terms, stacked.tolist()))
    if not all(math.isfinite(v) for v in values.values()):
        raise Diverged(
            "non-finite loss: " + ", ".join(f"{name}={value:.4g}" for name, value in values.items())
        )


def _means_over_ranks(
    sums: Mapping[str, Tensor],
    masses: Mapping[str, Tensor],
    clips: int,
    names: list[str] | None = None,
) -> tuple[dict[str, float], int]:
    """The terms' means over what each counts, and the number of clips, over all ranks; a rank without clips
    adds zeros. A term that nothing was known for is 0."""
    names = names or list(sums)
    if not names:
        return {}, 0
    device = next((s.device for s in sums.values()), _collective_device())
    zero = torch.zeros((), device=device, dtype=torch.float64)
    packed = torch.stack([which.get(n, zero) for which in (sums, masses) for n in names] + [zero + clips])
    if _world() > 1:
        dist.all_reduce(packed)
    *numbers, count = packed.tolist()
    totals, counts = numbers[: len(names)], numbers[len(names) :]
    means = [value / mass if mass else 0.0 if count else math.nan for value, mass in zip(totals, counts)]
    return dict(zip(names, means)), int(count)


def _gathered(scores: Scores) -> Scores:
    if _world() == 1:
        return scores
    parts: list[Scores | None] = [None] * _world()
    dist.all_gather_object(parts, scores)
    return Scores.merge([part for part in parts if part is not None])


def _collective_device() -> torch.device:
    return (
        torch.device("cuda", torch.cuda.current_device())
        if _world() > 1 and dist.get_backend() == "nccl"
        else torch.device("cpu")
    )


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
