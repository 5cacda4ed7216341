"""The coupling against Algorithm 1 of Hou et al. 2023, written line by line."""

import math

import torch

from trainables.parts.coupling import infer


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(v - max(row)) for v in row]
    return [p / sum(powers) for p in powers]


def algorithm_1(
    scene_embedding: list, event_embedding: list, scene_weight: list, event_weight: list
) -> tuple[list, list]:
    scenes, events, width = len(scene_weight), len(event_weight), len(scene_weight[0])
    w_se = [  # line 7
        [sum(scene_weight[s][d] * event_weight[e][d] for d in range(width)) for e in range(events)]
        for s in range(scenes)
    ]
    a_e = [softmax(row) for row in w_se]  # line 9
    k_e2s = [
        [sum(a_e[s][e] * event_weight[e][d] for e in range(events)) for d in range(width)]
        for s in range(scenes)
    ]
    y_s = [
        [sum(row[d] * k_e2s[s][d] for d in range(width)) for s in range(scenes)] for row in event_embedding
    ]
    a_s = [softmax([w_se[s][e] for s in range(scenes)]) for e in range(events)]  # line 13
    k_s2e = [
        [sum(a_s[e][s] * scene_weight[s][d] for s in range(scenes)) for d in range(width)]
        for e in range(events)
    ]
    y_e = [
        [sum(row[d] * k_s2e[e][d] for d in range(width)) for e in range(events)] for row in scene_embedding
    ]
    return y_s, y_e


def test_equals_algorithm_1() -> None:
    generator = torch.Generator().manual_seed(0)
    batch, scenes, events, width = 3, 4, 7, 5
    tensors = [
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((batch, width), (batch, width), (scenes, width), (events, width))
    ]
    found = infer(*tensors)
    assert [f.shape for f in found] == [(batch, scenes), (batch, events)]
    for ours, theirs in zip(found, algorithm_1(*(t.tolist() for t in tensors))):
        torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64))


def test_gradient_reaches_both_classifiers_through_either_answer() -> None:
    for answer in (0, 1):
        tensors = [torch.randn(*shape, requires_grad=True) for shape in ((2, 5), (2, 5), (4, 5), (7, 5))]
        infer(*tensors)[answer].square().sum().backward()
        assert all(weight.grad.abs().sum() > 0 for weight in tensors[2:])
        own, other = (tensors[1], tensors[0]) if answer == 0 else (tensors[0], tensors[1])
        assert own.grad.abs().sum() > 0 and other.grad is None
