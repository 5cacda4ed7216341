"""A tagger of events in the way of Akiyama & Sato, "DCASE 2019 Task 2: Multitask learning, semi-supervised
learning and model ensemble with noisy data for audio tagging" (paper; fat2019 code), which tags the scenes of
Jung et al. 2020 (families/tagvector.py).

    python -m datasets.prepare fsdkaggle2019 FSD --train both --out shards/fsd
    python tune_csem.py --family tagger --data shards/fsd --objective val/event_lwlrap
    python -m trainables.teacher SCENES --model studies/NAME/best --out TAGGED

A ResNet-34 on log-mel features with two heads on its maximum over time and frequency: one learns from the
clips whose labels people have checked, the other from those that nobody has (`Batch.curated`). What the
labels of the second kind get wrong then stays out of the first, which is the one that tags. With
`w_pseudo` the first head also learns from all clips by soft pseudo labels: the tags of an earlier tagger of
the same events, sharpened, in the clips that nobody has checked. Those come from `python -m
trainables.teacher` on the same shards; `pretrained` starts from that tagger, as they do.

On any corpus with event labels it trains the first head; a corpus that does not tell which of its clips were
checked has no clips for the second. Of scenes the model says nothing: search by an event metric.

Where this differs from the code:
- Features are parts/frontend.py's with their window, hop and bins (128, 20 Hz to 22.05 kHz, 58 ms every 7.9
  ms), each bin at the training set's mean and deviation; theirs are in dB with the loudest 80 dB kept, at the
  clip's mean and deviation. Shorter clips end in digital silence.
- Crops are from where the clip sounds. A mask of up to `freq_mask` bins; theirs in half of the clips. mixup
  by the recipe's `mixup` (theirs: half of the batches, α = 1); checked clips are mixed with checked ones.
- The noisy head's loss has one sigmoid; theirs two (`noisy_loss=bce_of_sigmoid`).
- A batch has checked and other clips as they come, or as `--mix NOISY:64` says; theirs has 64 of each.
- Not built: their random gain, the crop's random extension, folds and ensemble.
With 80 events it has 24,592,224 parameters; the code's 25,114,632 count two layers that are never called.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor, nn

from datasets.labels import LabelSpace
from searchspace import dimensions
from searchspace.papers import akiyama2019
from trainables import losses
from trainables.contract import AudioFormat, Family, JointOutput, Term
from trainables.knobs import check, check_range
from trainables.parts.cnn import scaled
from trainables.parts.frontend import LogMel, SpecAugment
from trainables.parts.resnet import RESNET34, ResNet
from trainables.parts.sounding_crop import SoundingCrop

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

NoisyLoss = Literal["bce", "bce_of_sigmoid"]
WINDOW, HOP = Fraction(2560, 44100), Fraction(347, 44100)  # s
HEAD = 1024


@dataclass(frozen=True)
class Config:
    """Defaults are the first ResNet of the code.

    w_noisy            weight of the second head's term
    noisy_loss         bce | bce_of_sigmoid (the code's, a sigmoid too many)
    w_pseudo           weight of the soft pseudo labels' term; 0 = none, the code's second ResNet has 20
    temperature        T of their sharpening p^T / Σ p^T
    width              multiplies the network's channel counts and the heads' layers; 1 is ResNet-34
    crop_frames        frames of a clip in a training step; 0 = all of them
    n_mels, f_min, f_max  mel bins and their limits in Hz; f_max None = min(22050, half the sampling rate)
    freq_mask          mask a stripe of up to this many mel bins in training
    """

    w_noisy: float = 1.0
    noisy_loss: NoisyLoss = "bce"
    w_pseudo: float = 0.0
    temperature: float = 2.0
    width: float = 1.0
    crop_frames: int = 512
    n_mels: int = 128
    f_min: float = 20.0
    f_max: float | None = None
    freq_mask: int = 32

    def __post_init__(self) -> None:
        check(self)
        for name in ("width", "temperature"):
            check_range(self, name, 0.0, above=True)
        for name in ("w_noisy", "w_pseudo"):
            check_range(self, name, 0.0)
        check_range(self, "n_mels", 1)
        for name in ("crop_frames", "freq_mask"):
            check_range(self, name, 0)


class TwoHeadedTagger(nn.Module):
    """Waveform (B, C, N) → JointOutput without scenes. `event_logits` are the first head's."""

    def __init__(self, frontend: LogMel, encoder: ResNet, events: int, head: int) -> None:
        super().__init__()
        self.frontend, self.encoder = frontend, encoder
        self.event_classifier = _head(encoder.outputs, head, events)
        self.noisy_classifier = _head(encoder.outputs, head, events)

    def forward(self, waveform: Tensor) -> JointOutput:
        return self.from_features(self.frontend(waveform))

    def from_features(self, x: Tensor) -> JointOutput:
        """Normalised features (B, 1, T, F) → JointOutput."""
        embedding = self.encoder(x)
        return JointOutput(
            embedding[:, :0],
            self.event_classifier(embedding),
            event_embedding=embedding,
            noisy_event_logits=self.noisy_classifier(embedding),
        )


def _head(inputs: int, hidden: int, events: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(hidden, events),
    )


def build(config: Config, labels: LabelSpace, audio: AudioFormat) -> TwoHeadedTagger:
    """Raises ValueError for a corpus without events, for pseudo labels without tags of the same events, and
    for clips shorter than a window."""
    _refuse_no_events(labels)
    if config.w_pseudo and labels.tags != labels.events:
        found = f"the {len(labels.tags)} tags there are of others" if labels.tags else "the shards hold none"
        raise ValueError(
            f"w_pseudo={config.w_pseudo:g} learns from tags of the corpus's {len(labels.events)} events in "
            f"their order; {found}: train a tagger on these shards with w_pseudo=0, then `python -m "
            "trainables.teacher SHARDS --model TAGGER --out OUT`"
        )
    mask = SpecAugment(0, config.freq_mask, masks=1)
    frontend = LogMel(
        audio.sample_rate,
        n_mels=config.n_mels,
        f_min=config.f_min,
        f_max=config.f_max,
        window=WINDOW,
        hop=HOP,
        augment=SoundingCrop(config.crop_frames, mask) if config.crop_frames else mask,
    )
    frontend.frames(audio.samples)
    encoder = ResNet(1, config.width, depths=RESNET34, pool="max")
    return TwoHeadedTagger(frontend, encoder, len(labels.events), scaled(HEAD, config.width))


def _refuse_no_events(labels: LabelSpace) -> None:
    if not labels.events:
        raise ValueError("family tagger needs event labels; the corpus has none")


def terms(config: Config) -> dict[str, Term]:
    noisy = losses.noisy_bce if config.noisy_loss == "bce" else losses.noisy_bce_of_sigmoid
    pseudo = {"pseudo_mse": losses.pseudo_mse(config.temperature)} if config.w_pseudo else {}
    return {"curated_bce": losses.curated_bce, "noisy_bce": noisy, **pseudo}


def weights(config: Config) -> dict[str, float]:
    pseudo = {"pseudo_mse": config.w_pseudo} if config.w_pseudo else {}
    return {"curated_bce": 1.0, "noisy_bce": config.w_noisy, **pseudo}


def suggest(trial: BaseTrial, labels: LabelSpace) -> dict[str, Any]:
    """The space: what the unchecked labels count, how much of a clip is seen, how it is trained."""
    _refuse_no_events(labels)
    return {
        "w_noisy": dimensions.loss_weight(trial, "w_noisy"),
        "noisy_loss": dimensions.choice(trial, "noisy_loss", get_args(NoisyLoss)),
        "crop_frames": dimensions.crop_frames(trial),
        "freq_mask": dimensions.frequency_mask(trial),
        "mixup": dimensions.strong_mixup(trial),
        "lr": dimensions.learning_rate(trial),
        "schedule": dimensions.schedule(trial),
    }


FAMILY = Family(
    name="tagger",
    config=Config,
    build=build,
    terms=terms,
    weights=weights,
    suggest=suggest,
    published=akiyama2019.ROWS,
)
