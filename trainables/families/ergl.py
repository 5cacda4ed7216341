"""Event relational graph learning: Hou et al., "Audio event-relational graph representation learning for
acoustic scene classification", IEEE SPL 2023 (paper; its own code was never published).

A PANN trunk gives each of n events an embedding, the node of a graph; edges between all pairs are learned
from the nodes (parts/event_graph.py), gated graph convolutions mix them, and the scene is read off the nodes
laid end to end. Each node must also tell its event's probability, a teacher's soft label: open the shards
with `--events tags`.

Where the paper is silent or at odds with itself, the default is named here:
- The events: the n with the highest label mass over the training clips, ties by index (§2.1); chosen once at
  the start of a run, kept in the model (`columns`).
- A node as one token makes the paper's attention say nothing (its Eq. 1 with one key). `edge_tokens` has the
  two readings that do, `channel` and `time`; default: see EDGE_TOKENS below.
- The front end is said to follow [16] with a window of 1024 and a hop of 320 samples, which are 32 and 10 ms
  at the 32 kHz of [16] (the checkpoint it names is one for 16 kHz); [16] has a Hann window to 14 kHz, the
  paper says Hamming. Default: 32 ms, 10 ms, Hamming, 50 Hz to 14 kHz or half the sampling rate; `f_max` sets
  another.
- Node layers: He-uniform, with ReLU, as in the authors' next code (HGRL); dropout .2 after the blocks and .5
  before the embedding, as there. The graph's dropout is 0 there.
- The probability of a node: a sigmoid is assumed. Residuals and BatchNorm in the graph layers are those of
  the layer it cites. The paper's ± is of unknown kind.
- Time tokens: the trunk's last map, averaged over frequency and pooled to at most `time_tokens` steps, each
  step through the FC layers; a node is the mean of its tokens. ME-GraphAU, which it cites, has a linear map
  and a BatchNorm with n² channels on the edges; the paper has neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from datasets.batch import Batch
from datasets.labels import LabelSpace
from searchspace import dimensions
from searchspace.papers import hou2023_ergl
from trainables import losses
from trainables.contract import AudioFormat, Family, JointOutput, Term
from trainables.knobs import check, check_range
from trainables.parts import cnn
from trainables.parts.event_graph import (
    ChannelEdges,
    ConstantEdges,
    GatedGraphConvolution,
    TimeEdges,
    gate_shares,
)
from trainables.parts.frontend import LogMel, SpecAugment

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

EdgeTokens = Literal["channel", "time"]
EDGE_TOKENS: tuple[str, ...] = get_args(EdgeTokens)
WINDOW = Fraction(32, 1000)  # s
EMBEDDING = 2048
F_MAX = 14000.0


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's best setting (Tables 1 and 2).

    n_events           nodes: the events with the highest label mass in training
    edges              learned | constant (the ablation without MEL)
    edge_tokens        channel | time: what the learned edges attend over
    time_tokens        the most steps of time that a node keeps, with edge_tokens=time
    heads              attention heads of the learned edges; divides node_width, with time tokens half of it
    gcn_layers         gated graph convolutions (the paper's U)
    node_width         numbers in a node and in an edge
    gcn_dropout        in the graph convolutions
    w_scene, w_event   weights of the loss terms
    event_loss         mse (soft labels) | bce
    width              multiplies the trunk's channel counts and the FC layer; 1 is the published size
    dropout            after every convolution block; embedding_dropout before the FC layer
    n_mels, f_min, f_max  mel bins and their limits in Hz; f_max None = min(14000, half the sampling rate)
    hop                s from frame to frame, rounded down to whole samples; longer ones are cheaper
    spec_augment       mask two stripes of up to `time_mask` frames and two of up to `freq_mask` mel bins
    """

    n_events: int = 25
    edges: Literal["learned", "constant"] = "learned"
    edge_tokens: EdgeTokens = "time"
    time_tokens: int = 10
    heads: int = 1
    gcn_layers: int = 2
    node_width: int = 64
    gcn_dropout: float = 0.0
    w_scene: float = 1.0
    w_event: float = 1.0
    event_loss: Literal["mse", "bce"] = "mse"
    width: float = 1.0
    dropout: float = 0.2
    embedding_dropout: float = 0.5
    n_mels: int = 64
    hop: float = 0.01
    f_min: float = 50.0
    f_max: float | None = None
    spec_augment: bool = False
    time_mask: int = 64
    freq_mask: int = 8

    def __post_init__(self) -> None:
        check(self)
        for name in ("width", "hop"):
            check_range(self, name, 0.0, above=True)
        for name in ("n_events", "gcn_layers", "heads", "time_tokens", "n_mels"):
            check_range(self, name, 1)
        check_range(self, "node_width", 2)
        for name in ("w_scene", "w_event"):
            check_range(self, name, 0.0)
        for name in ("dropout", "embedding_dropout", "gcn_dropout"):
            check_range(self, name, 0.0, 0.99)
        for name in ("time_mask", "freq_mask"):
            check_range(self, name, 0)


