"""Cooperative scene-event modelling: Hou et al., IEEE/ACM TASLP 2023, and its released code.

A backbone (PANN, CNNT, TinyCNN or AST) is split after `shared_layers` blocks into a scene branch and an event
branch; the weights of the two classifiers make a coupling matrix through which each branch infers the other's
answer (Algorithm 1, parts/coupling.py).

Frameworks, Fig. 1:
scene_only  one branch, no events
moe         one branch up to and including the embedding, two classifiers on it
mlhe        shared blocks, then two branches
mlhe_plus   mlhe with one more FC + ReLU in each branch (Table VI)
csem        mlhe with the coupling; no more parameters than mlhe

Where the paper and the code differ, or the paper is silent, the default is named here:
- Shared layers of TinyCNN: paper 1 (§V-A), code 2. Default 2, the code's; `shared_layers=1` is the paper's.
- Loss weights: paper's best (1, .5, .01, .01) (Table VIII #14); the code has 1 everywhere. Default: the
  paper's best.
- Relation targets: the paper speaks of correcting the other branch only; the code lets gradients through the
  target. Default: the code's; `detach=True` cuts them.
- s_by_e target: Algorithm 1 prints ŷ_s; Table IX #5 and the code take log ŷ_s. Default: Table IX #5.
- CNNT's encoder: the paper says "a Transformer encoder layer from AST"; the code has self-attention and a
  LayerNorm only. Default: the code's; `cnnt_encoder=paper` is a whole layer of AST's (with CNNT's 8 heads).
- Dropout: the paper gives no rates. PANN .2 after blocks and .5 before the embedding, TinyCNN .3 after blocks
  and embedding, CNNT and AST none: the code's.
- Initialisation: He-uniform convolutions, embeddings and classifiers in PANN and CNNT; PyTorch's own in
  TinyCNN, whose `init_weight` the code never calls; in AST truncated normal (σ .02) tokens, positions and
  encoder, He-uniform embeddings, PyTorch's own patch convolution and classifiers.
- AST's window: paper "25 ms Hamming"; code Kaldi's "hanning". The code's.
- AST's scene embedding: cSEM-AST of the code L2-normalises E_s before classifier and coupling, and the scene
  classifier's rows once, at the start; of MlhE-AST the code has both versions; the paper is silent. Default:
  with AST in csem only; `normalise_scene` says otherwise.
- AST's second LayerNorm, between the mean of the two tokens and the embedding: in the code of the two-branch
  frameworks only, the paper is silent. The code's.
- AST's learning rate: paper 1e-6; code 1e-3 in the joint models. The published rows have the paper's; the
  recipe's default of 1e-3 is the CNN models'. SpecAugment: the code's has four stripes of frequency in one of
  the single-task models, none in the joint ones; ours, if switched on, has two.
- `input_norm`, a BatchNorm over mel bins before the first block: in the single-task PANN of Table V (Cnn14
  with bn0), in no joint model.
- Pretraining: the paper starts PANN, CNNT and AST from AudioSet weights; the released loops load none.
  Default: none; `pretrained` of the recipe starts from a file (trainables/pretrained.py). PANNs' weights
  belong to 10·log10 mel of 16 or 32 kHz behind a BatchNorm, here they get ln mel scaled bin by bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.labels import LabelSpace
from searchspace import dimensions
from searchspace.papers import hou2023
from trainables import losses
from trainables.contract import AudioFormat, Family, JointOutput, Term
from trainables.knobs import check, check_range
from trainables.losses import RelationLoss
from trainables.parts import ast_encoder, cnn, cnn_transformer
from trainables.parts.backbone import Backbone, branch, trunk
from trainables.parts.coupling import infer
from trainables.parts.frontend import LogMel, SpecAugment
from trainables.parts.kaldi_fbank import KaldiFbank

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

T = TypeVar("T")
FrontEnd = LogMel | KaldiFbank
BackboneName = Literal["tinycnn", "cnnt", "pann", "ast"]
Framework = Literal["scene_only", "moe", "mlhe", "mlhe_plus", "csem"]
BACKBONES: tuple[str, ...] = get_args(BackboneName)
FRAMEWORKS: tuple[str, ...] = get_args(Framework)
DEEPEST = 12  # encoder blocks of the AudioSet model
RELATION_LOSSES: tuple[str, ...] = get_args(RelationLoss)
TWO_BRANCHES = ("mlhe", "mlhe_plus", "csem")
LEARNING_RATES = {"ast": (1e-7, 1e-3)}  # the paper's is 1e-6


@dataclass(frozen=True)
class Released:
    """What the released code fixes for a backbone; `least` is the fewest frames and mel bins it can read. The
    masks cover about as many seconds and the same share of the mel bins with ast as with the others.
    """

    blocks: int
    shared_layers: int
    dropout: float
    embedding_dropout: float
    least: int
    n_mels: int = 64
    f_min: float = 50.0
    time_mask: int = 20
    freq_mask: int = 8


RELEASED = {
    "tinycnn": Released(blocks=2, shared_layers=2, dropout=0.3, embedding_dropout=0.3, least=cnn.TINY_LEAST),
    "cnnt": Released(
        blocks=4, shared_layers=2, dropout=0.0, embedding_dropout=0.0, least=cnn_transformer.LEAST
    ),
    "pann": Released(blocks=6, shared_layers=2, dropout=0.2, embedding_dropout=0.5, least=cnn.PANN_LEAST),
    "ast": Released(
        blocks=10,
        shared_layers=4,
        dropout=0.0,
        embedding_dropout=0.0,
        least=ast_encoder.LEAST,
        n_mels=128,
        f_min=20.0,
        time_mask=64,
        freq_mask=16,
    ),
}


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's best setting of a CNN model: cSEM-PANN with the weights of Table VIII #14.

    backbone           tinycnn (2 blocks) | cnnt (3 convolution blocks and a self-attention) | pann (6 blocks)
                       | ast (10 encoder blocks)
    framework          scene_only | moe | mlhe | mlhe_plus | csem
    shared_layers      blocks before the branches part, with two branches only; None = the backbone's, 2 or
                       with ast 4
    depth              encoder blocks of ast, 1 to 12; None = 10
    width              multiplies every channel count; 1 is the published size. ast keeps its 12 heads
    w_…                weights of the loss terms: λ1 scene, λ2 event, λ3 scene_from_event, λ4 event_from_scene
    relation_loss      Table IX #1-#5: ce_hard | ce_soft | mse_logits | mse_probabilities | mse_log_softmax
    detach             cut the gradient of the relation terms' targets
    normalise_scene    L2-normalise the scene embedding, and the scene classifier's rows at the start; None =
                       only for csem with ast
    event_loss         bce (hard labels) | mse (soft labels)
    dropout            after every convolution block, in ast of what a sublayer adds; None = the backbone's
    embedding_dropout  beside the embedding layer; None = the backbone's
    input_norm         BatchNorm over mel bins; None = only for scene_only with pann
    activation_checkpointing  compute ast's blocks again in the backward pass, for memory; None = no
    cnnt_encoder       code (self-attention and LayerNorm) | paper (an encoder layer of AST); of cnnt only
    n_mels             mel bins; None = 64, with ast 128
    f_min, f_max       limits of the mel bins, Hz; f_min None = 50, with ast 20; f_max None = min(22050, half
                       the sampling rate), with ast 8000
    spec_augment       mask two stripes of up to `time_mask` frames and two of up to `freq_mask` mel bins in
                       training; None = 20 and 8, with ast 64 and 16
    """

    backbone: BackboneName = "pann"
    framework: Framework = "csem"
    shared_layers: int | None = None
    depth: int | None = None
    width: float = 1.0
    w_scene: float = 1.0
    w_event: float = 0.5
    w_scene_from_event: float = 0.01
    w_event_from_scene: float = 0.01
    relation_loss: RelationLoss = "mse_log_softmax"
    detach: bool = False
    normalise_scene: bool | None = None
    event_loss: Literal["bce", "mse"] = "bce"
    dropout: float | None = None
    embedding_dropout: float | None = None
    input_norm: bool | None = None
    activation_checkpointing: bool | None = None
    cnnt_encoder: Literal["code", "paper"] = "code"
    n_mels: int | None = None
    f_min: float | None = None
    f_max: float | None = None
    spec_augment: bool = False
    time_mask: int | None = None
    freq_mask: int | None = None

    def __post_init__(self) -> None:
        check(self)
        check_range(self, "width", 0.0, above=True)
        for name in ("w_scene", "w_event", "w_scene_from_event", "w_event_from_scene"):
            check_range(self, name, 0.0)
        for name in ("time_mask", "freq_mask"):
            check_range(self, name, 0)
        for name in ("dropout", "embedding_dropout"):
            check_range(self, name, 0.0, 0.99)
        check_range(self, "n_mels", 1)
        check_range(self, "depth", 1, DEEPEST)
        for name in ("depth", "activation_checkpointing"):
            if self.backbone != "ast" and getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)}: only backbone ast has it, not {self.backbone}"
                )
        if self.shared_layers is None:
            return
        if self.framework not in TWO_BRANCHES:
            raise ValueError(
                f"shared_layers={self.shared_layers}: framework {self.framework} has one branch and shares "
                f"all of it; only {', '.join(TWO_BRANCHES)} part"
            )
        check_range(self, "shared_layers", 1, _depth(self))


