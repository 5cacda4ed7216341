"""Gradient reversal: nothing forwards, -λ backwards, against a backward pass by hand."""

import pytest
import torch

from trainables.parts.reversal import GradientReversal


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 3.0])
def test_forward_is_the_identity_and_the_gradient_is_multiplied_by_minus_lambda(strength: float) -> None:
    draw = torch.Generator().manual_seed(0)
    x, target = torch.randn(5, 3, generator=draw), torch.randn(5, 2, generator=draw)
    before = torch.randn(3, 4, generator=draw).requires_grad_()
    behind = torch.randn(4, 2, generator=draw).requires_grad_()
    hidden = (x @ before).tanh()
    passed = GradientReversal(strength)(hidden)
    assert torch.equal(passed, hidden)
    ((passed @ behind - target).square().sum()).backward()

    with torch.no_grad():  # by hand
        error = 2 * (hidden @ behind - target)
        into_hidden = -strength * (error @ behind.T)
        into_before = x.T @ (into_hidden * (1 - hidden.square()))
    torch.testing.assert_close(behind.grad, hidden.detach().T @ error)
    torch.testing.assert_close(before.grad, into_before)
