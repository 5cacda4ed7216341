"""Multitask learning of scenes and of the events in every frame: Imoto et al., "How information on acoustic
scenes and sound events mutually benefits event detection and scene classification tasks" (2022), and the
network it takes over from Tonami et al. 2021, of which there is released code.

    log-mel (B, 1, T, 64), T = 500 for 10 s
       │ shared: three times conv 3×3, 128 channels - BN - Leaky ReLU - max pooling of frequency by 8, 2, 2
       ├─S1─ scene: conv 256 - BN - Leaky ReLU - max pooling of time by 25 - the same conv again - global max
       │     pooling ─S2─ FC 32 - Leaky ReLU - FC S
       └─E1─ events: BiGRU 32 ─E2─ FC 32 - Leaky ReLU - FC E, for each frame

It asks what one task's labels do for the other. Against training with both stand a gradient reversal, which
has the layers before it unlearn a task, and shuffled ("fake") labels of one task.

Where the paper is silent, the reading is named here:
- Fig. 2, which shows where the reversals sit, is not in the text at hand. S1 and E1 are taken as the entries
  of the branches, S2 and E2 as between a branch's convolutions or BiGRU and its FC layers: then S2 and E2
  reverse the branch's own layers too, which fits how much more they hurt (Table 3: 78 % and 33 % of scenes
  right with S1 and S2; event F 13 % and 0.02 % with E1 and E2).
- Eq. 3's α weighs scenes (`w_scene`, 1e-4) and β events (`w_event`, 1). The released code calls them the
  other way round, and has both at 1.
- Eq. 2 sums over time and events; the released code takes the mean, as here. α is 1e-4 of that.
- Fake labels (Eqs. 6, 7) are drawn once for a clip; `fake_redrawn` draws anew every epoch.
- Learning rate, batch size and epochs are not given: searchspace/papers/imoto2022.py. The Leaky ReLU's slope
  neither: PyTorch's 0.01.
- RAdam is `optimiser=radam`, which the published rows have and a search may choose; a run that sets nothing
  has the project's Adam, as the released code.
- The features' limits in Hz are not given: 0 and half the sampling rate, at most 22050.

`variant=code` is the released network: ReLU, BiGRU 64, dropout .15 between the FC layers, and the scene
branch's last pooling goes over time alone, so that its FC layer reads 2 mel bins × 256 channels; 1,328,637
parameters for 4 scenes and 25 events. Its pooling by 25 and then by 20 leaves one frame of 500; here the
second is over all that is left, which is the same for 500 and works for other lengths.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from datasets.batch import Batch
from datasets.labels import LabelSpace
from searchspace import dimensions
from searchspace.papers import imoto2022
from trainables import losses
from trainables.contract import AudioFormat, Family, JointOutput, Relabel, Term
from trainables.fake_labels import fake_events, fake_scenes
from trainables.knobs import check, check_range
from trainables.parts.cnn import scaled
from trainables.parts.frontend import LogMel, SpecAugment
from trainables.parts.reversal import GradientReversal

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Reversal = Literal["none", "s1", "s2", "e1", "e2"]
REVERSALS: tuple[str, ...] = get_args(Reversal)
WINDOW, HOP = Fraction(40, 1000), Fraction(20, 1000)  # s
FREQUENCY_POOLS = (8, 2, 2)
LEAST_MELS = 32  # what the frequency pools leave one bin of
TIME_POOL = 25  # frames
SHARED, SCENE, HIDDEN = 128, 256, 32
GRU = {"paper": 32, "code": 64}


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's "Conventional MTL" (Tables 1 and 2), but for the optimiser.

    task               mtl | scene (shared and scene layers alone) | events (shared and event layers alone)
    variant            paper (Table 1) | code (the released network)
    w_scene, w_event   weights of the loss terms, the paper's α and β; a single task has weight 1
    reversal           where the gradient is reversed: none | s1 | s2 | e1 | e2
    reversal_strength  λ: the gradient is multiplied by -λ
    fake               labels that are shuffled in training: none | scene | events
    fake_redrawn       False: once for each clip; True: anew every epoch
    width              multiplies the channels and units; 1 is the published size
    dropout            between the FC layers; None: 0 with variant=paper, 0.15 with variant=code
    n_mels, f_min, f_max  mel bins and their limits in Hz; f_max None = min(22050, half the sampling rate)
    spec_augment       mask two stripes of up to `time_mask` frames and two of up to `freq_mask` mel bins
    """

    task: Literal["mtl", "scene", "events"] = "mtl"
    variant: Literal["paper", "code"] = "paper"
    w_scene: float = 1e-4
    w_event: float = 1.0
    reversal: Reversal = "none"
    reversal_strength: float = 1.0
    fake: Literal["none", "scene", "events"] = "none"
    fake_redrawn: bool = False
    width: float = 1.0
    dropout: float | None = None
    n_mels: int = 64
    f_min: float = 0.0
    f_max: float | None = None
    spec_augment: bool = False
    time_mask: int = 64
    freq_mask: int = 8

    def __post_init__(self) -> None:
        check(self)
        check_range(self, "width", 0.0, above=True)
        check_range(self, "n_mels", LEAST_MELS)
        for name in ("w_scene", "w_event", "reversal_strength"):
            check_range(self, name, 0.0)
        if self.task == "mtl" and self.w_scene == self.w_event == 0:
            raise ValueError("w_scene=0 and w_event=0: nothing is trained; expected one of them above 0")
        if self.dropout is not None:
            check_range(self, "dropout", 0.0, 0.99)
        for name in ("time_mask", "freq_mask"):
            check_range(self, name, 0)
        for name in ("reversal", "fake"):
            if self.task != "mtl" and getattr(self, name) != "none":
                raise ValueError(f"{name}={getattr(self, name)} is for task=mtl, not for task={self.task}")


