"""When a model should say that it is unsure: probabilities that mean what they say, and a threshold on them.

Temperature scaling (Guo et al. 2017): scene logits are divided by the one number that makes the labels of the
validation split most likely, which changes no answer. The threshold on the largest probability is then the
lowest that lets the answers above it err at most half as often as all answers do, and at least 0.5: below,
an answer is more likely wrong than right.

How much is answered (coverage) and how often rightly is measured by five-fold cross-validation, temperature
and threshold fitted on the other four fifths each time. It is still the split that the configuration was
chosen on: `python -m trainables.evaluate MODEL SHARDS --split test` measures the same on clips that chose
nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from trainables.intervals import wilson

LEAST_CLIPS = 20
FOLDS = 5
LEAST_CONFIDENCE = 0.5
TEMPERATURES = (0.05, 20.0)
METHOD = (
    "temperature scaling; sure from the lowest probability on above which answers err at most half as often "
    f"as all do, at least {LEAST_CONFIDENCE:g}; measured by {FOLDS}-fold cross-validation on validation"
)


@dataclass(frozen=True)
class Calibration:
    """temperature  the scene logits are divided by
    threshold    an answer is sure from this probability on; None: no threshold halves the errors, and every
                 answer is unsure
    clips        validation clips of known scene that it was fitted on
    accuracy     of all of them
    coverage     share of them that were answered surely, and `sure_accuracy` of these with its interval,
                 `unsure_accuracy` of the others (NaN of none), cross-validated
    error_before, error_after  expected calibration error in 10 bins without and with the temperature,
                 cross-validated
    """

    temperature: float
    threshold: float | None
    clips: int
    accuracy: float
    coverage: float
    sure_accuracy: float
    sure_low: float
    sure_high: float
    unsure_accuracy: float
    error_before: float
    error_after: float
    method: str = METHOD

    def record(self) -> dict[str, Any]:
        """Ready for JSON: None for what is not a number."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @staticmethod
    def read(record: dict[str, Any] | None) -> Calibration | None:
        """The calibration in a model's description; None where there is none."""
        if not record or "temperature" not in record:
            return None
        missing = {name: math.nan for name, value in record.items() if value is None and name != "threshold"}
        return Calibration(**record | missing)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(N, S) from scene logits (N, S)."""
        return np.asarray(softmax(logits / self.temperature, axis=1))

    def sure(self, confidence: np.ndarray) -> np.ndarray:
        """Whether an answer of this probability (N,) is sure."""
        return _sure(confidence, self.threshold)


def calibrate(logits: np.ndarray, scene: np.ndarray) -> Calibration:
    """From scene logits (N, S) and the numbers of the true scenes (N,), -1 where unknown.

    Raises ValueError for fewer than 20 clips of known scene, and for logits that are not numbers.
    """
    logits, scene = logits[scene >= 0].astype(np.float64), scene[scene >= 0]
    if len(scene) < LEAST_CLIPS:
        raise ValueError(f"{len(scene)} validation clips of known scene; at least {LEAST_CLIPS} are needed")
    if not np.isfinite(logits).all():
        raise ValueError("its scene logits are not all numbers: the training diverged")
    right = logits.argmax(1) == scene
    fold = np.arange(len(scene)) % FOLDS
    sure, confidence = np.zeros(len(scene), dtype=bool), np.zeros(len(scene))
    for out in range(FOLDS):
        kept, held = fold != out, fold == out
        temperature = fit_temperature(logits[kept], scene[kept])
        threshold = fit_threshold(_confidence(logits[kept], temperature), right[kept])
        confidence[held] = _confidence(logits[held], temperature)
        sure[held] = _sure(confidence[held], threshold)
    temperature = fit_temperature(logits, scene)
    low, high = wilson(int(right[sure].sum()), int(sure.sum()))
    return Calibration(
        temperature=temperature,
        threshold=fit_threshold(_confidence(logits, temperature), right),
        clips=len(scene),
        accuracy=float(right.mean()),
        coverage=float(sure.mean()),
        sure_accuracy=_mean(right[sure]),
        sure_low=low,
        sure_high=high,
        unsure_accuracy=_mean(right[~sure]),
        error_before=calibration_error(_confidence(logits, 1.0), right),
        error_after=calibration_error(confidence, right),
    )


def fit_temperature(logits: np.ndarray, scene: np.ndarray) -> float:
    """The temperature in 0.05 … 20 with the least mean cross-entropy of logits (N, S) to scenes (N,)."""
    rows = np.arange(len(scene))

    def loss(logarithm: float) -> float:
        return -float(log_softmax(logits / math.exp(logarithm), axis=1)[rows, scene].mean())

    found = minimize_scalar(loss, bounds=tuple(map(math.log, TEMPERATURES)), method="bounded")
    return float(math.exp(found.x))


def fit_threshold(confidence: np.ndarray, right: np.ndarray) -> float | None:
    """The lowest of the confidences (N,), and at least 0.5, from which on the share of wrong answers is at
    most half of all answers'; None where no confidence is."""
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    wrong = np.cumsum(~right[order]) / np.arange(1, len(right) + 1)
    last_of_ties = np.append(falling[1:] < falling[:-1], True)
    good = last_of_ties & (wrong <= (~right).mean() / 2)
    if not good.any():
        return None
    return max(LEAST_CONFIDENCE, float(falling[np.flatnonzero(good)[-1]]))


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Σ over bins of equal width of (share of clips) · |mean confidence - accuracy|."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        (place == b).mean() * abs(confidence[place == b].mean() - right[place == b].mean())
        for b in np.unique(place)
    ]
    return float(sum(gaps))


def _confidence(logits: np.ndarray, temperature: float) -> np.ndarray:
    return np.asarray(softmax(logits / temperature, axis=1).max(1))


def _sure(confidence: np.ndarray, threshold: float | None) -> np.ndarray:
    return np.zeros(len(confidence), dtype=bool) if threshold is None else confidence >= threshold


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
