"""Scenes from the raw waveform and a tag vector: Jung et al., "Acoustic scene classification using audio
tagging", Interspeech 2020 (paper), on the network of their DCASE 2019 system (code).

A residual network on pre-emphasised samples (parts/raw_resnet.py) is pooled to a code, from which the scene
is classified. The tag vector of the clip, a teacher's probabilities of K events stored in the shards by
`python -m trainables.teacher`, enters by concatenation, by attention on the filters of the last feature map
(parts/tag_attention.py), or both.

Where paper and code differ or are silent, the default is named here:
- Sizes: `widths=paper` is Table 1 as printed, 714,058 parameters without tags for stereo and ten scenes;
  `code2019` with `code_width=128` is the code's 636,736, with its last 1×1 convolution and an output without
  bias. Table 6's 676 k contradict Table 1; they are the 676,784 of code2019, code 128, with 80 outputs a tag
  layer, 3 shared layers and the rest as here, so the paper's figures are likely of that network.
- The second LeakyReLU of a block follows the sum, as in the code; Table 1 has it before (`activation`). Its
  slope is the code's .3. A convolution on the shortcut (no BatchNorm) is only where widths differ: in
  code2019.
- Whole clips in training as in the paper; `crop=5` is the code's. Evaluation takes whole clips; the code
  takes the first 479,520 samples, whose map is as long from the fourth block on.
- The samples are scaled to unit deviation in training; the code multiplies by 32000. What follows is a
  BatchNorm. Clips of any rate and number of channels are read; the layers are in samples.
- Codecat: code and tags side by side are the classifier's input. `codecat_transform` puts an FC layer of
  `code_width` after them. `before_code` joins the pooled map and the tags before the layer that gives the
  code. §4.3 calls the second row of Table 2 that with untransformed tags.
- Tag layers: as many outputs as tags (see the 676 k above; the paper is silent), each with LeakyReLU, which
  is assumed. The linear map to the attention comes after them and is not counted. Table 5's caption says
  separate layers, its text shared ones: shared. Then `concat_layers` is the number for both.
- Eq. 2 is misprinted; see TagAttention. It applies to the map that is pooled.
- The paper's classifier is an SVM on the code. It is fitted after the last epoch on the training clips' codes
  (whole clips; the code: random crops) and reported as `svm_accuracy` beside the softmax, which a search goes
  by. Kernel (of `classifier`) and epoch are chosen on validation (trainables/evaluators.py); the code takes
  both on the test fold.
- Not built: the code's centre loss (its centres never move) and AMSGrad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from datasets.labels import LabelSpace
from searchspace import dimensions
from searchspace.papers import jung2020
from trainables import losses
from trainables.contract import AudioFormat, Family, JointOutput, Term
from trainables.knobs import check, check_range
from trainables.parts.cnn import scaled
from trainables.parts.raw_resnet import (
    Activation,
    PreEmphasis,
    RandomCrop,
    RawResNet,
    least_samples,
    pooled,
)
from trainables.parts.tag_attention import TagAttention, tag_layers

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Widths = Literal["paper", "code2019"]
Concat = Literal["codecat", "codecat_transform", "before_code"]
TagUse = Literal["none", "concat", "attention", "both"]
Classifier = Literal["svm", "svm_rbf", "svm_sigmoid", "softmax"]
KERNELS: dict[Classifier, tuple[str, ...]] = {
    "svm": ("rbf", "sigmoid"),
    "svm_rbf": ("rbf",),
    "svm_sigmoid": ("sigmoid",),
    "softmax": (),
}
BLOCKS = 7
WIDTHS: dict[Widths, tuple[int, ...]] = {
    "paper": (128,) * (1 + BLOCKS),
    "code2019": (128, 64, 64, 128, 128, 128, 128, 128),
}


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's best setting (Table 5, 4 heads and 3 layers).

    widths             paper | code2019: filters of the strided convolution and the blocks, and what comes
                       after the blocks
    code_width         numbers in the code (paper 64, 2019 code 128)
    tag_use            none (the baseline) | concat | attention | both
    concat             codecat | codecat_transform | before_code: where the tags are put beside the scene's
    concat_layers      FC layers on the tags before that (0 … 5)
    attention_layers   FC layers on the tags before the attention's linear map (0 … 4)
    shared_tag_layers  with tag_use=both, the `concat_layers` serve both
    tag_width          outputs of a tag layer; 0 = as many as tags
    heads              groups of filters with a softmax of their own; divides the last map's filters
    attention_rescale  multiply the attention by filters / heads: a mean gain of 1
    activation         after_add | before_add: place of a block's second LeakyReLU; leaky_slope its slope
    classifier         svm (both) | svm_rbf | svm_sigmoid | softmax (none): SVMs fitted after training
    pre_emphasis       a in x[t] - a·x[t - 1]
    crop               s of a clip in a training step, from a random place; 0 = all of it
    width              multiplies all filters, the code and the tag layers; 1 is the published size
    """

    widths: Widths = "paper"
    code_width: int = 64
    tag_use: TagUse = "both"
    concat: Concat = "before_code"
    concat_layers: int = 3
    attention_layers: int = 3
    shared_tag_layers: bool = True
    tag_width: int = 0
    heads: int = 4
    attention_rescale: bool = False
    activation: Activation = "after_add"
    leaky_slope: float = 0.3
    classifier: Classifier = "svm"
    pre_emphasis: float = 0.97
    crop: float = 0.0
    width: float = 1.0

    def __post_init__(self) -> None:
        check(self)
        for name in ("code_width", "heads"):
            check_range(self, name, 1)
        check_range(self, "tag_width", 0)
        check_range(self, "concat_layers", 0, 5)
        check_range(self, "attention_layers", 0, 4)
        check_range(self, "leaky_slope", 0.0, 1.0)
        check_range(self, "pre_emphasis", 0.0, 1.0)
        check_range(self, "crop", 0.0)
        check_range(self, "width", 0.0, above=True)

    @property
    def concatenates(self) -> bool:
        return self.tag_use in ("concat", "both")

    @property
    def attends(self) -> bool:
        return self.tag_use in ("attention", "both")


