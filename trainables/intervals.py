"""How far a split's metrics may be off because it holds these clips and not others: 95 % intervals.

Shares of clips (accuracy) have Wilson's score interval, which stays within 0 and 1 and is sound for few clips
and for shares near either end. Everything else has a bootstrap over clips: the split is drawn again with
replacement, every metric is computed for each draw, and the draws' percentiles are moved so that their mean
is the value. (A draw holds clips twice, which rank beside themselves: average precision comes out too high.)
Clips count as independent, and those of one recording or one place are not quite: the intervals are of new
clips of the places in the split, not of new places.

A draw is a row of counts, how often each clip is in it. So a metric of a thousand draws is a few matrix
products and one sort an event, and not a thousand evaluations; tests/trainables/test_intervals.py has those.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from trainables.metrics import PRESENT, Scores, average_precision, roc_auc

LEVEL = 0.95
DRAWS = 1000
SHARES = ("scene_accuracy", "svm_accuracy")
METHOD = f"Wilson for accuracy, else bootstrap over clips, {DRAWS} draws, centred on the value; 95 %"

Interval = tuple[float, float]


def wilson(right: int, of: int) -> Interval:
    """Wilson's 95 % score interval of a share `right` / `of`; NaN of nothing."""
    if of <= 0:
        return math.nan, math.nan
    z = float(norm.ppf(0.5 + LEVEL / 2))
    share, spread = right / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / of + spread / of / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def intervals(scores: Scores, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Interval]:
    """(low, high) of every metric of `scores.compute()`; NaN where no draw has a value."""
    rows = scores.arrays()
    if not rows:
        return {}
    count = len(rows["clip"])
    counts = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    metrics = scores.compute()
    found = {name: _around(metrics[name], drawn, name) for name, drawn in replicates(rows, counts).items()}
    confusion = scores.confusion()
    if np.isfinite(rows["scene_logits"]).all():
        found["scene_accuracy"] = wilson(int(np.trace(confusion)), int(confusion.sum()))
    return found


