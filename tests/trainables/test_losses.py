"""Every loss term against a loop written from the paper's equation or Table IX."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from datasets.batch import Batch
from trainables import losses
from trainables.contract import JointOutput

B, S, E = 4, 3, 5
RELATIONS = ("ce_hard", "ce_soft", "mse_logits", "mse_probabilities", "mse_log_softmax")


@pytest.fixture
def output() -> JointOutput:
    draw = torch.Generator().manual_seed(1)
    tensors = [
        torch.randn(*shape, generator=draw, requires_grad=True) for shape in ((B, S), (B, E), (B, S), (B, E))
    ]
    scene, event, inferred_scene, inferred_event = tensors
    return JointOutput(scene, event, scene_from_event=inferred_scene, event_from_scene=inferred_event)


@pytest.fixture
def batch() -> Batch:
    scene = torch.tensor(
        [[1.0, 0, 0], [0, 0, 0], [0.3, 0, 0.7], [0, 1, 0]]
    )  # one-hot, unknown, mixed, one-hot
    events = torch.tensor([[1.0, 0, 0.2, 1, 0]] * B) * torch.tensor([1.0, 0.5, 1, 0]).view(B, 1)
    known = torch.ones(B, E)
    known[1] = 0
    known[2, 3] = 0
    return Batch(torch.zeros(B, 1, 8), scene, events, known, torch.arange(B))


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(v) for v in row]
    return [p / sum(powers) for p in powers]


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def bce(p: float, y: float) -> float:
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def test_scene_ce(output: JointOutput, batch: Batch) -> None:
    each = []
    for logits, truth in zip(output.scene_logits.tolist(), batch.scene.tolist()):
        if sum(truth) > 0:  # unknown clips are left out of the mean
            each.append(-sum(y * math.log(p) for y, p in zip(truth, softmax(logits))))
    assert len(each) == 3
    assert losses.scene_ce(output, batch).item() == pytest.approx(mean(each), rel=1e-5)


@pytest.mark.parametrize(
    ("term", "distance"), [(losses.event_bce, bce), (losses.event_mse, lambda p, y: (p - y) ** 2)]
)
def test_event_terms(output: JointOutput, batch: Batch, term, distance) -> None:
    logits, truth, known = (t.tolist() for t in (output.event_logits, batch.events, batch.event_known))
    each = [distance(sigmoid(logits[b][e]), truth[b][e]) for b in range(B) for e in range(E) if known[b][e]]
    assert len(each) == 14
    assert term(output, batch).item() == pytest.approx(mean(each), rel=1e-5)


def test_hard_cross_entropy_is_torch_s(output: JointOutput, batch: Batch) -> None:
    labels = torch.tensor([0, 2, 1, 1])
    one_hot = replace(batch, scene=torch.eye(S)[labels])
    expected = torch.nn.functional.cross_entropy(output.scene_logits, labels)
    torch.testing.assert_close(losses.scene_ce(output, one_hot), expected)


def test_joint_term_is_one_label_space(output: JointOutput, batch: Batch) -> None:
    """Bear et al. 2019: sigmoid and binary cross-entropy over scenes and events alike."""
    each = []
    for b in range(B):
        if batch.scene[b].sum() > 0:
            pairs = zip(output.scene_logits[b].tolist(), batch.scene[b].tolist())
            each += [bce(sigmoid(z), y) for z, y in pairs]
        for e in range(E):
            if batch.event_known[b, e]:
                each.append(bce(sigmoid(output.event_logits[b, e].item()), batch.events[b, e].item()))
    assert len(each) == 3 * S + 14
    assert losses.scene_event_bce(output, batch).item() == pytest.approx(mean(each), rel=1e-5)


def told_scenes(output: JointOutput) -> JointOutput:
    draw = torch.Generator().manual_seed(2)
    by_scene = torch.randn(B, S, E, generator=draw, requires_grad=True)
    possible = (torch.rand(S, E, generator=draw) > 0.4).float().expand(B, -1, -1)
    return replace(output, event_logits_by_scene=by_scene, possible_events=possible)


def test_fake_scene_term_is_the_mean_over_wrong_scenes(output: JointOutput, batch: Batch) -> None:
    told = told_scenes(output)
    total, mass = 0.0, 0.0
    for b in range(B):
        if batch.scene[b].sum() == 0:  # no scene is known to be wrong
            continue
        for s in range(S):
            wrong = 1 - batch.scene[b, s].item()
            for e in range(E):
                if batch.event_known[b, e]:
                    target = batch.events[b, e].item() if told.possible_events[b, s, e] else 0.0
                    total += wrong * bce(sigmoid(told.event_logits_by_scene[b, s, e].item()), target)
                    mass += wrong
    assert mass == 2 * (5 + 4 + 5)
    assert losses.fake_scene_bce(told, batch).item() == pytest.approx(total / mass, rel=1e-5)


def test_fake_scene_term_leaves_the_true_scene_alone(output: JointOutput, batch: Batch) -> None:
    told = told_scenes(output)
    losses.fake_scene_bce(told, batch).backward()
    grad = told.event_logits_by_scene.grad
    assert (grad[0, 0] == 0).all() and (grad[0, 1:] != 0).all() and (grad[1] == 0).all()


@pytest.mark.parametrize("name", ["scene_event_bce", "fake_scene_bce"])
def test_comparison_terms_without_any_label_are_zero_with_a_gradient(
    output: JointOutput, batch: Batch, name: str
) -> None:
    told = told_scenes(output)
    unknown = replace(batch, scene=torch.zeros(B, S), event_known=torch.zeros(B, E))
    value = getattr(losses, name)(told, unknown)
    value.backward()
    reached = told.event_logits_by_scene if name == "fake_scene_bce" else told.event_logits
    assert value.item() == 0 and reached.grad is not None and (reached.grad == 0).all()


@pytest.mark.parametrize("name", ["scene_ce", "event_bce", "event_mse"])
def test_nothing_known_gives_zero_with_a_gradient(output: JointOutput, batch: Batch, name: str) -> None:
    unknown = replace(batch, scene=torch.zeros(B, S), event_known=torch.zeros(B, E))
    value = getattr(losses, name)(output, unknown)
    value.backward()
    assert value.item() == 0
    logits = output.scene_logits if name == "scene_ce" else output.event_logits
    assert logits is not None and logits.grad is not None and (logits.grad == 0).all()


def table_9_scene(relation: str, inferred: list[list[float]], logits: list[list[float]]) -> float:
    each = []
    for y, z in zip(inferred, logits):
        p, q = softmax(y), softmax(z)
        if relation == "ce_hard":  # CE(S(ỹ), Max(ŷ))
            each.append(-math.log(p[z.index(max(z))]))
        elif relation == "ce_soft":  # soft CE(S(ỹ), ŷ)
            each.append(-sum(b * math.log(a) for a, b in zip(p, q)))
        elif relation == "mse_logits":  # MSE(ỹ, ẑ)
            each.append(mean([(a - b) ** 2 for a, b in zip(y, z)]))
        elif relation == "mse_probabilities":  # MSE(ỹ, ŷ)
            each.append(mean([(a - b) ** 2 for a, b in zip(y, q)]))
        else:  # MSE(ỹ, log ŷ)
            each.append(mean([(a - math.log(b)) ** 2 for a, b in zip(y, q)]))
    return mean(each)


def table_9_event(relation: str, inferred: list[list[float]], logits: list[list[float]]) -> float:
    each = []
    for y, z in zip((v for row in inferred for v in row), (v for row in logits for v in row)):
        if relation in ("ce_hard", "ce_soft"):  # BCE(Sig(ỹ), ŷ)
            each.append(bce(sigmoid(y), sigmoid(z)))
        elif relation == "mse_logits":
            each.append((y - z) ** 2)
        else:
            each.append((y - sigmoid(z)) ** 2)
    return mean(each)


@pytest.mark.parametrize("relation", RELATIONS)
def test_relation_terms_are_table_9(output: JointOutput, batch: Batch, relation: str) -> None:
    scene = losses.scene_from_event(relation)(output, batch)
    event = losses.event_from_scene(relation)(output, batch)
    inferred_scene, inferred_event = output.scene_from_event.tolist(), output.event_from_scene.tolist()
    assert scene.item() == pytest.approx(
        table_9_scene(relation, inferred_scene, output.scene_logits.tolist()), rel=1e-5
    )
    assert event.item() == pytest.approx(
        table_9_event(relation, inferred_event, output.event_logits.tolist()), rel=1e-5
    )


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("detach", [False, True])
def test_targets_keep_their_gradient_unless_detached(
    output: JointOutput, batch: Batch, relation: str, detach: bool
) -> None:
    value = losses.scene_from_event(relation, detach)(output, batch)
    value = value + losses.event_from_scene(relation, detach)(output, batch)
    value.backward()
    assert output.scene_from_event.grad.abs().sum() > 0 and output.event_from_scene.grad.abs().sum() > 0
    has = [
        t.grad is not None and bool(t.grad.abs().sum() > 0)
        for t in (output.scene_logits, output.event_logits)
    ]
    hard_target = relation == "ce_hard"  # the largest class has no gradient in any case
    assert has == [not detach and not hard_target, not detach]


@pytest.mark.parametrize("relation", ["ce_soft", "mse_log_softmax"])
def test_gradients_of_the_targets_are_exact(relation: str, batch: Batch) -> None:
    def value(scene: Tensor, event: Tensor, y_s: Tensor, y_e: Tensor) -> Tensor:
        joint = JointOutput(scene, event, scene_from_event=y_s, event_from_scene=y_e)
        return losses.scene_from_event(relation)(joint, batch) + losses.event_from_scene(relation)(
            joint, batch
        )

    points = [torch.randn(B, n, requires_grad=True) for n in (S, E, S, E)]
    grads = torch.autograd.grad(value(*points), points)
    step = 1e-2  # float32 terms: central differences good to three digits
    for i, point in enumerate(points):
        shift = torch.zeros_like(point)
        shift[1, 2] = step
        moved = [[p + sign * shift if j == i else p for j, p in enumerate(points)] for sign in (1, -1)]
        slope = (value(*moved[0]) - value(*moved[1])) / (2 * step)
        torch.testing.assert_close(grads[i][1, 2], slope, atol=2e-4, rtol=1e-2)


def test_half_precision_outputs_are_summed_in_float32(output: JointOutput, batch: Batch) -> None:
    half = JointOutput(output.scene_logits.bfloat16(), output.event_logits.bfloat16())
    for term in (losses.scene_ce, losses.event_bce, losses.event_mse):
        assert term(half, batch).dtype == torch.float32


def test_a_term_that_the_model_cannot_serve_says_what_is_missing(output: JointOutput, batch: Batch) -> None:
    with pytest.raises(ValueError, match="needs event_logits"):
        losses.event_bce(JointOutput(output.scene_logits), batch)
    with pytest.raises(ValueError, match="needs event_logits_by_scene"):
        losses.fake_scene_bce(output, batch)
    with pytest.raises(ValueError, match="needs scene_from_event"):
        losses.scene_from_event("ce_soft")(JointOutput(output.scene_logits), batch)


def test_total_is_the_weighted_sum_and_wants_both_sides() -> None:
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert losses.total(terms, {"a": 0.5, "b": 0.0}).item() == 1.0
    with pytest.raises(ValueError, match=r"without a weight: \['b'\]; weights without a term: none"):
        losses.total(terms, {"a": 1.0})
    with pytest.raises(ValueError, match=r"without a weight: none; weights without a term: \['c'\]"):
        losses.total(terms, {"a": 1.0, "b": 1.0, "c": 1.0})


def test_weight_zero_keeps_the_gradient_path() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    losses.total({"a": x * x}, {"a": 0.0}).backward()
    assert x.grad is not None and x.grad.item() == 0
