import pytest

from trainables.metrics import Scores
from trainables.names import METRICS, OBJECTIVE, check_objective, direction, measured


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
        ("val/frame_error_rate", "min"),
        ("test/frame_f/bird singing", "max"),
    ],
)
def test_direction(column: str, better: str) -> None:
    assert direction(column) == better


@pytest.mark.parametrize("column", ["scene_accuracy", "val/accuracy", "dev/loss", "val/"])
def test_undeclared_columns_are_refused(column: str) -> None:
    with pytest.raises(ValueError, match="is not known; known: train, val, test / scene_accuracy"):
        direction(column)


def test_what_a_search_can_have_as_its_objective() -> None:
    for column in (OBJECTIVE, "val/event_map"):
        check_objective(column, frames=False)
    check_objective("val/frame_f_micro", frames=True)
    for column in ("val/loss", "scene_accuracy", "test/scene_accuracy", "val/clips_per_second"):
        with pytest.raises(ValueError, match=f"--objective {column}: expected one of val/scene_accuracy, "):
            check_objective(column, frames=True)
    with pytest.raises(ValueError, match="--objective val/segment_f_macro: expected one of"):
        check_objective("val/segment_f_macro", frames=False)


def test_what_runs_measure_themselves() -> None:
    assert measured("scene_accuracy") and measured("frame_f/car") and not measured("embedding_pcc")


def test_a_model_without_scenes_is_searched_by_its_events() -> None:
    for column in (OBJECTIVE, "val/scene_accuracy_macro", "val/svm_accuracy"):
        with pytest.raises(ValueError, match=f"--objective {column}: expected one of val/event_map, "):
            check_objective(column, frames=False, scenes=False)
    check_objective("val/event_lwlrap", frames=False, scenes=False)
