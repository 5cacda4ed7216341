import math

import pytest
import torch

from trainables.parts.tag_attention import TagAttention, tag_layers


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
@pytest.mark.parametrize("rescale", [False, True])
def test_attention_is_the_loop_over_heads_filters_and_time(heads: int, rescale: bool) -> None:
    torch.manual_seed(heads)
    clips, filters, steps, tags = 3, 8, 5, 6
    module = TagAttention(tags, filters, heads, rescale=rescale)
    x, t = torch.randn(clips, filters, steps), torch.rand(clips, tags)
    slow = torch.zeros(clips, filters, steps)
    with torch.no_grad():
        for clip in range(clips):
            a = [
                sum(float(module.map.weight[i, k] * t[clip, k]) for k in range(tags))
                + float(module.map.bias[i])
                for i in range(filters)
            ]
            size = filters // heads
            for head in range(heads):
                group = range(head * size, (head + 1) * size)
                total = sum(math.exp(a[i]) for i in group)
                for i in group:
                    gain = math.exp(a[i]) / total * (size if rescale else 1)
                    for j in range(steps):
                        slow[clip, i, j] = x[clip, i, j] * gain
        torch.testing.assert_close(module(x, t), slow)


def test_every_head_sums_to_one_and_to_its_filters_when_rescaled() -> None:
    tags = torch.rand(4, 6)
    for rescale, total in ((False, 1.0), (True, 4.0)):
        attention = TagAttention(6, 16, 4, rescale=rescale).attention(tags)
        torch.testing.assert_close(attention.unflatten(1, (4, 4)).sum(2), torch.full((4, 4), total))


def test_heads_that_do_not_divide_the_filters_are_refused() -> None:
    for heads in (0, 3, 256):
        with pytest.raises(ValueError, match=f"heads={heads} do not divide the 128 filters"):
            TagAttention(80, 128, heads)


def test_no_tag_layer_leaves_the_tags_and_each_other_one_is_linear_and_leaky() -> None:
    tags = torch.randn(2, 6)
    assert torch.equal(tag_layers(6, 5, 0, 0.3)(tags), tags)
    layers = tag_layers(6, 5, 2, 0.3)
    y = tags
    for linear in (layers[0], layers[2]):
        y = y @ linear.weight.T + linear.bias  # type: ignore[operator, union-attr]
        y = torch.where(y > 0, y, 0.3 * y)
    torch.testing.assert_close(layers(tags), y)