class EventGraphModel(nn.Module):
    """Waveform (B, C, N) → JointOutput whose `event_logits` (B, n) are of the label columns `columns`
    (n,)."""

    columns: Tensor

    def __init__(
        self,
        frontend: LogMel,
        trunk: nn.Sequential,
        embedding: nn.Linear,
        edges: nn.Module,
        *,
        nodes: int,
        node_width: int,
        scenes: int,
        gcn_layers: int,
        gcn_dropout: float,
        embedding_dropout: float,
        tokens: EdgeTokens,
        time_tokens: int,
    ) -> None:
        super().__init__()
        self.frontend, self.trunk, self.embedding = frontend, trunk, embedding
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.nodes = cnn.he_linear(embedding.out_features, nodes * node_width)  # all n layers at once
        self.event_weight = nn.Parameter(torch.empty(nodes, node_width).uniform_(-1, 1) * node_width**-0.5)
        self.event_bias = nn.Parameter(torch.zeros(nodes))
        self.edges = edges
        self.graph = nn.ModuleList(
            GatedGraphConvolution(node_width, gcn_dropout, edges_out=layer + 1 < gcn_layers)
            for layer in range(gcn_layers)
        )
        self.scene_classifier = nn.Linear(nodes * node_width, scenes)
        self.tokens, self.time_tokens = tokens, time_tokens
        self.register_buffer("columns", torch.arange(nodes))

    def fit_labels(self, batches: Iterable[Batch]) -> None:
        """Choose the events: the columns of the training clips' labels (E,) with the largest sums."""
        mass = sum(((batch.events * batch.event_known).double().sum(0) for batch in batches), torch.zeros(()))
        self.columns.copy_(top_events(mass, len(self.columns)))

    def forward(self, waveform: Tensor) -> JointOutput:
        return self.from_features(self.frontend(waveform))

    def from_features(self, x: Tensor) -> JointOutput:
        """Normalised features (B, 1, T, F) → JointOutput."""
        tokens = self.event_tokens(x)
        nodes = self._nodes(tokens)
        event_logits = (nodes * self.event_weight).sum(-1) + self.event_bias
        edges = self.edges(tokens)
        mixed = nodes
        for layer in self.graph:
            mixed, edges = layer(mixed, edges)
        scene = mixed.flatten(1)
        return JointOutput(
            self.scene_classifier(scene), event_logits, scene, nodes.flatten(1), event_columns=self.columns
        )

    def event_relations(self, waveform: Tensor) -> Tensor:
        """Waveform (B, C, N) → (B, n, n): the share of event j in what event i receives, mean over the
        layers."""
        tokens = self.event_tokens(self.frontend(waveform))
        nodes, edges = self._nodes(tokens), self.edges(tokens)
        shares = []
        layers: Any = self.graph
        for layer in layers:
            shares.append(gate_shares(layer, nodes, edges))
            nodes, edges = layer(nodes, edges)
        return torch.stack(shares).mean(0)

    def event_tokens(self, x: Tensor) -> Tensor:
        """Features (B, 1, T, F) → (B, n, D, width): `node_width` numbers of width 1, or steps of time."""
        x = self.trunk(x).mean(3)  # (B, C, T)
        if self.tokens == "channel":
            pooled = (torch.amax(x, 2) + x.mean(2)).unsqueeze(1)
        else:
            steps = min(self.time_tokens, x.shape[2])
            pooled = nn.functional.adaptive_avg_pool1d(x, steps).transpose(1, 2)  # (B, D, C)
        embedding = self.embedding(self.embedding_dropout(pooled)).relu()
        tokens = self.nodes(embedding).relu().unflatten(-1, (len(self.columns), -1)).transpose(1, 2)
        return tokens.transpose(2, 3) if self.tokens == "channel" else tokens

    def _nodes(self, tokens: Tensor) -> Tensor:
        """(B, n, D, width) → (B, n, C)"""
        return tokens.squeeze(-1) if self.tokens == "channel" else tokens.mean(2)


