"""When a model is unsure: the temperature undoes overconfidence, the threshold keeps its promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from trainables.calibration import (
    Calibration,
    calibrate,
    calibration_error,
    fit_temperature,
    fit_threshold,
)


def clips(count: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scenes drawn from the softmax of logits, which are then made `sharpness` times too large."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (count, 6))
    scene = np.array([draw.choice(6, p=row) for row in softmax(logits, axis=1)])
    return sharpness * logits, scene


def test_the_temperature_is_how_much_too_sharp_the_logits_are() -> None:
    for sharpness in (0.4, 1.0, 3.0):
        logits, scene = clips(6000, sharpness)
        found = fit_temperature(logits, scene)
        assert found == pytest.approx(sharpness, rel=0.06)
        losses = {
            t: -log_softmax(logits / t, axis=1)[np.arange(6000), scene].mean()
            for t in np.linspace(0.5, 1.5, 41) * found
        }
        assert min(losses, key=lambda t: losses[t]) == pytest.approx(found, rel=0.03)


def test_the_threshold_is_the_lowest_that_halves_the_errors() -> None:
    draw = np.random.default_rng(3)
    confidence = np.round(draw.uniform(0.4, 1, 300), 2)
    right = draw.random(300) < confidence
    found = fit_threshold(confidence, right)
    good = [t for t in np.unique(confidence) if (~right[confidence >= t]).mean() <= (~right).mean() / 2]
    assert found == max(0.5, min(good))
    assert fit_threshold(np.array([0.9, 0.8]), np.array([False, True])) is None
    assert fit_threshold(np.array([0.3, 0.8]), np.array([True, True])) == 0.5


def test_sure_answers_err_half_as_often_on_clips_it_was_not_fitted_on() -> None:
    logits, scene = clips(4000, 2.5, seed=5)
    found = calibrate(logits[:2000], scene[:2000])
    assert found.error_after < 0.04 < found.error_before
    probabilities = found.probabilities(logits[2000:])
    right, sure = probabilities.argmax(1) == scene[2000:], found.sure(probabilities.max(1))
    assert found.coverage == pytest.approx(sure.mean(), abs=0.04)
    assert found.sure_accuracy == pytest.approx(right[sure].mean(), abs=0.05)
    assert found.sure_low < found.sure_accuracy < found.sure_high
    assert found.unsure_accuracy == pytest.approx(right[~sure].mean(), abs=0.05)
    assert (probabilities.argmax(1) == logits[2000:].argmax(1)).all()


def test_the_measured_coverage_never_uses_the_clip_it_measures() -> None:
    logits, scene = clips(50, 2.0)
    found = calibrate(logits, scene)
    sure = []
    for clip in range(50):
        kept = np.arange(50) % 5 != clip % 5
        t = fit_temperature(logits[kept], scene[kept])
        limit = fit_threshold(softmax(logits[kept] / t, axis=1).max(1), logits[kept].argmax(1) == scene[kept])
        sure.append(limit is not None and softmax(logits[clip] / t).max() >= limit)
    assert found.coverage == pytest.approx(np.mean(sure))


def test_it_is_written_and_read_back_and_too_few_clips_are_refused() -> None:
    logits, scene = clips(40, 1.0)
    perfect = 9.0 * np.eye(6)[scene]
    for found in (calibrate(logits, scene), calibrate(perfect, scene)):
        again = Calibration.read(found.record())
        assert again is not None and again.record() == found.record()
    assert found.record()["unsure_accuracy"] is None and found.coverage == 1.0
    assert Calibration.read(None) is None and Calibration.read({"absent": "why"}) is None
    with pytest.raises(ValueError, match="19 validation clips of known scene; at least 20"):
        calibrate(logits, np.where(np.arange(40) < 19, scene, -1))
    with pytest.raises(ValueError, match="the training diverged"):
        calibrate(np.where(logits > 1, np.nan, logits), scene)


def test_the_calibration_error_is_the_gap_of_each_bin() -> None:
    confidence, right = np.array([0.25, 0.25, 0.95, 1.0]), np.array([True, False, True, True])
    assert calibration_error(confidence, right) == pytest.approx(0.5 * 0.25 + 0.5 * 0.025)
