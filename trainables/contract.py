"""The seams of a family: what a model returns, and what a family file hands over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn

from datasets.batch import Batch
from datasets.labels import LabelSpace
from searchspace.published import Published

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class AudioFormat:
    """What the shards hold: `sample_rate` in Hz, `channels`, `samples` per clip (the longest clip's)."""

    sample_rate: int
    channels: int
    samples: int


@dataclass(frozen=True)
class JointOutput:
    """What every family's `forward(waveform (B, C, N))` and `from_features(x (B, C, T, F))` return.

    scene_logits      (B, S) before softmax; (B, 0) of a model that says nothing of scenes
    event_logits      (B, E) before sigmoid; None where the model has no event branch
    scene_embedding   (B, D) what the scene classifier reads
    event_embedding   (B, D) what the event classifier reads; None without an event branch
    scene_from_event  (B, S) the scene inferred from the event embedding, unsquashed; None without coupling
    event_from_scene  (B, E) the events inferred from the scene embedding, unsquashed; None without coupling
    event_logits_by_scene  (B, S, E) event logits if the clip were of each scene; None but where events are
                      conditioned on the scene
    possible_events   (B, S, E) 1 where the training labels have the event in the scene; None likewise
    frame_logits      (B, T, E) the events of each frame before sigmoid; None where the model has none. Then
                      `event_logits` is their maximum over time, and T that of `Batch.frames`
    noisy_event_logits  (B, E) the events as labels that nobody has checked would have them, before sigmoid;
                      None but where such labels have a head of their own
    event_columns     (n,) int64, which events of the label space `event_logits` (B, n) are of; None = all
    """

    scene_logits: Tensor
    event_logits: Tensor | None = None
    scene_embedding: Tensor | None = None
    event_embedding: Tensor | None = None
    scene_from_event: Tensor | None = None
    event_from_scene: Tensor | None = None
    event_logits_by_scene: Tensor | None = None
    possible_events: Tensor | None = None
    frame_logits: Tensor | None = None
    event_columns: Tensor | None = None
    noisy_event_logits: Tensor | None = None


Term = Callable[[JointOutput, Batch], Tensor]
Relabel = Callable[[Batch, int, int], Batch]


def tags_read(model: object) -> int:
    """How many numbers of a tag vector the model reads: its `reads_tags`, also inside DDP; 0 without one."""
    return getattr(getattr(model, "module", model), "reads_tags", 0)


def answer(model: nn.Module, batch: Batch) -> JointOutput:
    """`model(waveform)`, of a model with `reads_tags` `model(waveform, tags)`: whoever has a batch asks
    here."""
    return model(batch.waveform, batch.tags) if tags_read(model) else model(batch.waveform)


def answer_features(model: Any, x: Tensor, tags: Tensor | None = None) -> JointOutput:
    """The same from features (B, C, T, F) on. `tags` (B, K); None = zeros, where only shapes matter."""
    count = tags_read(model)
    if not count:
        return model.from_features(x)
    return model.from_features(x, x.new_zeros(len(x), count) if tags is None else tags)


def event_targets(output: JointOutput, batch: Batch) -> tuple[Tensor, Tensor]:
    """(labels, known), each of the shape of `output.event_logits`."""
    if output.event_columns is None:
        return batch.events, batch.event_known
    return batch.events[:, output.event_columns], batch.event_known[:, output.event_columns]


def frame_targets(output: JointOutput, batch: Batch) -> tuple[Tensor, Tensor]:
    """(labels, known), each of the shape of `output.frame_logits`. A label is known where the frame's and the
    event's are.

    Raises ValueError where the batch has no frames, or others than the model.
    """
    ours = None if output.frame_logits is None else tuple(output.frame_logits.shape)
    if ours != tuple(batch.frames.shape):
        raise ValueError(
            f"frame logits {ours} and frame labels {tuple(batch.frames.shape)} don't fit: open the source "
            "with the hop of the family, frames=Family.frame_hop"
        )
    return batch.frames, batch.frame_known[:, :, None] * batch.event_known[:, None]


@runtime_checkable
class FitsLabels(Protocol):
    """A module that counts something in the training labels. A run hands it every training clip once, before
    training; what it keeps belongs into buffers of its state. Of the clips it may use the labels only.
    """

    def fit_labels(self, batches: Iterable[Batch]) -> None: ...


@runtime_checkable
class RelatesEvents(Protocol):
    """A model with a graph of its events: what of the message that event i receives comes from event j, in
    each clip of waveform (B, C, N): (B, n, n), rows sum to 1, the events in the order of `event_logits`."""

    def event_relations(self, waveform: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Family:
    """What a family file hands over.

    name       as in the registry
    config     frozen dataclass of plain values; its defaults are the paper's best setting
    build      (config, labels, audio) -> module with `frontend`, `from_features` and `forward`; any module
               inside may be a FitsLabels. With a number `reads_tags` above 0 the last two take the clips'
               tags (B, `reads_tags`) as well
    terms      config -> {name: term}; every term is a scalar tensor, unweighted
    weights    config -> {name: weight}; the same names as `terms`
    suggest    (trial, labels) -> {knob: value}; knobs not returned keep the config's defaults
    published  the papers' rows for this family
    frame_hop  seconds from frame to frame where the family learns the events of each; None: it does not
    relabel    config -> what makes of a training batch one with other labels, given the run's seed and the
               epoch (from 0); None leaves labels alone. Validation and test keep their labels
    svm_kernels  config -> kernels of the SVMs to fit on the trained model's `scene_embedding`
               (trainables/evaluators.py), () for none
    """

    name: str
    config: type
    build: Callable[[Any, LabelSpace, AudioFormat], nn.Module]
    terms: Callable[[Any], Mapping[str, Term]]
    weights: Callable[[Any], Mapping[str, float]]
    suggest: Callable[[optuna.trial.BaseTrial, LabelSpace], dict[str, Any]]
    published: tuple[Published, ...]
    frame_hop: Fraction | None = None
    relabel: Callable[[Any], Relabel | None] = lambda config: None
    svm_kernels: Callable[[Any], tuple[str, ...]] = lambda config: ()
