"""Cooperative scene-event modelling, Hou et al., IEEE/ACM TASLP 2023, with its released code, and the systems
that the paper compares it with.

A backbone (PANN, CNNT, TinyCNN, AST, the baseline CNN of DCASE 2018 or a CRNN on wavelets) is split after
`shared_layers` blocks into a scene branch and an event branch; the weights of the two classifiers make a
coupling matrix through which each branch infers the other's answer (Algorithm 1, parts/coupling.py).

Frameworks, Fig. 1:
scene_only  one branch, no events
moe         one branch up to and including the embedding, two classifiers on it
mlhe        shared blocks, then two branches
mlhe_plus   mlhe with one more FC + ReLU in each branch (Table VI)
csem        mlhe with the coupling; no more parameters than mlhe
event_only  moe without the scenes: what is trained on a corpus of events to start the others from

Comparison systems, Tables XI and XIII:
hierarchical  one branch up to the event embedding, and one more FC + ReLU on it as the scene embedding. With
              PANN 84,970,329 parameters: 79,673,664 trunk and FC 2048, 4,196,352 FC 2048, 20,490 + 1,079,823
              classifiers (10 scenes, 527 events)
cross_stitch  two whole networks that exchange activations (parts/stitch.py); shared_layers=0 by default
rgasc         mlhe with a fixed relation, counted in the training labels, in the coupling's place, and csem's
              two relation terms on what it infers (PriorRelation in parts/prior.py)
conditional   mlhe with event logits conditioned on the scene, and a loss on what is said when told a fake one
              (Komatsu et al. 2020; SceneCondition in parts/prior.py says what of it is a reading)
joint         moe with scenes and events in one label space (Bear et al. 2019; losses.scene_event_bce)
Multitask learning of Tonami et al. (Table XIII [6]) is mlhe: shared convolutions, then two branches without
interaction; shared_layers=3 with cnnt are its three. Its own CNN-BiGRU is not of this family.

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
- Left, right and difference (`input_channels`, Table XII): the features of three signals, the third is left
  minus right; one mean and deviation a mel bin for all three, so that their levels stay comparable.
- Pretraining: the paper starts PANN, CNNT and AST from AudioSet weights; the released loops load none.
  Default: none; `pretrained` of the recipe starts from a file (trainables/pretrained.py). PANNs' weights
  belong to 10·log10 mel of 16 or 32 kHz behind a BatchNorm, here they get ln mel scaled bin by bin.
- TinyCNN's weights, "pretrained for 10 epochs in the balanced subset of 22K audio clips of AudioSet", were
  not published, and none are shipped here, for AudioSet's clips can't be. From a folder of clips and lists:

    python -m datasets.prepare audioset --source AUDIOSET --out A
    python -m trainables.train csem --data A --epochs 10 --out T --set framework=event_only backbone=tinycnn
    python tune_csem.py --table II --data SHARDS --set backbone=tinycnn pretrained=T accept_mismatch=true
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

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
from trainables.parts.backbone import Backbone, branch, embedding, trunk
from trainables.parts.channels import InputChannels, refuse_not_stereo
from trainables.parts.cnn import scaled
from trainables.parts.coupling import infer
from trainables.parts.prior import PriorRelation, SceneCondition
from trainables.parts.released import RELEASED, BackboneName, FrontEnd, backbone_for, front_end, given
from trainables.parts.stitch import stitches

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Framework = Literal[
    "scene_only", "moe", "mlhe", "mlhe_plus", "csem",
    "hierarchical", "cross_stitch", "rgasc", "conditional", "joint", "event_only",
]  # fmt: skip
TWO_BRANCHES = ("mlhe", "mlhe_plus", "csem", "rgasc", "conditional")
WITH_RELATION = ("csem", "rgasc")
RELATIONS: dict[str, type[PriorRelation] | type[SceneCondition]] = {
    "rgasc": PriorRelation,
    "conditional": SceneCondition,
}
SEARCHED_BACKBONES = ("tinycnn", "cnnt", "pann", "ast")  # of the paper's own systems; --set names the others
SEARCHED_FRAMEWORKS = ("scene_only", "moe", "mlhe", "mlhe_plus", "csem")
DEEPEST = 12  # encoder blocks of the AudioSet model
RELATION_LOSSES: tuple[str, ...] = get_args(RelationLoss)
LEARNING_RATES = {"ast": (1e-7, 1e-3)}  # the paper's is 1e-6


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's best setting of a CNN model: cSEM-PANN with the weights of Table VIII #14.

    backbone           tinycnn (2 blocks) | cnnt (3 convolution blocks and a self-attention) | pann (6 blocks)
                       | ast (10 encoder blocks) | dcase2018 (2 blocks) | scattering (3 convolution blocks
                       and a GRU, on wavelets)
    framework          scene_only | moe | mlhe | mlhe_plus | csem, or hierarchical | cross_stitch | rgasc |
                       conditional | joint | event_only
    shared_layers      blocks before the branches part, with two branches only; None = the backbone's, 2 or
                       with ast 4, with dcase2018 1; in cross_stitch 0
    depth              encoder blocks of ast, 1 to 12; None = 10
    embedding          values of an embedding, before `width`; None = 2048, with cnnt 512, with tinycnn and
                       dcase2018 100, with scattering 256
    width              multiplies every channel count; 1 is the published size. ast keeps its 12 heads
    w_…                weights of the loss terms: λ1 scene, λ2 event, λ3 scene_from_event,
                       λ4 event_from_scene; fake_scene is of conditional. joint has one term, of w_scene
    relation_loss      Table IX #1-#5: ce_hard | ce_soft | mse_logits | mse_probabilities | mse_log_softmax
    detach             cut the gradient of the relation terms' targets
    stitch_same, stitch_different  α_S and α_D of cross_stitch at the start, 0 to 1
    normalise_scene    L2-normalise the scene embedding, and the scene classifier's rows at the start; None =
                       only for csem with ast
    event_loss         bce (hard labels) | mse (soft labels)
    dropout            after every convolution block, in ast of what a sublayer adds; None = the backbone's
    embedding_dropout  beside the embedding layer; None = the backbone's
    input_norm         BatchNorm over mel bins; None = only for scene_only with pann
    activation_checkpointing  compute ast's blocks again in the backward pass, for memory; None = no
    cnnt_encoder       code (self-attention and LayerNorm) | paper (an encoder layer of AST); of cnnt only
    input_channels     mono (mean of the channels) | left_right_difference (three channels; stereo clips only)
    n_mels             mel bins; None = 64, with ast 128, with dcase2018 40. Of scattering the wavelets of the
                       first order
    f_min, f_max       limits of the mel bins, Hz; f_min None = 50, with ast 20, with dcase2018 0; f_max
                       None = half the sampling rate up to 22050, with ast 8000, with dcase2018 up to 24000
    spec_augment       mask two stripes of up to `time_mask` frames and two of up to `freq_mask` mel bins in
                       training; None = 20 and 8, with ast 64 and 16, with dcase2018 32 and 5, with
                       scattering 7 and 8
    """

    backbone: BackboneName = "pann"
    framework: Framework = "csem"
    shared_layers: int | None = None
    depth: int | None = None
    embedding: int | None = None
    width: float = 1.0
    w_scene: float = 1.0
    w_event: float = 0.5
    w_scene_from_event: float = 0.01
    w_event_from_scene: float = 0.01
    w_fake_scene: float = 1.0
    relation_loss: RelationLoss = "mse_log_softmax"
    detach: bool = False
    stitch_same: float = 0.9
    stitch_different: float = 0.1
    normalise_scene: bool | None = None
    event_loss: Literal["bce", "mse"] = "bce"
    dropout: float | None = None
    embedding_dropout: float | None = None
    input_norm: bool | None = None
    activation_checkpointing: bool | None = None
    cnnt_encoder: Literal["code", "paper"] = "code"
    input_channels: InputChannels = "mono"
    n_mels: int | None = None
    f_min: float | None = None
    f_max: float | None = None
    spec_augment: bool = False
    time_mask: int | None = None
    freq_mask: int | None = None

    def __post_init__(self) -> None:
        check(self)
        check_range(self, "width", 0.0, above=True)
        for name in ("w_scene", "w_event", "w_scene_from_event", "w_event_from_scene", "w_fake_scene"):
            check_range(self, name, 0.0)
        for name in ("stitch_same", "stitch_different"):
            check_range(self, name, 0.0, 1.0)
        for name in ("time_mask", "freq_mask"):
            check_range(self, name, 0)
        for name in ("dropout", "embedding_dropout"):
            check_range(self, name, 0.0, 0.99)
        check_range(self, "n_mels", 1)
        check_range(self, "depth", 1, DEEPEST)
        check_range(self, "embedding", 1)
        for name in ("depth", "activation_checkpointing"):
            if self.backbone != "ast" and getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)}: only backbone ast has it, not {self.backbone}"
                )
        if self.shared_layers is None:
            return
        if self.framework not in (*TWO_BRANCHES, "cross_stitch"):
            raise ValueError(
                f"shared_layers={self.shared_layers}: framework {self.framework} has one branch and shares "
                f"all of it; only {', '.join(TWO_BRANCHES)} and cross_stitch part"
            )
        check_range(self, "shared_layers", 0 if self.framework == "cross_stitch" else 1, _depth(self))


