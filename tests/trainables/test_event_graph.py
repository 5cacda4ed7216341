"""Learned edges and gated graph convolution against loops over clips, pairs, tokens and heads, written from
the equations."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trainables.memory import kept_for_backward
from trainables.parts.event_graph import ChannelEdges, ConstantEdges, GatedGraphConvolution, TimeEdges

BATCH, NODES, STEPS, WIDTH = 2, 4, 3, 8


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """(Q, K'), (L, K'), (L, C) → (Q, C): softmax(q kᵀ / √d) v, head by head and query by query."""
    d, c = query.shape[1] // heads, value.shape[1] // heads
    rows = []
    for q in query:
        row = []
        for head in range(heads):
            scores = torch.stack(
                [q[head * d : (head + 1) * d] @ k[head * d : (head + 1) * d] / math.sqrt(d) for k in key]
            )
            shares = scores.exp() / scores.exp().sum()
            row.append(sum(share * v[head * c : (head + 1) * c] for share, v in zip(shares, value)))
        rows.append(torch.cat(row))
    return torch.stack(rows)


def slow_time_edges(edges: TimeEdges, tokens: Tensor) -> Tensor:
    """Hou et al. 2023 (ERGL), Eq. 1 to 4."""
    batch, n, _, width = tokens.shape
    out = torch.zeros(batch, n, n, width)
    for b in range(batch):
        everything = tokens[b].reshape(-1, width)
        q, k, v = (edges.context[name] for name in ("q", "k", "v"))
        aware = [attend(q(tokens[b, i]), k(everything), v(everything), edges.heads) for i in range(n)]
        q, k, v = (edges.pair[name] for name in ("q", "k", "v"))
        for i in range(n):
            for j in range(n):
                out[b, i, j] = attend(q(aware[j]), k(aware[i]), v(aware[i]), edges.heads).mean(0)
    return out


def slow_channel_edges(edges: ChannelEdges, tokens: Tensor) -> Tensor:
    """The same with tokens of one number: q, k, v: 1 → C, merged back C → 1 after NCM."""
    batch, n = tokens.shape[:2]
    width = edges.merge.in_features
    out = torch.zeros(batch, n, n, width)
    for b in range(batch):
        everything = tokens[b].reshape(-1, 1)
        a = edges.context
        aware = [
            edges.merge(attend(a.q(tokens[b, i]), a.k(everything), a.v(everything), a.heads))
            for i in range(n)
        ]
        a = edges.pair
        for i in range(n):
            for j in range(n):
                out[b, i, j] = attend(a.q(aware[j]), a.k(aware[i]), a.v(aware[i]), a.heads).mean(0)
    return out


CASES = [
    pytest.param(TimeEdges, slow_time_edges, (BATCH, NODES, STEPS, WIDTH), id="time"),
    pytest.param(ChannelEdges, slow_channel_edges, (BATCH, NODES, WIDTH, 1), id="channel"),
]


@pytest.mark.parametrize(("kind", "slow", "shape"), CASES)
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_edges_and_their_gradients_equal_the_loops(
    kind: type[nn.Module], slow: object, shape: tuple[int, ...], heads: int
) -> None:
    torch.manual_seed(0)
    edges = kind(WIDTH, heads)
    tokens = torch.randn(shape, requires_grad=True)
    ours, wanted = edges(tokens), slow(edges, tokens)  # type: ignore[operator]
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    weighting = torch.randn_like(wanted)
    parameters = [tokens, *edges.parameters()]
    got = torch.autograd.grad((ours * weighting).sum(), parameters)
    expected = torch.autograd.grad((wanted * weighting).sum(), parameters)
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "slow", "shape"), CASES)
def test_edges_differ_in_where_they_start_and_where_they_end(
    kind: type[nn.Module], slow: object, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    edges = kind(WIDTH, 1)(3 * torch.randn(shape))
    assert edges.std(1).mean() > 1e-3 and edges.std(2).mean() > 1e-3
    assert (edges - edges.transpose(1, 2)).abs().max() > 1e-3  # directed
    # Not merely a part of i plus a part of j, either.
    additive = edges.mean(1, keepdim=True) + edges.mean(2, keepdim=True) - edges.mean((1, 2), keepdim=True)
    assert (edges - additive).abs().max() > 1e-4


def test_a_node_of_one_token_has_the_same_edge_to_every_node() -> None:
    """Why the paper's wording needs a reading: facts §3.5."""
    torch.manual_seed(0)
    edges = TimeEdges(WIDTH, 1)(torch.randn(BATCH, NODES, 1, WIDTH))
    assert edges.std(2).max() < 1e-6