class TagConditionedResNet(nn.Module):
    """(waveform (B, C, N), tags (B, K)) → JointOutput with scenes only; `scene_embedding` is the code.

    reads_tags   K, 0 for a model without tags, whose `forward` takes the waveform alone
    concat_tags  (B, K) → (B, J) what is put beside the scene's numbers; None without concatenation
    attend_tags  the same for the attention; None: the attention reads what `concat_tags` gives
    """

    event_classifier = None

    def __init__(
        self,
        frontend: PreEmphasis,
        trunk: RawResNet,
        concat_tags: nn.Module | None,
        attend_tags: nn.Module | None,
        attention: TagAttention | None,
        code: nn.Linear,
        transform: nn.Linear | None,
        scene_classifier: nn.Linear,
        *,
        reads_tags: int,
        before_code: bool,
    ) -> None:
        super().__init__()
        self.frontend, self.trunk = frontend, trunk
        self.concat_tags, self.attend_tags, self.attention = concat_tags, attend_tags, attention
        self.code, self.transform, self.scene_classifier = code, transform, scene_classifier
        self.reads_tags, self.before_code = reads_tags, before_code

    def forward(self, waveform: Tensor, tags: Tensor | None = None) -> JointOutput:
        return self.from_features(self.frontend(waveform), tags)

    def from_features(self, x: Tensor, tags: Tensor | None = None) -> JointOutput:
        """Pre-emphasised samples (B, C, T, 1) and tags → JointOutput. Raises ValueError for tags of another
        length."""
        beside, attended = self._tags(tags)
        x = self.trunk(x.squeeze(3))
        if self.attention is not None:
            x = self.attention(x, attended)
        x = pooled(x)
        if beside is None:
            code = self.code(x)
        elif self.before_code:
            code = self.code(torch.cat([x, beside], 1))
        else:
            code = torch.cat([self.code(x), beside], 1)
            code = code if self.transform is None else self.transform(code)
        return JointOutput(self.scene_classifier(code), scene_embedding=code)

    def _tags(self, tags: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """(B, J) for the concatenation, (B, J') for the attention; None where there is none."""
        if not self.reads_tags:
            return None, None
        if tags is None or tags.shape[1] != self.reads_tags:
            raise ValueError(
                f"clips with {0 if tags is None else tags.shape[1]} tags; {self.reads_tags} expected"
            )
        beside = None if self.concat_tags is None else self.concat_tags(tags)
        return beside, beside if self.attend_tags is None else self.attend_tags(tags)


def build(config: Config, labels: LabelSpace, audio: AudioFormat) -> TagConditionedResNet:
    """Raises ValueError for a corpus without scenes, or without tags where the model is to read them; heads
    that do not divide the filters; clips or crops too short for the blocks."""
    if not labels.scenes:
        raise ValueError("family tagvector needs scene labels; the corpus has none")
    if config.tag_use != "none":
        _refuse_no_tags(labels)
    crop = round(config.crop * audio.sample_rate)
    _refuse_too_short(config, crop, audio)
    widths = [scaled(filters, config.width) for filters in WIDTHS[config.widths]]
    tags, filters = len(labels.tags), widths[-1]
    code = scaled(config.code_width, config.width)
    tag_width = scaled(config.tag_width or tags, config.width)

    def layers(count: int) -> tuple[nn.Module, int]:
        return tag_layers(tags, tag_width, count, config.leaky_slope), tag_width if count else tags

    concat_tags, beside = layers(config.concat_layers) if config.concatenates else (None, 0)
    attend_tags, attended = None, beside
    if config.attends and not (config.concatenates and config.shared_tag_layers):
        attend_tags, attended = layers(config.attention_layers)
    before_code = config.concat == "before_code"
    transform = config.concatenates and config.concat == "codecat_transform"
    classified = code + beside if config.concatenates and config.concat == "codecat" else code
    return TagConditionedResNet(
        PreEmphasis(audio.sample_rate, config.pre_emphasis, RandomCrop(crop) if crop else None),
        RawResNet(
            audio.channels,
            widths,
            slope=config.leaky_slope,
            activation=config.activation,
            last=config.widths == "code2019",
        ),
        concat_tags,
        attend_tags,
        TagAttention(attended, filters, config.heads, rescale=config.attention_rescale)
        if config.attends
        else None,
        nn.Linear(2 * filters + (beside if before_code else 0), code),
        nn.Linear(code + beside, code) if transform else None,
        nn.Linear(classified, len(labels.scenes), bias=config.widths == "paper"),
        reads_tags=0 if config.tag_use == "none" else tags,
        before_code=before_code,
    )


def _refuse_no_tags(labels: LabelSpace) -> None:
    if not labels.tags:
        raise ValueError(
            "family tagvector reads tag vectors; the shards hold none: `python -m trainables.teacher SHARDS "
            "--model MODEL --out OUT` writes them (`trainables.train --set tag_use=none` trains the baseline "
            "without)"
        )


def _refuse_too_short(config: Config, crop: int, audio: AudioFormat) -> None:
    least = least_samples(BLOCKS)
    shown = f"the network needs {least + 1} samples, {(least + 1) / audio.sample_rate:.2f} s"
    if audio.samples <= least:
        raise ValueError(
            f"clips of {audio.samples} samples, {audio.samples / audio.sample_rate:.2f} s: {shown}"
        )
    if crop and crop < least:
        raise ValueError(f"crop={config.crop:g} s at {audio.sample_rate} Hz: {shown}")


def terms(config: Config) -> dict[str, Term]:
    return {"scene_ce": losses.scene_ce}


def weights(config: Config) -> dict[str, float]:
    return {"scene_ce": 1.0}


def suggest(trial: BaseTrial, labels: LabelSpace) -> dict[str, Any]:
    """The space: how the tags enter, the network's two sizes, and how it is trained."""
    _refuse_no_tags(labels)
    knobs: dict[str, Any] = {"tag_use": dimensions.choice(trial, "tag_use", get_args(TagUse))}
    concatenates, attends = knobs["tag_use"] in ("concat", "both"), knobs["tag_use"] in ("attention", "both")
    shared = False
    if concatenates:
        knobs["concat"] = dimensions.choice(trial, "concat", get_args(Concat))
        knobs["concat_layers"] = dimensions.tag_layers(trial, "concat_layers", 5)
    if concatenates and attends:
        knobs["shared_tag_layers"] = shared = dimensions.switch(trial, "shared_tag_layers")
    if attends:
        if not shared:
            knobs["attention_layers"] = dimensions.tag_layers(trial, "attention_layers", 4)
        knobs["heads"] = dimensions.filter_heads(trial)
        knobs["attention_rescale"] = dimensions.switch(trial, "attention_rescale")
    if knobs["tag_use"] != "none":
        knobs["tag_width"] = dimensions.tag_width(trial)
    knobs["widths"] = dimensions.choice(trial, "widths", get_args(Widths))
    knobs["code_width"] = dimensions.code_width(trial)
    knobs["activation"] = dimensions.choice(trial, "activation", get_args(Activation))
    knobs["crop"] = dimensions.crop(trial)
    knobs["mixup"] = dimensions.mixup(trial)
    knobs["batch_size"] = dimensions.batch_size(trial)
    knobs["lr"] = dimensions.learning_rate(trial)
    knobs["schedule"] = dimensions.schedule(trial)
    knobs["optimiser"] = dimensions.optimiser(trial)
    knobs["weight_decay"] = dimensions.weight_decay(trial)
    return knobs


FAMILY = Family(
    name="tagvector",
    config=Config,
    build=build,
    terms=terms,
    weights=weights,
    suggest=suggest,
    published=jung2020.ROWS,
    svm_kernels=lambda config: KERNELS[config.classifier],
)