def macro_recall(confusion: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """The bootstrap interval of the mean of the scenes' recalls, from counts (S, S) alone: to draw clips is
    to draw cells."""
    total = int(confusion.sum())
    if not total:
        return math.nan, math.nan
    share = confusion.ravel() / total
    drawn = np.random.default_rng(seed).multinomial(total, share, size=draws).reshape(-1, *confusion.shape)
    recalls = _nan_mean(_ratio(np.diagonal(drawn, axis1=1, axis2=2), drawn.sum(2)))
    value = _nan_mean(_ratio(np.diag(confusion), confusion.sum(1))[None])[0]
    return _around(float(value), recalls, "scene_accuracy_macro")


def replicates(rows: dict[str, np.ndarray], counts: np.ndarray) -> dict[str, np.ndarray]:
    """{metric: (R,)} for R draws; `rows` as `Scores.arrays` gives them for N clips, `counts` (R, N) how often
    each is drawn. Names and values are those of `Scores.compute` on the clips so repeated."""
    weights = counts.astype(np.float64)
    found = _scene_metrics(rows, weights)
    if "events" in rows:
        scores, present, known = (
            rows["event_probabilities"],
            rows["events"] >= PRESENT,
            rows["event_known"] > 0,
        )
        found["event_map"] = _nan_mean(_per_event(_weighted_ap, scores, present, known, weights))
        found["event_auc"] = _nan_mean(_per_event(_weighted_auc, scores, present, known, weights))
        found["event_auc_per_clip"] = _mean_over(roc_auc(scores.T, present.T, known.T), weights)
        found["event_lwlrap"] = _lwlrap(scores, present, known, weights)
    if "frame_tp" in rows:
        found |= _frame_metrics(rows, weights)
    return found


def _scene_metrics(rows: dict[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    logits, scene = rows["scene_logits"], rows["scene"]
    known = scene.sum(1) > 0
    if scene.shape[1] and logits.shape[1]:
        one_hot = np.eye(scene.shape[1])
        true, said = (one_hot[of.argmax(1)] * known[:, None] for of in (scene, logits))
    else:  # no scenes in the corpus, or none in the model
        true = said = scene[:, :0]
    hits, of, predicted = weights @ (true * said), weights @ true, weights @ said
    found = {
        "scene_accuracy": _ratio(hits.sum(1), of.sum(1)),
        "scene_accuracy_macro": _nan_mean(_ratio(hits, of)),
    }
    if "framed" in rows:
        f = np.nan_to_num(_ratio(2 * hits, predicted + of))
        found["scene_f_macro"] = np.where(of.sum(1) > 0, f.mean(1), np.nan)
    if not np.isfinite(logits).all():
        found = {name: np.full(len(weights), np.nan) for name in found}
    return found


def _frame_metrics(rows: dict[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    found = {}
    told = weights @ rows["frame_known"] > 0
    for kind in ("frame", "segment"):
        tp, fp, fn = (weights @ rows[f"{kind}_{name}"] for name in ("tp", "fp", "fn"))
        all_tp, all_fp, all_fn = tp.sum(1), fp.sum(1), fn.sum(1)
        found[f"{kind}_f_micro"] = np.nan_to_num(_ratio(2 * all_tp, 2 * all_tp + all_fp + all_fn))
        found[f"{kind}_f_macro"] = np.nan_to_num(_ratio(2 * tp, 2 * tp + fp + fn)).mean(1)
        found[f"{kind}_error_rate"] = _ratio(weights @ rows[f"{kind}_errors"], all_tp + all_fn)
    sound = told & bool(rows["frame_finite"].all())
    return {name: np.where(sound, values, np.nan) for name, values in found.items()}


def _per_event(
    metric: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    scores: np.ndarray,
    present: np.ndarray,
    known: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """(R, E): `metric` of every event's column, over the clips where the event's label is known."""
    columns = []
    for e in range(scores.shape[1]):
        told = known[:, e]
        values = scores[told, e]
        if len(values) and np.isfinite(values).all():
            columns.append(metric(values, present[told, e], weights[:, told]))
        else:
            columns.append(np.full(len(weights), np.nan))
    return np.stack(columns, 1) if columns else np.full((len(weights), 1), np.nan)


def _weighted_ap(scores: np.ndarray, present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R,) average precision; ties count as in `metrics.average_precision`."""
    order = np.argsort(-scores, kind="stable")
    drawn = weights[:, order]
    hits = drawn * present[order]
    last = np.searchsorted(-scores[order], -scores[order], side="right") - 1  # of those that score the same
    precision = _ratio(hits.cumsum(1)[:, last], drawn.cumsum(1)[:, last])
    return _ratio((hits * np.nan_to_num(precision)).sum(1), hits.sum(1))


def _weighted_auc(scores: np.ndarray, present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R,) area under the ROC curve, a tie counting half."""
    order = np.argsort(scores, kind="stable")
    ordered, drawn = scores[order], weights[:, order]
    hits, misses = drawn * present[order], drawn * ~present[order]
    below = np.concatenate([np.zeros((len(weights), 1)), misses.cumsum(1)], 1)
    lower = below[:, np.searchsorted(ordered, ordered, side="left")]
    upper = below[:, np.searchsorted(ordered, ordered, side="right")]
    return _ratio((hits * (lower + upper) / 2).sum(1), hits.sum(1) * misses.sum(1))


def _lwlrap(scores: np.ndarray, present: np.ndarray, known: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if not np.isfinite(np.where(known, scores, 0.0)).all():
        return np.full(len(weights), np.nan)
    labels = (present & known).sum(1)
    precision = np.nan_to_num(average_precision(scores.T, (present & known).T, known.T))
    return _ratio(weights @ (precision * labels), weights @ labels)


def _mean_over(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R,) mean over the clips that have a value."""
    there = ~np.isnan(values)
    return _ratio(weights[:, there] @ values[there], weights[:, there].sum(1))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b > 0)


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """(R,) mean of (R, K) over what is a number; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of rows that are all NaN
        return np.nanmean(values, axis=1)


def _around(value: float, drawn: np.ndarray, name: str) -> Interval:
    """The percentiles of the draws (R,), moved to the value, within the metric's range."""
    there = drawn[~np.isnan(drawn)]
    if not len(there) or math.isnan(value):
        return math.nan, math.nan
    low, high = np.percentile(there, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]) - there.mean() + value
    return max(0.0, float(low)), float(high) if name.endswith("error_rate") else min(1.0, float(high))