class ConvBlock(nn.Module):
    """(B, C_in, T, F) → (B, C_out, T / time, F / frequency): conv 3×3 - BN - `activation` - max pooling.

    The convolution has a bias, as the released one, which BN takes out again: its gradient is rounding, and
    an Adam makes steps of it. So runs on one and on two workers differ in the third digit after some epochs.
    """

    def __init__(
        self, inputs: int, outputs: int, activation: nn.Module, *, time: int = 1, frequency: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.activation, self.pool = activation, (time, frequency)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.activation(self.bn(self.conv(x))), self.pool)


class SceneBranch(nn.Module):
    """(B, C, T, `bins`) → embedding (B, D) for the scene classifier."""

    def __init__(self, inputs: int, bins: int, config: Config) -> None:
        super().__init__()
        channels = scaled(SCENE, config.width)
        self.keep_frequency = config.variant == "code"
        self.entry, self.middle = _reversal(config, "s1"), _reversal(config, "s2")
        self.conv1 = ConvBlock(inputs, channels, _activation(config), time=TIME_POOL)
        self.conv2 = ConvBlock(channels, channels, _activation(config))
        self.hidden = _hidden(channels * (bins if self.keep_frequency else 1), config)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(self.entry(x)))
        pooled = x.amax(2).flatten(1) if self.keep_frequency else x.amax((2, 3))
        return self.hidden(self.middle(pooled))


class EventBranch(nn.Module):
    """(B, C, T, F), C·F = `inputs` → embeddings of the frames (B, T, D) for the event classifier."""

    def __init__(self, inputs: int, config: Config) -> None:
        super().__init__()
        units = scaled(GRU[config.variant], config.width)
        self.entry, self.middle = _reversal(config, "e1"), _reversal(config, "e2")
        self.gru = nn.GRU(inputs, units, batch_first=True, bidirectional=True)
        self.hidden = _hidden(2 * units, config)

    def forward(self, x: Tensor) -> Tensor:
        sequence, _ = self.gru(self.entry(x).transpose(1, 2).flatten(2))  # (B, T, C·F)
        return self.hidden(self.middle(sequence))


class SceneEventNet(nn.Module):
    """Waveform (B, C, N) → JointOutput with `frame_logits` (B, T, E).

    `event_embedding` (B, D) is the mean over frames of what the event classifier reads. Without event branch
    there are no events in the output. Without scene branch the scene logits are zeros: its scene accuracy is
    that of always saying the first scene.
    """

    def __init__(self, frontend: LogMel, config: Config, *, scenes: int, events: int) -> None:
        super().__init__()
        self.frontend, self.scenes = frontend, scenes
        channels, hidden = scaled(SHARED, config.width), scaled(HIDDEN, config.width)
        self.shared = nn.Sequential(
            *(
                ConvBlock(inputs, channels, _activation(config), frequency=pool)
                for inputs, pool in zip((1, channels, channels), FREQUENCY_POOLS)
            )
        )
        bins = functools.reduce(operator.floordiv, FREQUENCY_POOLS, config.n_mels)
        self.scene = self.event = None
        if config.task != "events":
            self.scene = SceneBranch(channels, bins, config)
            self.scene_classifier = nn.Linear(hidden, scenes)
        if config.task != "scene":
            self.event = EventBranch(channels * bins, config)
            self.event_classifier = nn.Linear(hidden, events)

    def forward(self, waveform: Tensor) -> JointOutput:
        return self.from_features(self.frontend(waveform))

    def from_features(self, x: Tensor) -> JointOutput:
        """Normalised features (B, 1, T, F) → JointOutput."""
        x = self.shared(x)
        scene_logits, scene = x.new_zeros(len(x), self.scenes), None
        if self.scene is not None:
            scene = self.scene(x)
            scene_logits = self.scene_classifier(scene)
        if self.event is None:
            return JointOutput(scene_logits, scene_embedding=scene)
        events = self.event(x)
        frames = self.event_classifier(events)
        return JointOutput(scene_logits, frames.amax(1), scene, events.mean(1), frame_logits=frames)


