"""Every figure twice: an info function (plain values, tested exactly) and a draw function (ink only).

An info whose `note` is not empty has nothing to draw and says why. Scores keep their own unit until drawn.
`search`, `parallel`, `tradeoff`, `timeline`, `confirmed` and `winner` draw a study, `rows` a paper's table
beside ours, `sweeps` along one quantity, `recalls` the confusions of its rows; `maps` and `relations` draw
what a study's model has learned.
"""

from reports.figures.confirmed import (
    CONFIRMED_CAPTION,
    Confirmation,
    confirmation,
    contest_rows,
    draw_confirmation,
)
from reports.figures.parallel import (
    ParallelCoordinates,
    draw_parallel_coordinates,
    parallel_coordinates,
)
from reports.figures.recalls import Recalls, draw_recalls, recalls
from reports.figures.rows import Panel, Panels, draw_panels, has_bars, panels
from reports.figures.search import (
    Curve,
    LearningCurves,
    SearchHistory,
    Slice,
    Slices,
    draw_importance,
    draw_learning_curves,
    draw_search_history,
    draw_slices,
    learning_curves,
    search_history,
    slices,
)
from reports.figures.sweeps import Sweep, data_sweep, draw_sweep, table_sweep
from reports.figures.timeline import Timeline, draw_timeline, timeline
from reports.figures.tradeoff import Tradeoff, draw_tradeoff, tradeoff
from reports.figures.winner import (
    Confusion,
    EventPrecision,
    confusion,
    draw_confusion,
    draw_event_precision,
    event_precision,
)
from reports.importance import Importance, importance

__all__ = [
    "CONFIRMED_CAPTION",
    "Confirmation",
    "Confusion",
    "Curve",
    "EventPrecision",
    "Importance",
    "LearningCurves",
    "Panel",
    "Panels",
    "ParallelCoordinates",
    "Recalls",
    "SearchHistory",
    "Slice",
    "Slices",
    "Sweep",
    "Timeline",
    "Tradeoff",
    "confirmation",
    "confusion",
    "contest_rows",
    "data_sweep",
    "draw_confirmation",
    "draw_confusion",
    "draw_event_precision",
    "draw_importance",
    "draw_learning_curves",
    "draw_panels",
    "draw_parallel_coordinates",
    "draw_recalls",
    "draw_search_history",
    "draw_slices",
    "draw_sweep",
    "draw_timeline",
    "draw_tradeoff",
    "event_precision",
    "has_bars",
    "importance",
    "learning_curves",
    "panels",
    "parallel_coordinates",
    "recalls",
    "search_history",
    "slices",
    "table_sweep",
    "timeline",
    "tradeoff",
]
