import pytest

from trainables.metrics import Scores
from trainables.names import METRICS, OBJECTIVE, direction


def test_every_computed_metric_is_declared() -> None:
    assert Scores().compute().keys() <= METRICS.keys()
    assert direction(OBJECTIVE) == "max"


@pytest.mark.parametrize(
    ("column", "better"),
    [
        ("val/scene_accuracy", "max"),
        ("train/loss", "min"),
        ("test/loss/event_bce", "min"),
        ("val/term/scene_ce", "min"),
    ],
)
def test_direction(column: str, better: str) -> None:
    assert direction(column) == better


@pytest.mark.parametrize("column", ["scene_accuracy", "val/accuracy", "dev/loss", "val/"])
def test_undeclared_columns_are_refused(column: str) -> None:
    with pytest.raises(ValueError, match="is not known; known: train, val, test / scene_accuracy"):
        direction(column)