def top_events(mass: Tensor, count: int) -> Tensor:
    """(count,) int64: the columns of the largest sums in `mass` (E,), largest first, ties by index (§2.1)."""
    return torch.sort(mass, descending=True, stable=True).indices[:count]


def build(config: Config, labels: LabelSpace, audio: AudioFormat) -> EventGraphModel:
    """Raises ValueError for a corpus without scenes or with fewer than `n_events` events, heads that do not
    divide the width, and clips or mel bins too few for the trunk."""
    if not labels.scenes:
        raise ValueError("family ergl needs scene labels; the corpus has none")
    _refuse_no_events(labels)
    if config.n_events > len(labels.events):
        raise ValueError(
            f"n_events={config.n_events}: the corpus has {len(labels.events)} events; at most as many nodes"
        )
    f_max = config.f_max if config.f_max is not None else min(F_MAX, audio.sample_rate / 2)
    frontend = LogMel(
        audio.sample_rate,
        n_mels=config.n_mels,
        f_min=config.f_min,
        f_max=f_max,
        window=WINDOW,
        hop=config.hop,
        augment=SpecAugment(config.time_mask, config.freq_mask) if config.spec_augment else None,
    )
    _refuse_too_small(frontend, audio)
    top = cnn.scaled(cnn.PANN_CHANNELS[-1], config.width)
    return EventGraphModel(
        frontend,
        nn.Sequential(*(block() for block in cnn.pann_blocks(6, config.width, config.dropout))),
        cnn.he_linear(top, cnn.scaled(EMBEDDING, config.width)),
        _edges(config),
        nodes=config.n_events,
        node_width=config.node_width,
        scenes=len(labels.scenes),
        gcn_layers=config.gcn_layers,
        gcn_dropout=config.gcn_dropout,
        embedding_dropout=config.embedding_dropout,
        tokens=config.edge_tokens,
        time_tokens=config.time_tokens,
    )


def _refuse_no_events(labels: LabelSpace) -> None:
    if not labels.events:
        raise ValueError("family ergl needs event labels; the corpus has none")


def _edges(config: Config) -> nn.Module:
    if config.edges == "constant":
        return ConstantEdges(config.node_width)
    kind = ChannelEdges if config.edge_tokens == "channel" else TimeEdges
    return kind(config.node_width, config.heads)


def _refuse_too_small(frontend: LogMel, audio: AudioFormat) -> None:
    frames = frontend.frames(audio.samples)
    if frames < cnn.PANN_LEAST:
        raise ValueError(
            f"clips of {audio.samples / audio.sample_rate:.2f} s give {frames} frames; the trunk needs at "
            f"least {cnn.PANN_LEAST} frames, {frontend.seconds(cnn.PANN_LEAST):.2f} s"
        )
    if frontend.n_mels < cnn.PANN_LEAST:
        raise ValueError(f"n_mels={frontend.n_mels}: the trunk needs at least {cnn.PANN_LEAST} mel bins")


def terms(config: Config) -> dict[str, Term]:
    event = losses.event_mse if config.event_loss == "mse" else losses.event_bce
    return {"scene_ce": losses.scene_ce, f"event_{config.event_loss}": event}


def weights(config: Config) -> dict[str, float]:
    return {"scene_ce": config.w_scene, f"event_{config.event_loss}": config.w_event}


def suggest(trial: BaseTrial, labels: LabelSpace) -> dict[str, Any]:
    """The space: which events, how they are related, how deep the graph is, and how it is trained."""
    _refuse_no_events(labels)
    knobs: dict[str, Any] = {"n_events": dimensions.top_n_events(trial, len(labels.events))}
    knobs["edges"] = dimensions.choice(trial, "edges", ("learned", "constant"))
    knobs["node_width"] = dimensions.node_width(trial)
    if knobs["edges"] == "learned":
        knobs["edge_tokens"] = dimensions.choice(trial, "edge_tokens", EDGE_TOKENS)
        knobs["heads"] = dimensions.attention_heads(trial)
    knobs["gcn_layers"] = dimensions.gcn_layers(trial)
    knobs["gcn_dropout"] = dimensions.gcn_dropout(trial)
    knobs["w_event"] = dimensions.loss_weight(trial, "w_event")
    knobs["dropout"] = dimensions.dropout(trial)
    return knobs | dimensions.training(trial)


FAMILY = Family(
    name="ergl",
    config=Config,
    build=build,
    terms=terms,
    weights=weights,
    suggest=suggest,
    published=hou2023_ergl.ROWS,
)
