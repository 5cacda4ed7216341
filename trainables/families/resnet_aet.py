"""Event tagging as an auxiliary task of scene classification: Parikh et al., "Impact of acoustic event
tagging on scene classification in a multi-task learning framework", 2022 (paper; no code was published).

One ResNet-18 encoder on log-mel, a scene head and a tag head, each one fully connected layer, and
L = α·L_AET + (1 - α)·L_ASC (Eq. 1): categorical and binary cross-entropy. A batch holds 64 clips of a scene
corpus and 128 of an event corpus; each head learns from the clips whose label is known.

    python -m trainables.train resnet_aet --data SCENES --mix EVENTS:128 --set mixup=0.2

The study (the paper's figures, 4 seeds each):
- α, Fig. 2: `tune_csem.py --family resnet_aet --table fig2 --data SCENES --mix EVENTS:128 --seeds 4 --epochs
  N`; the report draws the sweep. α from the converged losses of the two single tasks, Eq. 3: `--set alpha=0`
  on SCENES, `--set alpha=1` on EVENTS, then `python -m trainables.balance RUN_ASC RUN_AET`.
- Choice of events, hours and number of classes, Figs. 3 and 4: an event set each by `python -m
  datasets.subset` (random; most or least probable by the tags of `python -m trainables.teacher` on the
  scenes; --hours; --events), a study each of `--table fig2 --rows 15`, then `python -m reports.sweep STUDY …
  --of study`, `--of hours` or `--of events`. Its `--only scenes` and `--only events` make the two sets of one
  corpus that has both labels.
- Pre-train, then fine-tune, Fig. 5: the run on EVENTS alone with `--out RUN_AET`, then `--table fig5 --rows 2
  --data SCENES --set pretrained=RUN_AET accept_mismatch=true` (all but the heads is taken over), against
  `--rows 1` on SCENES and `--rows 3` on the mixture, by `--of study`.

On a mixture with α = 0 or 1 the other head's term is still computed and logged, with weight 0.

Where the paper is silent, the default is named here:
- Optimiser, learning rate and epochs: those of trainables/recipe.py (Adam, 1e-3), as for the other families.
- Mel settings: parts/frontend.py's, 64 bins, 46.4 ms every 31.2 ms, so that 10 s are 320 × 64.
- First convolution: ResNet-18's own 7×7 with stride 2 and the 3×3 maximum after it, on one channel in place
  of three; random weights.
- SpecAugment: two stripes of up to 64 frames and two of up to 8 mel bins. mixup: its α is not given, and it
  is a knob of the recipe (`mixup`, default 0); the published rows have 0.2. It blends clips of the same
  sub-batch, so that a clip's labels stay known.
- The terms are means, over clips for scenes and over clips × classes for events; L*_AET ≈ L*_ASC / 20 at
  convergence (§4.1) fits that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from datasets.labels import LabelSpace
from searchspace import dimensions
from searchspace.papers import parikh2022
from trainables import losses
from trainables.contract import AudioFormat, Family, JointOutput, Term
from trainables.knobs import check, check_range
from trainables.parts.frontend import LogMel, SpecAugment
from trainables.parts.resnet import RESNET18, ResNet

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's (§4.1).

    alpha              α: weight of the event term; the scene term has 1 - α
    width              multiplies the encoder's channel counts; 1 is ResNet-18
    n_mels, f_min, f_max  mel bins and their limits in Hz; f_max None = min(22050, half the sampling rate)
    spec_augment       mask two stripes of up to `time_mask` frames and two of up to `freq_mask` mel bins
    """

    alpha: float = 0.95
    width: float = 1.0
    n_mels: int = 64
    f_min: float = 50.0
    f_max: float | None = None
    spec_augment: bool = True
    time_mask: int = 64
    freq_mask: int = 8

    def __post_init__(self) -> None:
        check(self)
        check_range(self, "alpha", 0.0, 1.0)
        check_range(self, "width", 0.0, above=True)
        check_range(self, "n_mels", 1)
        for name in ("time_mask", "freq_mask"):
            check_range(self, name, 0)


class NoClasses(nn.Module):
    """The head of a task without labels: (B, D) → (B, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :0]


class AuxiliaryTaggingModel(nn.Module):
    """Waveform (B, C, N) → JointOutput; both heads read the same embedding (B, 512·width)."""

    def __init__(self, frontend: LogMel, encoder: ResNet, scenes: int, events: int) -> None:
        super().__init__()
        self.frontend, self.encoder = frontend, encoder
        self.scene_classifier = _head(encoder.outputs, scenes)
        self.event_classifier = _head(encoder.outputs, events)

    def forward(self, waveform: Tensor) -> JointOutput:
        return self.from_features(self.frontend(waveform))

    def from_features(self, x: Tensor) -> JointOutput:
        """Normalised features (B, 1, T, F) → JointOutput."""
        embedding = self.encoder(x)
        return JointOutput(
            self.scene_classifier(embedding), self.event_classifier(embedding), embedding, embedding
        )


def _head(inputs: int, classes: int) -> nn.Module:
    return nn.Linear(inputs, classes) if classes else NoClasses()


def build(config: Config, labels: LabelSpace, audio: AudioFormat) -> AuxiliaryTaggingModel:
    """Raises ValueError for an α that weighs a task the clips have no labels of, and for clips shorter than a
    window."""
    if config.alpha > 0 and not labels.events:
        raise ValueError(
            f"alpha={config.alpha:g} weighs the event term, these shards have no event labels; mix in a set "
            "that has (--mix SHARDS:128), or set alpha=0 for scenes alone"
        )
    if config.alpha < 1 and not labels.scenes:
        raise ValueError(
            f"alpha={config.alpha:g} leaves {1 - config.alpha:g} for the scene term, these shards have no "
            "scene labels; give them as --mix beside a scene corpus, or set alpha=1 for events alone"
        )
    frontend = LogMel(
        audio.sample_rate,
        n_mels=config.n_mels,
        f_min=config.f_min,
        f_max=config.f_max,
        augment=SpecAugment(config.time_mask, config.freq_mask) if config.spec_augment else None,
    )
    frontend.frames(audio.samples)
    return AuxiliaryTaggingModel(
        frontend, ResNet(1, config.width, depths=RESNET18), len(labels.scenes), len(labels.events)
    )


def terms(config: Config) -> dict[str, Term]:
    return {"scene_ce": losses.scene_ce, "event_bce": losses.event_bce}


def weights(config: Config) -> dict[str, float]:
    return {"scene_ce": 1 - config.alpha, "event_bce": config.alpha}


def suggest(trial: BaseTrial, labels: LabelSpace) -> dict[str, Any]:
    """The space: how much the auxiliary task weighs against scenes, what else regularises, how it is
    trained. On clips with one kind of label only the α that trains it.
    """
    if labels.events and labels.scenes:
        knobs: dict[str, Any] = {"alpha": dimensions.auxiliary_share(trial)}
    else:
        knobs = {"alpha": 1.0 if labels.events else 0.0}
    return knobs | dimensions.training(trial)


FAMILY = Family(
    name="resnet_aet",
    config=Config,
    build=build,
    terms=terms,
    weights=weights,
    suggest=suggest,
    published=parikh2022.ROWS,
)