class SceneEventModel(nn.Module):
    """Waveform (B, C, N) → JointOutput. Parts: `shared` (blocks of both tasks), `scene` and `event` (the rest
    of each branch, up to the embedding (B, D)), `scene_classifier` and `event_classifier`.

    With one branch everything is in `shared` and `scene`, and an event classifier reads the scene embedding
    (moe); without `scene_answers` it is the only one, and there are no scene logits, (B, 0). With `hierarchy`
    everything is in `shared` and `event`, and `scene` reads the event embedding.
    Blocks keep the released code's numbers: `scene.block3` is its conv_block3, `event.block3` its
    conv_block3_event. `stitch` = (same, different) puts cross-stitch units between the branches; `coupled`
    relates the answers through the classifiers, `relation` through what the training labels say.
    """

    def __init__(
        self,
        frontend: FrontEnd,
        backbone: Backbone,
        scenes: int,
        events: int,
        *,
        shared_layers: int,
        branches: Literal["one", "two", "hierarchy"],
        embedding_layers: int = 1,
        stitch: tuple[float, float] | None = None,
        coupled: bool = False,
        relation: PriorRelation | SceneCondition | None = None,
        input_norm: bool = False,
        normalise_scene: bool = False,
        scene_answers: bool = True,
    ) -> None:
        super().__init__()
        self.frontend, self.scenes = frontend, scenes
        self.bn0 = nn.BatchNorm2d(frontend.n_mels) if input_norm else None
        self.hierarchy = branches == "hierarchy"
        self.shared = trunk(backbone, shared_layers)
        self.scene = (
            embedding(backbone) if self.hierarchy else branch(backbone, shared_layers, embedding_layers)
        )
        self.event = branch(backbone, shared_layers, embedding_layers) if branches != "one" else None
        self.stitches = stitches(backbone, shared_layers, *stitch) if stitch else None
        classifier = backbone.classifier or backbone.linear
        self.scene_classifier = classifier(backbone.width, scenes) if scene_answers else None
        self.event_classifier = classifier(backbone.width, events) if events else None
        self.coupled, self.relation, self.normalise_scene = coupled, relation, normalise_scene
        if normalise_scene and self.scene_classifier is not None:
            with torch.no_grad():
                self.scene_classifier.weight.copy_(F.normalize(self.scene_classifier.weight))

    def forward(self, waveform: Tensor) -> JointOutput:
        return self.from_features(self.frontend(waveform))

    def from_features(self, x: Tensor) -> JointOutput:
        """Normalised features (B, C, T, F) → JointOutput."""
        if self.bn0 is not None:
            x = self.bn0(x.transpose(1, 3)).transpose(1, 3)  # mel bins as channels
        scene, event = self._embeddings(self.shared(x))
        scene = F.normalize(scene) if self.normalise_scene else scene
        scene_logits = (
            scene.new_zeros(len(scene), 0) if self.scene_classifier is None else self.scene_classifier(scene)
        )
        if self.event_classifier is None:
            return JointOutput(scene_logits, scene_embedding=scene)
        output = JointOutput(scene_logits, self.event_classifier(event), scene, event)
        if self.coupled and self.scene_classifier is not None:
            classifiers = self.scene_classifier.weight, self.event_classifier.weight
            scene_by_event, event_by_scene = infer(scene, event, *classifiers)
            return replace(output, scene_from_event=scene_by_event, event_from_scene=event_by_scene)
        return output if self.relation is None else self.relation(output)

    def _embeddings(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the shared blocks give → the embeddings (B, D) of scene and event; one and the same in moe."""
        if self.event is None:
            both = self.scene(x)
            return both, both
        if self.hierarchy:
            event = self.event(x)
            return self.scene(event), event
        if self.stitches is None:
            return self.scene(x), self.event(x)
        scene, event = x, x
        for (name, of_scene), of_event in zip(self.scene.named_children(), self.event.children()):
            scene, event = of_scene(scene), of_event(event)
            if name in self.stitches:
                scene, event = self.stitches[name](scene, event)
        return scene, event


def build(config: Config, labels: LabelSpace, audio: AudioFormat) -> SceneEventModel:
    """Raises ValueError for clips too short, too few mel bins or channels, or labels that the framework
    lacks.
    """
    with_events = config.framework != "scene_only"
    if not labels.scenes and config.framework != "event_only":
        raise ValueError("family csem needs scene labels; the corpus has none (event_only does without)")
    if with_events and not labels.events:
        raise ValueError(
            f"framework={config.framework} needs event labels; the corpus has none (scene_only does not)"
        )
    if config.input_channels == "left_right_difference":
        refuse_not_stereo(audio.channels)
    scenes, events = len(labels.scenes), len(labels.events) if with_events else 0
    frontend = front_end(
        config.backbone,
        audio.sample_rate,
        channels=config.input_channels,
        n_mels=config.n_mels,
        f_min=config.f_min,
        f_max=config.f_max,
        spec_augment=config.spec_augment,
        time_mask=config.time_mask,
        freq_mask=config.freq_mask,
    )
    framework, parting = config.framework, config.framework in (*TWO_BRANCHES, "cross_stitch")
    backbone = backbone_for(
        config.backbone,
        frontend,
        audio.samples,
        depth=_depth(config),
        width=config.width,
        dropout=config.dropout,
        embedding_dropout=config.embedding_dropout,
        second_norm=parting,
        checkpointing=bool(config.activation_checkpointing),
        encoder_as_printed=config.cnnt_encoder == "paper",
    )
    if config.embedding is not None:
        backbone = replace(backbone, width=scaled(config.embedding, config.width))
    return SceneEventModel(
        frontend,
        backbone,
        scenes,
        events,
        shared_layers=_shared_layers(config) if parting else _depth(config),
        branches="two" if parting else "hierarchy" if framework == "hierarchical" else "one",
        embedding_layers=2 if framework == "mlhe_plus" else 1,
        stitch=(config.stitch_same, config.stitch_different) if framework == "cross_stitch" else None,
        coupled=framework == "csem",
        relation=RELATIONS[framework](scenes, events) if framework in RELATIONS else None,
        input_norm=given(config.input_norm, framework == "scene_only" and config.backbone == "pann"),
        normalise_scene=given(config.normalise_scene, framework == "csem" and config.backbone == "ast"),
        scene_answers=framework != "event_only",
    )


def terms(config: Config) -> dict[str, Term]:
    if config.framework == "joint":
        return {"scene_event_bce": losses.scene_event_bce}
    found: dict[str, Term] = {} if config.framework == "event_only" else {"scene_ce": losses.scene_ce}
    if config.framework != "scene_only":
        found |= (
            {"event_bce": losses.event_bce} if config.event_loss == "bce" else {"event_mse": losses.event_mse}
        )
    if config.framework in WITH_RELATION:
        found["scene_from_event"] = losses.scene_from_event(config.relation_loss, config.detach)
        found["event_from_scene"] = losses.event_from_scene(config.relation_loss, config.detach)
    if config.framework == "conditional":
        found["fake_scene_bce"] = losses.fake_scene_bce
    return found


def weights(config: Config) -> dict[str, float]:
    every = {
        "scene_ce": config.w_scene,
        "scene_event_bce": config.w_scene,
        "event_bce": config.w_event,
        "event_mse": config.w_event,
        "scene_from_event": config.w_scene_from_event,
        "event_from_scene": config.w_event_from_scene,
        "fake_scene_bce": config.w_fake_scene,
    }
    return {name: every[name] for name in terms(config)}


def suggest(trial: BaseTrial, labels: LabelSpace) -> dict[str, Any]:
    """The space: what is compared (backbone, framework), how the tasks meet, and how it is trained. The
    comparison systems lie outside, and have their knobs asked for where one is pinned.
    """
    knobs: dict[str, Any] = {"backbone": dimensions.choice(trial, "backbone", SEARCHED_BACKBONES)}
    frameworks = SEARCHED_FRAMEWORKS if labels.events else ("scene_only",)
    knobs["framework"] = dimensions.choice(trial, "framework", frameworks)
    if knobs["framework"] in TWO_BRANCHES:
        knobs["shared_layers"] = dimensions.shared_layers(trial, RELEASED[knobs["backbone"]].blocks)
    if knobs["framework"] not in ("scene_only", "joint", "event_only"):
        knobs["w_scene"] = dimensions.scene_weight(trial)
        knobs["w_event"] = dimensions.loss_weight(trial, "w_event")
    if knobs["framework"] in WITH_RELATION:
        knobs["w_scene_from_event"] = dimensions.loss_weight(trial, "w_scene_from_event")
        knobs["w_event_from_scene"] = dimensions.loss_weight(trial, "w_event_from_scene")
        knobs["relation_loss"] = dimensions.choice(trial, "relation_loss", RELATION_LOSSES)
        knobs["detach"] = dimensions.switch(trial, "detach")
    if knobs["framework"] == "cross_stitch":
        knobs["stitch_same"] = dimensions.stitch(trial, "stitch_same")
        knobs["stitch_different"] = dimensions.stitch(trial, "stitch_different")
    if knobs["framework"] == "conditional":
        knobs["w_fake_scene"] = dimensions.loss_weight(trial, "w_fake_scene")
    knobs["embedding"] = dimensions.embedding(trial)
    knobs["dropout"] = dimensions.dropout(trial)
    return knobs | dimensions.training(trial, *LEARNING_RATES.get(knobs["backbone"], ()))


def _depth(config: Config) -> int:
    return given(config.depth, RELEASED[config.backbone].blocks)


def _shared_layers(config: Config) -> int:
    default = 0 if config.framework == "cross_stitch" else RELEASED[config.backbone].shared_layers
    return given(config.shared_layers, min(default, _depth(config)))


FAMILY = Family(
    name="csem",
    config=Config,
    build=build,
    terms=terms,
    weights=weights,
    suggest=suggest,
    published=hou2023.ROWS,
)
