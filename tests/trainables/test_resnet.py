"""ResNet-18 and -34: the published sizes, its maps, and the short cut."""

import pytest
import torch

from trainables.parts.resnet import RESNET18, RESNET34, BasicBlock, ResNet

PUBLISHED = 11_689_512  # with 3 input channels and a head of 1000 classes


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_it_has_the_published_number_of_parameters() -> None:
    encoder = ResNet(3, depths=RESNET18)
    assert count(encoder) + count(torch.nn.Linear(encoder.outputs, 1000)) == PUBLISHED
    assert count(ResNet(1, depths=RESNET18)) == count(encoder) - 2 * 64 * 7 * 7 == 11_170_240
    convolutions = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    on_the_way = [m for m in convolutions if m.kernel_size != (1, 1)]
    assert len(on_the_way) == 17 and len(convolutions) == 20  # the 18th layer is the head


def test_ten_seconds_shrink_by_32_and_any_size_gives_an_embedding() -> None:
    with torch.device("meta"):
        encoder = ResNet(1, depths=RESNET18)
        maps = encoder.blocks(encoder.pool(encoder.conv(torch.empty(2, 1, 320, 64))))
        assert maps.shape == (2, 512, 10, 2)
        for frames, bins in ((320, 64), (5, 3), (33, 40)):
            assert encoder(torch.empty(2, 1, frames, bins)).shape == (2, 512)


def test_a_block_is_two_convolutions_and_the_input() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, 6, 5)
    block = BasicBlock(4, 4, stride=1).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), x.relu())
    wider = BasicBlock(4, 8, stride=2).eval()
    torch.nn.init.zeros_(wider.conv2.weight)
    weight, norm = wider.shortcut[0].weight, wider.shortcut[1]
    picked = torch.einsum("oi,bitf->botf", weight[:, :, 0, 0], x[:, :, ::2, ::2])
    expected = (picked / (norm.running_var[0] + norm.eps).sqrt()).relu()
    torch.testing.assert_close(wider(x), expected)


def test_34_layers_and_the_maximum() -> None:
    with torch.device("meta"):
        encoder = ResNet(3, depths=RESNET34)
    head = 512 * 1000 + 1000
    assert count(encoder) + head == 21_797_672
    pools = [ResNet(1, 0.1, depths=(1, 1, 1, 1), pool=pool).eval() for pool in ("mean", "max")]
    pools[1].load_state_dict(pools[0].state_dict())
    x = torch.randn(2, 1, 70, 40)
    maps = pools[0].blocks(pools[0].pool(pools[0].bn(pools[0].conv(x)).relu()))
    for found, expected in zip(pools, (maps.mean((2, 3)), maps.amax((2, 3)))):
        torch.testing.assert_close(found(x), expected)


@pytest.mark.parametrize("width", [0.125, 0.5, 2.0])
def test_width_scales_every_stage(width: float) -> None:
    with torch.device("meta"):
        encoder = ResNet(1, width, depths=RESNET18)
    assert [b.conv2.out_channels for b in encoder.blocks] == [
        round(c * width) for c in (64, 64, 128, 128, 256, 256, 512, 512)
    ]
    assert encoder.outputs == round(512 * width)
