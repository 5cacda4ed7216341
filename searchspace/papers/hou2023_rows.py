"""How a row of Hou et al. 2023 becomes data: what all its tables have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from searchspace.published import Published

PAPER = "Hou et al. 2023"
MAX_DEVIATION = "max deviation of 10 runs"
EPOCHS = 100
CNN_RECIPE = {"optimiser": "adam", "lr": 1e-3, "schedule": "none", "mixup": 0.0, "spec_augment": False}
DROPOUT = {"pann": 0.2, "cnnt": 0.0, "tinycnn": 0.3, "ast": 0.0}  # of the released code; the paper has none
TWO_BRANCHES = ("mlhe", "mlhe_plus", "csem")
PRINTED_SHARED_LAYERS = {"pann": 2, "cnnt": 2, "tinycnn": 1, "ast": 4}  # §V-A
EMBEDDING = {"pann": 2048, "cnnt": 512, "tinycnn": 100, "ast": 2048}  # §III-C and D, the released code
PRETRAINED = {
    "ast": "AudioSet (the first 10 blocks of AST)",
    "pann": "AudioSet (PANN)",
    "cnnt": "AudioSet (the first 3 blocks of PANN)",
    "tinycnn": "AudioSet, 22 k clips, 10 epochs",
}
ACCURACY, AUC = "scene_accuracy_macro", "event_auc_per_clip"
BEST = (1.0, 0.5, 0.01, 0.01)  # Table VII #13 and Table VIII #14


def configuration(
    backbone: str,
    framework: str,
    lambdas: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
    relation_loss: str = "mse_log_softmax",
    shared_layers: int | None = None,
) -> dict[str, Any]:
    """One row's configuration in the knobs' names, with every knob that `suggest` would ask for."""
    values: dict[str, Any] = {
        "backbone": backbone,
        "framework": framework,
        "embedding": EMBEDDING[backbone],
        "w_scene": float(lambdas[0]),
        **CNN_RECIPE,
    }
    values["dropout"] = DROPOUT[backbone]
    if backbone == "ast":
        values["lr"] = 1e-6
    if framework in TWO_BRANCHES:
        values["shared_layers"] = shared_layers or PRINTED_SHARED_LAYERS[backbone]
    if framework != "scene_only":
        values["w_event"] = float(lambdas[1])
    if framework == "csem":
        values |= {
            "w_scene_from_event": float(lambdas[2]),
            "w_event_from_scene": float(lambdas[3]),
            "relation_loss": relation_loss,
            "detach": False,
        }
    return values


def row_of(
    table: str,
    line: int,
    row: str,
    percent: float,
    spread: float | None,
    values: Mapping[str, Any],
    *,
    split: str = "validation",
    corpus: str = "tut2018",
    metric: str = ACCURACY,
    events: str | None = None,
    pretrained: str | None = None,
    unlike: str = "",
    needs: str = "",
    epochs: int | None = None,
) -> Published:
    """A row of per cent; `events` and `pretrained` None are those of the corpus and of the backbone."""
    with_events = values.get("framework", "scene_only") != "scene_only"
    backbone = values.get("backbone", "")
    if events is None:
        events = ("labels" if corpus == "jssed" else "tags>0.1") if with_events else ""
    return Published(
        paper=PAPER,
        table=table,
        row=row,
        line=line,
        corpus=corpus,
        split=split,
        metric=metric,
        value=round(percent / 100, 6),
        spread=None if spread is None else round(spread / 100, 6),
        spread_kind="unknown" if spread is None else MAX_DEVIATION,
        values=values,
        events=events,
        pretrained=PRETRAINED.get(backbone, "") if pretrained is None else pretrained,
        epochs=epochs or (EPOCHS if values else 0),
        unlike=unlike,
        needs=needs,
    )
