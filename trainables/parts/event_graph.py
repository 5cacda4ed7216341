"""The event relational graph of Hou et al. 2023 (ERGL): nodes, learned edges, gated graph convolution.

A node is one of n events; it holds `tokens` (B, n, D, C). The paper's attention says nothing on an edge if a
node is one token (a softmax over one key is 1), so there are two readings, `ChannelEdges` and `TimeEdges`:

    channel   the C entries of a node vector are C tokens of one number each (D = C, width 1), as in the
              authors' later code; q, k, v are linear maps 1 → C and the attended value is merged back to 1
    time      a node keeps D steps of time with C channels, as in the two works the paper cites

Both follow the paper's Eq. 1 to 4. NCM: every token of a node attends to the tokens of all nodes, giving the
scene-aware S_i. NNM: the tokens of S_j (queries) attend to those of S_i (keys and values), and the mean over
the queries is the edge e_ij (C numbers), from node j to node i. Nothing is copied n² times before it is
projected, and no loop runs over nodes, pairs or clips; tests/trainables/test_event_graph.py has the loops.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimeEdges(nn.Module):
    """tokens (B, n, D, C) → edges (B, n, n, C); [b, i, j] leads from j to i.

    Query and key have C / 2 channels, the value C (ME-GraphAU's widths), over `heads` heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        refuse_heads(width // 2, heads, "half the node width")
        self.heads = heads
        self.context = nn.ModuleDict(_projections(width))
        self.pair = nn.ModuleDict(_projections(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self._pairs(self._scene_aware(tokens))

    def _scene_aware(self, tokens: Tensor) -> Tensor:
        """NCM: (B, n, D, C) → S (B, n, D, C)."""
        batch, n, steps, width = tokens.shape
        q, k, v = (self._split(self.context[name](tokens.flatten(1, 2))) for name in ("q", "k", "v"))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, n, steps, width)

    def _pairs(self, aware: Tensor) -> Tensor:
        """NNM. The mean over queries is taken of the attention weights: the value is linear in them."""
        batch, n, steps, width = aware.shape
        q, k, v = (self._split(self.pair[name](aware.flatten(1, 2))) for name in ("q", "k", "v"))
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)  # (B, h, n_j·D, n_i·D)
        attention = scores.view(batch, self.heads, n, steps, n, steps).softmax(-1).mean(3)  # (B, h, j, i, D)
        edges = attention.transpose(2, 3) @ v.unflatten(2, (n, steps))  # (B, h, i, j, C / h)
        return edges.permute(0, 2, 3, 1, 4).reshape(batch, n, n, width)

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, K) → (B, h, L, K / h)"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ChannelEdges(nn.Module):
    """tokens (B, n, C, 1) → edges (B, n, n, C); [b, i, j] leads from j to i.

    With tokens that are single numbers, a score (x_a w_q + b_q)·(x_b w_k) is a number times x_b, and what is
    attended to is a mean of x_b: attention one channel wide gives exactly what C channels would. (A bias of
    the key would shift all scores of a query alike, which a softmax does not see; there is none.) So an edge
    varies in as many directions as there are heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        refuse_heads(width, heads, "the node width")
        self.context, self.pair = ScalarAttention(width, heads), ScalarAttention(width, heads)
        self.merge = nn.Linear(width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens.squeeze(-1)  # (B, n, C)
        batch, n, width = x.shape
        everything = x.reshape(batch, 1, n * width)
        seen = self.context.attend(everything, everything).view(batch, n, width, -1)  # (B, n, C, h)
        aware = self.merge(self.context.value(seen)).squeeze(-1)  # (B, n, C)
        ends = aware[:, :, None].expand(batch, n, n, width).reshape(-1, 1, width)
        starts = aware[:, None].expand(batch, n, n, width).reshape(-1, 1, width)
        met = self.pair.attend(starts, ends).mean(1).view(batch, n, n, -1)  # over the C queries
        return self.pair.value(met)


class ScalarAttention(nn.Module):
    """Attention with `heads` heads between tokens of one number, projected to `width` channels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(1, width), nn.Linear(1, width, bias=False), nn.Linear(1, width)

    def attend(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(M, 1, Q), (M, 1, K) → (M, Q, h): each query's attended number in each head."""
        per_head = (self.heads, self.k.out_features // self.heads)
        key = self.k.weight.view(per_head)
        scale = 1 / math.sqrt(per_head[1])
        slope = (self.q.weight.view(per_head) * key).sum(1) * scale
        offset = (self.q.bias.view(per_head) * key).sum(1) * scale
        sharpness = queries * slope[:, None] + offset[:, None]  # (M, h, Q)
        x = keys.expand(-1, self.heads, -1).unsqueeze(-1)
        seen = F.scaled_dot_product_attention(sharpness.unsqueeze(-1), x, x, scale=1.0)
        return seen.squeeze(-1).transpose(1, 2)

    def value(self, seen: Tensor) -> Tensor:
        """(…, h) attended numbers → (…, width): the value projection, each head on its own channels."""
        channels = self.v.out_features // self.heads
        return seen.repeat_interleave(channels, -1) * self.v.weight[:, 0] + self.v.bias


class ConstantEdges(nn.Module):
    """The ablation without learned edges: every edge is the same vector of ones (the authors' later code)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        batch, n = tokens.shape[:2]
        return tokens.new_ones(()).expand(batch, n, n, self.width)


class GatedGraphConvolution(nn.Module):
    """nodes (B, n, C), edges (B, n, n, C) → the same shapes (Bresson & Laurent 2017; facts: dense form).

    ê_ij = P e_ij + D h_j + E h_i (from j to i), h'_i = A h_i + Σ_j σ(ê_ij) ⊙ B h_j / (Σ_j σ(ê_ij) + 1e-6);
    h + ReLU(BN(h')), e + ReLU(BN(ê)), dropout on both. BN is per channel, over all nodes (edges) of the
    batch. The last layer's edges are read by nobody: with `edges_out` False it has no normalisation for them
    and returns them as they came.
    """

    def __init__(self, width: int, dropout: float, *, edges_out: bool = True) -> None:
        super().__init__()
        self.nodes = nn.Linear(width, 4 * width)  # A, B, D, E
        self.edges = nn.Linear(width, width)  # P
        self.node_norm = nn.BatchNorm1d(width)
        self.edge_norm = nn.BatchNorm1d(width) if edges_out else None
        self.dropout = dropout

    def forward(self, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        own, sent, start, end = self.nodes(nodes).chunk(4, -1)
        relation = self.edges(edges) + start[:, None] + end[:, :, None]  # (B, i, j, C)
        gate = relation.sigmoid()
        received = torch.einsum("bijc,bjc->bic", gate, sent) / (gate.sum(2) + 1e-6)
        nodes = nodes + _dropped(self.node_norm, own + received, self.dropout)
        if self.edge_norm is not None:
            edges = edges + _dropped(self.edge_norm, relation, self.dropout)
        return nodes, edges


def gate_shares(layer: GatedGraphConvolution, nodes: Tensor, edges: Tensor) -> Tensor:
    """(B, n, n) mean over the channels of σ(ê_ij) / Σ_j σ(ê_ij): how much of what node i receives in `layer`
    is let through from node j, whatever it says."""
    _, _, start, end = layer.nodes(nodes).chunk(4, -1)
    gate = (layer.edges(edges) + start[:, None] + end[:, :, None]).sigmoid()
    return (gate / gate.sum(2, keepdim=True)).mean(-1)


def _dropped(norm: nn.BatchNorm1d, x: Tensor, rate: float) -> Tensor:
    return F.dropout(F.relu(norm(x.flatten(0, -2)).view_as(x)), rate, norm.training)


def _projections(width: int) -> dict[str, nn.Module]:
    return {
        "q": nn.Linear(width, width // 2),
        "k": nn.Linear(width, width // 2),
        "v": nn.Linear(width, width),
    }


def refuse_heads(channels: int, heads: int, what: str) -> None:
    """Raises ValueError unless `heads` divides `channels`."""
    if heads < 1 or channels % heads:
        raise ValueError(f"heads={heads} does not divide {what}, {channels}")
