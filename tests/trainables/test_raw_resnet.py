import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.batch import Batch
from trainables.parts.frontend import statistics
from trainables.parts.raw_resnet import (
    PreEmphasis,
    RandomCrop,
    RawResNet,
    ResidualBlock,
    least_samples,
    lengths,
)


def test_the_lengths_are_those_of_table_1() -> None:
    assert lengths(479_999, 7) == [39_999, 13_333, 4_444, 1_481, 493, 164, 54, 18]


def test_a_map_is_as_long_as_the_lengths_say_and_six_longer_with_the_last_convolution() -> None:
    for last in (False, True):
        trunk = RawResNet(2, (3,) * 8, slope=0.3, activation="after_add", last=last).eval()
        with torch.no_grad():
            x = torch.zeros(1, 2, 479_999)
            for layer, steps in zip(trunk, lengths(479_999, 7)):
                x = layer(x)
                assert x.shape == (1, 3, steps)
            if last:
                assert trunk[-1](x).shape == (1, 3, 24)


def test_the_least_samples_leave_one_step_and_one_fewer_leaves_none() -> None:
    assert lengths(least_samples(7), 7)[-1] == 1 and lengths(least_samples(7) - 1, 7)[-1] == 0


def test_pre_emphasis_is_the_loop_over_samples() -> None:
    waveform = torch.randn(2, 2, 50, dtype=torch.float64).float()
    slow = torch.zeros(2, 2, 49)
    for clip in range(2):
        for channel in range(2):
            for t in range(1, 50):
                slow[clip, channel, t - 1] = (
                    waveform[clip, channel, t] - 0.97 * waveform[clip, channel, t - 1]
                )
    front = PreEmphasis(48_000)
    torch.testing.assert_close(front.raw(waveform).squeeze(3), slow)
    assert torch.equal(front(waveform), front.raw(waveform))  # before statistics: as it is


def test_one_mean_and_deviation_for_all_samples_of_the_training_set() -> None:
    front = PreEmphasis(16_000)
    clips = torch.randn(5, 2, 40) * 3e-3 + 1
    batches = [
        Batch(part, torch.zeros(len(part), 1), *[torch.zeros(len(part), 0)] * 2, torch.arange(len(part)))
        for part in clips.split(2)
    ]
    mean, std = statistics(front, batches)
    every = front.raw(clips).double()
    torch.testing.assert_close(mean, every.mean().reshape(1))
    torch.testing.assert_close(std, every.std(correction=0).reshape(1))
    front.normalise.set_statistics(mean, std)
    assert abs(front(clips).std(correction=0).item() - 1) < 1e-4


def test_a_training_step_sees_a_piece_from_a_random_place_of_each_clip() -> None:
    torch.manual_seed(0)
    x = torch.arange(100.0).repeat(64, 2, 1).unsqueeze(3)  # the values are the places
    cropped = RandomCrop(30)(x)
    assert cropped.shape == (64, 2, 30, 1)
    starts = cropped[:, 0, 0, 0]
    for clip, start in zip(cropped, starts.long()):
        assert torch.equal(clip[..., 0], torch.arange(start, start + 30.0).expand(2, 30))
    assert len(starts.unique()) > 20 and starts.min() >= 0 and starts.max() <= 70
    assert RandomCrop(100)(x) is x and RandomCrop(101)(x) is x


def test_evaluation_sees_whole_clips() -> None:
    front = PreEmphasis(16_000, crop=RandomCrop(30))
    waveform = torch.randn(1, 1, 101)
    assert front.train()(waveform).shape == (1, 1, 30, 1)
    assert front.eval()(waveform).shape == (1, 1, 100, 1)


def slow_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Kernel 3, padding 1: (C, T) → (C', T), one number after another."""
    padded = F.pad(x, (1, 1))
    out = torch.zeros(len(weight), x.shape[1])
    for channel in range(len(weight)):
        for t in range(x.shape[1]):
            out[channel, t] = (weight[channel] * padded[:, t : t + 3]).sum() + bias[channel]
    return out


def slow_norm(x: Tensor, bn: torch.nn.BatchNorm1d) -> Tensor:
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)  # type: ignore[operator]
    return (x - bn.running_mean[:, None]) * scale[:, None] + bn.bias[:, None]  # type: ignore[index]


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.3 * x)


@pytest.mark.parametrize("activation", ["after_add", "before_add"])
@pytest.mark.parametrize("outputs", [3, 4])
def test_a_block_is_the_slow_one(activation: str, outputs: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(3, outputs, 0.3, activation).eval()  # type: ignore[arg-type]
    for bn in (block.bn1, block.bn2):
        bn.running_mean.normal_()  # type: ignore[union-attr]
        bn.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        torch.nn.init.normal_(bn.weight)
        torch.nn.init.normal_(bn.bias)
    x = torch.randn(1, 3, 11)
    with torch.no_grad():
        y = leaky(slow_norm(slow_convolution(x[0], block.conv1.weight, block.conv1.bias), block.bn1))  # type: ignore[arg-type]
        y = slow_norm(slow_convolution(y, block.conv2.weight, block.conv2.bias), block.bn2)  # type: ignore[arg-type]
        shortcut = (
            x[0] if outputs == 3 else slow_convolution(x[0], block.widen.weight, block.widen.bias)  # type: ignore[arg-type]
        )
        y = leaky(y + shortcut) if activation == "after_add" else leaky(y) + shortcut
        slow = torch.stack([y[:, 3 * i : 3 * i + 3].amax(1) for i in range(3)], 1)
        torch.testing.assert_close(block(x)[0], slow, rtol=1e-4, atol=1e-5)