def _activation(config: Config) -> nn.Module:
    return nn.LeakyReLU() if config.variant == "paper" else nn.ReLU()


def _hidden(inputs: int, config: Config) -> nn.Sequential:
    outputs = scaled(HIDDEN, config.width)
    dropout = config.dropout if config.dropout is not None else {"paper": 0.0, "code": 0.15}[config.variant]
    return nn.Sequential(nn.Linear(inputs, outputs), _activation(config), nn.Dropout(dropout))


def build(config: Config, labels: LabelSpace, audio: AudioFormat) -> SceneEventNet:
    """Raises ValueError for a corpus without scenes or without events, and clips too short for the scene
    branch."""
    if not labels.scenes and config.task != "events":
        raise ValueError("family bigru_mtl needs scene labels; the corpus has none; task=events does not")
    _refuse_no_events(labels)
    frontend = LogMel(
        audio.sample_rate,
        n_mels=config.n_mels,
        f_min=config.f_min,
        f_max=config.f_max,
        window=WINDOW,
        hop=HOP,
        whole_hops=True,
        augment=SpecAugment(config.time_mask, config.freq_mask) if config.spec_augment else None,
    )
    frames = frontend.frames(audio.samples)
    if frames < TIME_POOL and config.task != "events":
        raise ValueError(
            f"clips of {audio.samples / audio.sample_rate:.2f} s give {frames} frames; the scene branch "
            f"pools {TIME_POOL}, {frontend.seconds(TIME_POOL):.2f} s, into one"
        )
    return SceneEventNet(frontend, config, scenes=len(labels.scenes), events=len(labels.events))


def _reversal(config: Config, place: str) -> nn.Module:
    return GradientReversal(config.reversal_strength) if config.reversal == place else nn.Identity()


def _refuse_no_events(labels: LabelSpace) -> None:
    if not labels.events:
        raise ValueError("family bigru_mtl needs event labels; the corpus has none")


def terms(config: Config) -> dict[str, Term]:
    both: dict[str, Term] = {"scene_ce": losses.scene_ce, "frame_bce": losses.frame_bce}
    return {name: both[name] for name in weights(config)}


def weights(config: Config) -> dict[str, float]:
    if config.task == "mtl":
        return {"scene_ce": config.w_scene, "frame_bce": config.w_event}
    return {"scene_ce": 1.0} if config.task == "scene" else {"frame_bce": 1.0}


def relabel(config: Config) -> Relabel | None:
    if config.fake == "none":
        return None
    shuffle = fake_scenes if config.fake == "scene" else fake_events

    def relabelled(batch: Batch, seed: int, epoch: int) -> Batch:
        return shuffle(batch, seed, epoch if config.fake_redrawn else 0)

    return relabelled


def suggest(trial: BaseTrial, labels: LabelSpace) -> dict[str, Any]:
    """The space: one task or both, how they are weighed, what is reversed, and how it is trained. Fake labels
    and task=events can only be set: a search is for the best scenes."""
    _refuse_no_events(labels)
    knobs: dict[str, Any] = {"task": dimensions.choice(trial, "task", ("mtl", "scene"))}
    knobs["variant"] = dimensions.choice(trial, "variant", ("paper", "code"))
    if knobs["task"] == "mtl":
        knobs["w_scene"] = dimensions.small_weight(trial, "w_scene")
        knobs["reversal"] = dimensions.choice(trial, "reversal", REVERSALS)
        if knobs["reversal"] != "none":
            knobs["reversal_strength"] = dimensions.reversal_strength(trial)
    return knobs | dimensions.training(trial)


FAMILY = Family(
    name="bigru_mtl",
    config=Config,
    build=build,
    terms=terms,
    weights=weights,
    suggest=suggest,
    published=imoto2022.ROWS,
    frame_hop=HOP,
    relabel=relabel,
)
