"""What a search is for and what it may cost, in the user's words: objectives, limits, budgets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from searchspace.pins import parse_settings
from searchspace.study import Second
from trainables import names

PREDICTED = {  # known of a configuration before it runs (trainables.describe)
    "macs": "multiply-accumulates of one clip",
    "parameters": "numbers the model has",
    "memory": "bytes of a training step",
}
MEASURED = {"latency": "ms from one clip's features to its scores, on the trial's device"}
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def objectives(columns: Sequence[str], *, frames: bool) -> tuple[str, Second | None]:
    """The objective and the second one of --objective, given once or twice.

    The first is of the validation split and better when higher; the second any other of the validation split,
    or macs, parameters, memory, latency, with the direction that its name has. Raises ValueError naming what
    is accepted.
    """
    columns = list(columns) or [names.OBJECTIVE]
    if len(columns) > 2 or len(set(columns)) < len(columns):
        raise ValueError(f"--objective {' --objective '.join(columns)}: expected one, or two different ones")
    names.check_objective(columns[0], frames=frames)
    if len(columns) == 1:
        return columns[0], None
    second = columns[1]
    if second in PREDICTED or second in MEASURED:
        return columns[0], Second(second, maximize=False)
    fit = [f"val/{name}" for name in names.METRICS if frames or name not in names.WITH_FRAMES]
    if second not in fit:
        raise ValueError(
            f"--objective {second}: expected {', '.join((*PREDICTED, *MEASURED))}, or one of {', '.join(fit)}"
        )
    return columns[0], Second(second, maximize=names.direction(second) == "max")


def limits(settings: Sequence[str]) -> dict[str, float]:
    """{"macs": 1e9, …} of --limit. Raises ValueError for another name or no positive number."""
    found = {}
    for name, text in parse_settings(settings, option="--limit").items():
        if name not in PREDICTED:
            raise ValueError(f"--limit {name}={text}: expected one of {', '.join(PREDICTED)}")
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = math.nan
        if not 0 < found[name] < math.inf:
            raise ValueError(f"--limit {name}={text}: expected a number above 0, e.g. {name}=1e9")
    return found


def seconds(text: str) -> float:
    """A length of time such as 8h, 30m, 1h30m. Raises ValueError for another form."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(n + unit for n, unit in parts) != text or not any(float(n) for n, _ in parts):
        raise ValueError(f"--budget {text}: expected a time such as 8h, 30m or 1h30m")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def priced(described: Mapping[str, object]) -> dict[str, float]:
    """The predictions among what `describe` says of a configuration."""
    memory = described["memory"]
    assert isinstance(memory, Mapping)
    return {"macs": described["macs"], "parameters": described["parameters"], "memory": memory["total"]}