class SceneEventModel(nn.Module):
    """Waveform (B, C, N) → JointOutput. Parts: `shared` (blocks of both tasks), `scene` and `event` (the rest
    of each branch, up to the embedding (B, D)), `scene_classifier` and `event_classifier`.

    With one branch everything is in `shared` and `scene`, and an event classifier reads the scene embedding
    (moe). Blocks keep the released code's numbers: `scene.block3` is its conv_block3, `event.block3` its
    conv_block3_event.
    """

    def __init__(
        self,
        frontend: FrontEnd,
        backbone: Backbone,
        scenes: int,
        events: int,
        *,
        shared_layers: int,
        two_branches: bool,
        embedding_layers: int = 1,
        coupled: bool = False,
        input_norm: bool = False,
        normalise_scene: bool = False,
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.bn0 = nn.BatchNorm2d(frontend.n_mels) if input_norm else None
        self.shared = trunk(backbone, shared_layers)
        self.scene = branch(backbone, shared_layers, embedding_layers)
        self.event = branch(backbone, shared_layers, embedding_layers) if two_branches else None
        classifier = backbone.classifier or backbone.linear
        self.scene_classifier = classifier(backbone.width, scenes)
        self.event_classifier = classifier(backbone.width, events) if events else None
        self.coupled, self.normalise_scene = coupled, normalise_scene
        if normalise_scene:
            with torch.no_grad():
                self.scene_classifier.weight.copy_(F.normalize(self.scene_classifier.weight))

    def forward(self, waveform: Tensor) -> JointOutput:
        return self.from_features(self.frontend(waveform))

    def from_features(self, x: Tensor) -> JointOutput:
        """Normalised features (B, 1, T, F) → JointOutput."""
        if self.bn0 is not None:
            x = self.bn0(x.transpose(1, 3)).transpose(1, 3)  # mel bins as channels
        x = self.shared(x)
        embedding = self.scene(x)
        scene = F.normalize(embedding) if self.normalise_scene else embedding
        scene_logits = self.scene_classifier(scene)
        if self.event_classifier is None:
            return JointOutput(scene_logits, scene_embedding=scene)
        event = embedding if self.event is None else self.event(x)
        output = JointOutput(scene_logits, self.event_classifier(event), scene, event)
        if not self.coupled:
            return output
        inferred = infer(scene, event, self.scene_classifier.weight, self.event_classifier.weight)
        return JointOutput(scene_logits, output.event_logits, scene, event, *inferred)


def build(config: Config, labels: LabelSpace, audio: AudioFormat) -> SceneEventModel:
    """Raises ValueError for a clip too short or too few mel bins for the backbone, or labels that the
    framework lacks.
    """
    with_events = config.framework != "scene_only"
    if not labels.scenes:
        raise ValueError("family csem needs scene labels; the corpus has none")
    if with_events and not labels.events:
        raise ValueError(
            f"framework={config.framework} needs event labels; the corpus has none (scene_only does not)"
        )
    frontend = _frontend(config, audio)
    frames = frontend.frames(audio.samples)
    _refuse_too_small(config, frontend, audio, frames)
    two_branches = config.framework in TWO_BRANCHES
    return SceneEventModel(
        frontend,
        _backbone(config, frontend.n_mels, frames),
        scenes=len(labels.scenes),
        events=len(labels.events) if with_events else 0,
        shared_layers=_shared_layers(config) if two_branches else _depth(config),
        two_branches=two_branches,
        embedding_layers=2 if config.framework == "mlhe_plus" else 1,
        coupled=config.framework == "csem",
        input_norm=_given(config.input_norm, config.framework == "scene_only" and config.backbone == "pann"),
        normalise_scene=_given(
            config.normalise_scene, config.framework == "csem" and config.backbone == "ast"
        ),
    )


def terms(config: Config) -> dict[str, Term]:
    found: dict[str, Term] = {"scene_ce": losses.scene_ce}
    if config.framework != "scene_only":
        found |= (
            {"event_bce": losses.event_bce} if config.event_loss == "bce" else {"event_mse": losses.event_mse}
        )
    if config.framework == "csem":
        found["scene_from_event"] = losses.scene_from_event(config.relation_loss, config.detach)
        found["event_from_scene"] = losses.event_from_scene(config.relation_loss, config.detach)
    return found


def weights(config: Config) -> dict[str, float]:
    every = {
        "scene_ce": config.w_scene,
        "event_bce": config.w_event,
        "event_mse": config.w_event,
        "scene_from_event": config.w_scene_from_event,
        "event_from_scene": config.w_event_from_scene,
    }
    return {name: every[name] for name in terms(config)}


def suggest(trial: BaseTrial, labels: LabelSpace) -> dict[str, Any]:
    """The space: what is compared (backbone, framework), how the tasks meet, and how it is trained. w_scene
    stays 1.
    """
    knobs: dict[str, Any] = {"backbone": dimensions.choice(trial, "backbone", BACKBONES)}
    frameworks = FRAMEWORKS if labels.events else ("scene_only",)
    knobs["framework"] = dimensions.choice(trial, "framework", frameworks)
    if knobs["framework"] in TWO_BRANCHES:
        knobs["shared_layers"] = dimensions.shared_layers(trial, RELEASED[knobs["backbone"]].blocks)
    if knobs["framework"] != "scene_only":
        knobs["w_event"] = dimensions.loss_weight(trial, "w_event")
    if knobs["framework"] == "csem":
        knobs["w_scene_from_event"] = dimensions.loss_weight(trial, "w_scene_from_event")
        knobs["w_event_from_scene"] = dimensions.loss_weight(trial, "w_event_from_scene")
        knobs["relation_loss"] = dimensions.choice(trial, "relation_loss", RELATION_LOSSES)
        knobs["detach"] = dimensions.switch(trial, "detach")
    knobs["dropout"] = dimensions.dropout(trial)
    knobs["spec_augment"] = dimensions.spec_augment(trial)
    knobs["mixup"] = dimensions.mixup(trial)
    knobs["lr"] = dimensions.learning_rate(trial, *LEARNING_RATES.get(knobs["backbone"], ()))
    knobs["schedule"] = dimensions.schedule(trial)
    knobs["optimiser"] = dimensions.optimiser(trial)
    if knobs["optimiser"] == "adamw":
        knobs["weight_decay"] = dimensions.weight_decay(trial)
    return knobs


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def _depth(config: Config) -> int:
    return _given(config.depth, RELEASED[config.backbone].blocks)


def _shared_layers(config: Config) -> int:
    return _given(config.shared_layers, min(RELEASED[config.backbone].shared_layers, _depth(config)))


def _frontend(config: Config, audio: AudioFormat) -> FrontEnd:
    released = RELEASED[config.backbone]
    time = _given(config.time_mask, released.time_mask)
    frequency = _given(config.freq_mask, released.freq_mask)
    kind = KaldiFbank if config.backbone == "ast" else LogMel
    return kind(
        audio.sample_rate,
        n_mels=_given(config.n_mels, released.n_mels),
        f_min=_given(config.f_min, released.f_min),
        f_max=config.f_max,
        augment=SpecAugment(time, frequency) if config.spec_augment else None,
    )


def _backbone(config: Config, n_mels: int, frames: int) -> Backbone:
    released = RELEASED[config.backbone]
    dropout = _given(config.dropout, released.dropout)
    beside = _given(config.embedding_dropout, released.embedding_dropout)
    if config.backbone == "pann":
        return cnn.pann(config.width, dropout, beside)
    if config.backbone == "cnnt":
        return cnn_transformer.cnn_transformer(
            n_mels, config.width, dropout, beside, as_printed=config.cnnt_encoder == "paper"
        )
    if config.backbone == "tinycnn":
        return cnn.tiny_cnn(frames, n_mels, config.width, dropout, beside)
    return ast_encoder.ast(
        frames,
        n_mels,
        _depth(config),
        config.width,
        dropout,
        beside,
        second_norm=config.framework in TWO_BRANCHES,
        checkpointing=bool(config.activation_checkpointing),
    )


def _refuse_too_small(config: Config, frontend: FrontEnd, audio: AudioFormat, frames: int) -> None:
    least = RELEASED[config.backbone].least
    if frames < least:
        raise ValueError(
            f"clips of {audio.samples / audio.sample_rate:.2f} s give {frames} frames; backbone "
            f"{config.backbone} needs at least {least} frames, {frontend.seconds(least):.2f} s"
        )
    if frontend.n_mels < least:
        raise ValueError(
            f"n_mels={frontend.n_mels}: backbone {config.backbone} needs at least {least} mel bins"
        )


FAMILY = Family(
    name="csem",
    config=Config,
    build=build,
    terms=terms,
    weights=weights,
    suggest=suggest,
    published=hou2023.ROWS,
)
