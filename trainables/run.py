"""One training run: everything it owns, one epoch at a time.

The warm Tune trial, the Ray Train worker and `python -m trainables.train` all drive this class; none trains
by itself.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from datasets.batch import Batch
from datasets.source import Source
from searchspace.record import put_in_place
from trainables import checkpoint
from trainables.contract import AudioFormat, FitsLabels
from trainables.engine import autocast_dtype, evaluate, make_optimiser, train_epoch, warmup_cosine
from trainables.evaluators import Codes, SvmEvaluator, codes
from trainables.frame_metrics import SEGMENT
from trainables.latency import latency
from trainables.metrics import Scores
from trainables.parts.batchnorm import synchronise
from trainables.parts.frontend import statistics
from trainables.pretrained import features_of, start_from
from trainables.recipe import configure
from trainables.registry import family
from trainables.watch import progressing

log = logging.getLogger(__name__)

EVAL_BATCH = 64  # clips a validation step; the metrics do not depend on it


class Run:
    """A model, its optimiser and its place in the data.

    `values` are knobs by name; knobs not named keep their defaults. `epochs` is the full length (the
    schedule's end), `epoch` how many are done. Two runs of the same values, seed and world on one machine
    give the same numbers, and a run loaded from a checkpoint goes on as if it had never stopped (bit for bit
    on a CPU): every random draw of an epoch comes from (seed, epoch, rank), so there is no generator state to
    keep. `start` says what the weights were before the first epoch (knob `pretrained`), None for random ones.
    With `world` > 1 a torch process group must be up; gradients and metrics then span all ranks, and so
    does batch normalisation unless `sync_batchnorm` is False: then every rank normalises by its own clips,
    which is faster and no longer the same as one worker.
    """

    def __init__(
        self,
        family_name: str,
        values: Mapping[str, Any],
        source: Source,
        *,
        seed: int,
        epochs: int,
        device: str = "cpu",
        rank: int = 0,
        world: int = 1,
        statistics_folder: Path | None = None,
        sync_batchnorm: bool = True,
    ) -> None:
        self.family_name, self.source, self.seed, self.epochs = family_name, source, seed, epochs
        self.device, self.rank, self.world, self.epoch = torch.device(device), rank, world, 0
        self.sync_batchnorm = sync_batchnorm
        self.config, self.recipe = configure(family_name, values)
        self.values = asdict(self.config) | asdict(self.recipe)
        self.family, index = family(family_name), source.index
        self.terms, self.weights = self.family.terms(self.config), self.family.weights(self.config)
        self.relabel = self.family.relabel(self.config)
        self.svm = SvmEvaluator(self.family.svm_kernels(self.config))
        _be_repeatable()
        torch.manual_seed(seed)
        self.model = self.family.build(
            self.config, index.labels, AudioFormat(index.sample_rate, index.channels, index.samples)
        )
        self.start = None
        if self.recipe.pretrained:
            self.start = start_from(
                self.model, self.recipe.pretrained, index.labels, accept=self.recipe.accept_mismatch
            )
        self.model.to(self.device)
        self._normalise_features(statistics_folder)
        self._fit_labels()
        self.forward = self.model if world == 1 else self._data_parallel()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = make_optimiser(
            self.recipe.optimiser, self.parameters, self.recipe.lr, self.recipe.weight_decay
        )
        self.steps = source.steps(self.recipe.batch_size, world)
        self.updates = -(-self.steps // self.recipe.accumulate)  # optimiser updates an epoch
        self.learning_rate = warmup_cosine(
            self.recipe.lr,
            self.recipe.schedule,
            self.recipe.warmup_epochs * self.updates,
            epochs * self.updates,
        )

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @functools.cached_property
    def latency(self) -> float:
        """Time for one clip, ms (trainables/latency.py), measured once in a process."""
        index, frontend = self.source.index, cast(Any, self.model.frontend)
        clip = torch.zeros(1, index.channels, index.samples, device=self.device)
        return latency(self.model, tuple(frontend.raw(clip).shape), self.device)

    def next_epoch(self) -> dict[str, float]:
        """Train one epoch and validate: {"train/…", "val/…"}. Raises engine.Diverged on a non-finite loss."""
        seed = _derive(self.seed, "epoch", self.epoch, self.rank)
        torch.manual_seed(seed)  # dropout, SpecAugment
        self.model.train()
        trained = train_epoch(
            self.forward,
            self.parameters,
            self.terms,
            self.weights,
            self._train_batches(),
            self.optimiser,
            learning_rate=self.learning_rate,
            first_update=self.epoch * self.updates,
            steps=self.steps,
            accumulate=self.recipe.accumulate,
            clip_norm=self.recipe.clip_norm,
            mixup=self.recipe.mixup,
            autocast=self._autocast(),
            generator=torch.Generator().manual_seed(seed),
        )
        self.epoch += 1
        validated, _ = self.score("val")
        if self.epoch < self.epochs:
            self.svm.offer(self.epoch, validated["scene_accuracy"], self.model)
        return {f"train/{k}": v for k, v in trained.items()} | {f"val/{k}": v for k, v in validated.items()}

    def _train_batches(self) -> Iterator[Batch]:
        batches = self.source.train_batches(
            self.recipe.batch_size,
            epoch=self.epoch,
            seed=self.seed,
            rank=self.rank,
            world=self.world,
            device=str(self.device),
        )
        for batch in progressing(batches):
            yield batch if self.relabel is None else self.relabel(batch, self.seed, self.epoch)

    def score(self, split: str) -> tuple[dict[str, float], Scores]:
        """Losses and metrics on a split ("val", "test"), every clip once, and the scores behind them."""
        batches = progressing(
            self.source.eval_batches(
                split, EVAL_BATCH * self.world, rank=self.rank, world=self.world, device=str(self.device)
            )
        )
        hop = self.family.frame_hop
        losses, scores = evaluate(
            self.model,
            self.terms,
            self.weights,
            batches,
            autocast=self._autocast(),
            segment=round(SEGMENT / hop) if hop else 1,
        )
        return losses | scores.compute() | self._svm(split), scores

    def _svm(self, split: str) -> dict[str, float]:
        """After the last epoch, "svm_accuracy" where the family asks for it; every rank reads all clips."""
        if not self.svm.kernels or self.epoch < self.epochs:
            return {}
        return {"svm_accuracy": self.svm.score(self.model, self.epoch, self._codes, split)}

    def _codes(self, split: str) -> Codes:
        batches = self.source.eval_batches(split, EVAL_BATCH, device=str(self.device))
        return codes(self.model, progressing(batches), autocast=self._autocast())

    def save(self, folder: Path) -> None:
        """Everything needed to go on, to `folder`, in one step (rank 0 calls it); after the last epoch, the
        model alone, and that of the epoch its SVM is of."""
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        state = self._identity() | {"epoch": self.epoch} | self._about_model()
        if self.svm.kernels:
            tensors |= {f"svm/{k}": v for k, v in self.svm.tensors().items()}
            state["svm"] = self.svm.state()
        if self.epoch < self.epochs:
            optimiser, state["optimiser"] = checkpoint.flatten_optimiser(self.optimiser)
            tensors |= {f"optimiser/{k}": v for k, v in optimiser.items()}
        checkpoint.save(folder, tensors, state)

    def load(self, folder: Path, *, written: int | None = None) -> None:
        """Go on from `folder`. Raises CheckpointError if it belongs to another run (values, seed, length or
        data), Damaged if it is of a later epoch than the last whose numbers are `written` down."""
        tensors, state = checkpoint.load(folder)
        for name, ours in self._identity().items():
            theirs = state.get(name)
            if theirs != ours:
                why = " (another shard set, or other --events)" if name == "data" else ""
                if isinstance(theirs, dict) and isinstance(ours, dict):  # only the knobs that differ
                    knobs = sorted(k for k in theirs | ours if theirs.get(k) != ours.get(k))
                    theirs, ours = ({k: v.get(k) for k in knobs} for v in (theirs, ours))
                raise checkpoint.CheckpointError(
                    f"{folder}: {name} of the checkpoint is {theirs!r}, this run's is {ours!r}{why}"
                )
        checkpoint.check_written(folder, state["epoch"], written)
        self.model.load_state_dict(_under("model/", tensors))
        if "optimiser" in state:
            checkpoint.restore_optimiser(self.optimiser, _under("optimiser/", tensors), state["optimiser"])
        if "svm" in state:
            self.svm.restore(_under("svm/", tensors), state["svm"])
        self.epoch = state["epoch"]

    def _identity(self) -> dict[str, Any]:
        return {
            "family": self.family_name,
            "values": self.values,
            "seed": self.seed,
            "epochs": self.epochs,
            "data": self.source.index.checksum,
            "pretrained": self.start.checksum if self.start else None,
        }

    def _about_model(self) -> dict[str, Any]:
        """What another run needs to know to start from this one's weights."""
        labels = self.source.index.labels
        return {
            "scenes": labels.scenes,
            "events": labels.events,
            "features": features_of(self.model.frontend),
        }

    def _normalise_features(self, folder: Path | None) -> None:
        """Training-set statistics into the front end; they depend on the data and the front end alone, so are
        kept."""
        frontend: Any = self.model.frontend
        name = hashlib.sha256(f"{self.source.index.checksum} {frontend}".encode()).hexdigest()[:16]
        kept = folder / f"statistics-{name}.json" if folder else None
        found = _read_statistics(kept) if kept else None
        if found is None:
            batches = self.source.eval_batches("train", EVAL_BATCH, device=str(self.device))
            found = [s.tolist() for s in statistics(frontend, progressing(batches))]
            if kept:
                _write_once(kept, json.dumps(found))
        mean, std = found
        normalise = frontend.normalise
        normalise.set_statistics(
            torch.tensor(mean, device=self.device), torch.tensor(std, device=self.device)
        )

    def _fit_labels(self) -> None:
        """Every rank reads the whole training split in the same order, so all hold the same numbers."""
        for module in self.model.modules():
            if isinstance(module, FitsLabels):
                module.fit_labels(progressing(self.source.eval_batches("train", EVAL_BATCH)))

    def _data_parallel(self) -> nn.Module:
        if self.sync_batchnorm:
            self.model = synchronise(self.model, on_gpu=self.device.type == "cuda")
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            self.model, device_ids=devices, gradient_as_bucket_view=True
        )

    def _autocast(self) -> torch.dtype | None:
        return autocast_dtype(self.recipe.precision, self.device)


def _derive(*parts: Any) -> int:
    """A 63-bit seed from anything printable; the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def _be_repeatable() -> None:
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _read_statistics(path: Path) -> list[list[float]] | None:
    """None where there are none that can be read, or a power cut has left a file without its contents."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _write_once(path: Path, text: str) -> None:
    """Several trials may write the same statistics at once: each writes its own file and renames it into
    place. Where that can't be written the next trial computes them again."""
    fresh: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as handle:
            fresh = Path(handle.name)
            handle.write(text)
        put_in_place(fresh, path)
    except OSError as error:
        log.warning("warning: %s: %s; the features' statistics are not kept", path, error.strerror or error)
        if fresh is not None:
            fresh.unlink(missing_ok=True)