def test_constant_edges_are_ones() -> None:
    assert torch.equal(ConstantEdges(WIDTH)(torch.randn(2, 3, 5, WIDTH)), torch.ones(2, 3, 3, WIDTH))


def slow_convolution(layer: GatedGraphConvolution, h: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """One node and one edge at a time; BatchNorm with the statistics of the batch."""
    a, b, d, f = (nn.Linear(WIDTH, WIDTH, bias=True).requires_grad_(False) for _ in range(4))
    for place, part in enumerate((a, b, d, f)):
        part.weight.copy_(layer.nodes.weight[place * WIDTH : (place + 1) * WIDTH])
        part.bias.copy_(layer.nodes.bias[place * WIDTH : (place + 1) * WIDTH])
    batch, n = h.shape[:2]
    relation, new = torch.zeros_like(e), torch.zeros_like(h)
    for c in range(batch):
        for i in range(n):
            above, below = torch.zeros(WIDTH), torch.zeros(WIDTH)
            for j in range(n):
                relation[c, i, j] = layer.edges(e[c, i, j]) + d(h[c, j]) + f(h[c, i])
                gate = torch.sigmoid(relation[c, i, j])
                above, below = above + gate * b(h[c, j]), below + gate
            new[c, i] = a(h[c, i]) + above / (below + 1e-6)

    def normalised(x: Tensor) -> Tensor:
        flat = x.reshape(-1, WIDTH)
        return ((flat - flat.mean(0)) / (flat.var(0, unbiased=False) + 1e-5).sqrt()).view_as(x)

    return h + normalised(new).relu(), e + normalised(relation).relu()


@torch.no_grad()
def test_gated_graph_convolution_equals_the_loop() -> None:
    torch.manual_seed(0)
    layer = GatedGraphConvolution(WIDTH, 0.0).train()
    h, e = torch.randn(BATCH, NODES, WIDTH), torch.randn(BATCH, NODES, NODES, WIDTH)
    for ours, wanted in zip(layer(h, e), slow_convolution(layer, h, e)):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def test_a_layer_of_64_has_the_published_21056_parameters() -> None:
    assert sum(p.numel() for p in GatedGraphConvolution(64, 0.0).parameters()) == 21_056
    # The last layer's edges are read by nobody: no normalisation for them.
    last = GatedGraphConvolution(64, 0.0, edges_out=False)
    assert sum(p.numel() for p in last.parameters()) == 21_056 - 128


class Graph(nn.Module):
    """Learned edges and two layers, entered as a model is."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.edges = kind(64, 1)
        self.layers = nn.ModuleList(GatedGraphConvolution(64, 0.0, edges_out=last) for last in (True, False))

    def from_features(self, tokens: Tensor) -> Tensor:
        nodes = tokens.squeeze(-1) if tokens.shape[-1] == 1 else tokens.mean(2)
        edges = self.edges(tokens)
        for layer in self.layers:
            nodes, edges = layer(nodes, edges)
        return nodes


@pytest.mark.parametrize(("kind", "tokens"), [(TimeEdges, (10, 64)), (ChannelEdges, (64, 1))])
def test_memory_grows_no_faster_than_the_edges(kind: type[nn.Module], tokens: tuple[int, int]) -> None:
    """n² edges of 64 floats. ME-GraphAU's order of work, n² copies of both ends' 10 tokens and of their
    query, key and value, would keep 40 times that before a graph layer."""
    with FakeTensorMode():
        kept = {
            n: kept_for_backward(Graph(kind).train(), torch.empty(1, n, *tokens)) for n in (100, 200, 400)
        }
    assert kept[200] <= 4 * kept[100] and kept[400] <= 4 * kept[200]
    assert kept[400] < 2e9 / 2  # half of the 2 GB of a step; the backward pass makes as much again
    assert kept[400] < 16 * 400**2 * 64 * 4


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="heads=3 does not divide half the node width, 32"):
        TimeEdges(64, 3)
    with pytest.raises(ValueError, match="heads=3 does not divide the node width, 64"):
        ChannelEdges(64, 3)
