"""How long a model takes for one clip."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from trainables.contract import answer_features

WARM_UP, TIMES = 3, 15


def latency(model: nn.Module, features: tuple[int, ...], device: torch.device) -> float:
    """Median time, ms, from features of shape (1, C, T, F) to the scores, in eval mode on `device`."""
    clip, training = torch.zeros(features, device=device), model.training
    model.eval()
    taken = []
    with torch.no_grad():
        for _ in range(WARM_UP + TIMES):
            began = time.perf_counter()
            answer_features(model, clip)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - began)
    model.train(training)
    return 1e3 * statistics.median(taken[WARM_UP:])
