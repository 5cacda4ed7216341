from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from trainables.knobs import accepted, check, check_range, fill, parse_value
from trainables.recipe import parse_pins
from trainables.registry import config_from


@dataclass(frozen=True)
class Knobs:
    rate: float = 0.1
    layers: int | None = None
    kind: Literal["a", "b"] = "a"
    on: bool = False
    name: str = "x"
    share: float | None = 0.5

    def __post_init__(self) -> None:
        check(self)
        check_range(self, "share", 0.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (float, "1e-3", 0.001),
        (float, "2", 2.0),
        (int, "7", 7),
        (bool, "true", True),
        (bool, "No", False),
        (int | None, "none", None),
        (int | None, "3", 3),
        (bool | None, "off", False),
        (Literal["a", "b"], "b", "b"),
        (str, "none", "none"),
    ],
)
def test_text_becomes_the_knobs_type(kind: Any, text: str, value: Any) -> None:
    found = parse_value(kind, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"), [(float, "x"), (int, "1.5"), (int, "none"), (bool, "maybe"), (Literal["a", "b"], "c")]
)
def test_text_that_does_not_fit_is_answered_with_what_does(kind: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is not accepted; expected {accepted(kind)}"):
        parse_value(kind, text)


def test_fill_takes_numbers_of_any_library_and_whole_numbers_for_floats() -> None:
    found = fill(
        Knobs,
        {"rate": 1, "layers": np.int64(3), "on": np.bool_(True), "share": np.float64(0.25), "kind": "b"},
    )
    assert found == Knobs(rate=1.0, layers=3, on=True, share=0.25, kind="b")
    assert type(found.rate) is float and type(found.layers) is int and type(found.on) is bool


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rate": "fast"}, "rate='fast'"),
        ({"rate": True}, "rate=True"),
        ({"rate": float("nan")}, "rate=nan"),
        ({"layers": 2.0}, "layers=2.0"),
        ({"layers": True}, "layers=True"),
        ({"on": 1}, "on=1"),
        ({"kind": "c"}, "a or b"),
        ({"name": 3}, "name=3"),
        ({"share": "1.5"}, "share=1.5: expected a number >= 0 and <= 1"),
        ({"rate": None}, "rate=None"),
        ({"raet": 1.0}, "did you mean 'rate'? known: rate, layers"),
        ({"zzzzz": 1.0}, "unknown knob 'zzzzz'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_value(values: dict, said: str) -> None:
    with pytest.raises(ValueError) as error:
        fill(Knobs, values)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_direct_construction_is_checked_too() -> None:
    with pytest.raises(ValueError, match="kind='c' is not accepted; expected a or b"):
        Knobs(kind="c")  # type: ignore[arg-type]


def test_config_from_parses_a_familys_knobs() -> None:
    config = config_from(
        "csem", {"backbone": "tinycnn", "w_event": "0.25", "shared_layers": "1", "detach": "true"}
    )
    assert (config.backbone, config.w_event, config.shared_layers, config.detach) == (
        "tinycnn",
        0.25,
        1,
        True,
    )
    assert config_from("csem", {"f_max": "none"}).f_max is None
    with pytest.raises(ValueError, match="unknown knob 'w_evnt' for family csem; did you mean 'w_event'"):
        config_from("csem", {"w_evnt": 1})


def test_pins_are_judged_together() -> None:
    """Ten shared layers are possible with ast only, and whichever pin comes first."""
    expected = {"shared_layers": 10, "backbone": "ast"}
    assert parse_pins("csem", {"shared_layers": "10", "backbone": "ast"}) == expected
    both = parse_pins("csem", {"backbone": "pann,ast", "shared_layers": "2,10", "depth": "none,12"})
    assert both == {"backbone": ("pann", "ast"), "shared_layers": (2, 10), "depth": (None, 12)}
    for settings, said in (
        ({"shared_layers": "7"}, "shared_layers=7: expected a number >= 1 and <= 6"),
        ({"backbone": "pann,ast", "shared_layers": "11"}, "shared_layers=11"),
        ({"backbone": "tinycnn,ast", "lr": "0.1,-1"}, "lr=-1.0"),
        ({"backbone": "pann,tinycnn", "depth": "12"}, "only backbone ast has it"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_pins("csem", settings)
