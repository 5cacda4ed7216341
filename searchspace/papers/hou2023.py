"""The tables of Hou et al., IEEE/ACM TASLP 2023, in the knobs of family csem.

± is the largest deviation in 10 runs, not a standard deviation; Tables XI to XIII print none. Accuracy is, by
the released code, the mean of the classes' recalls; AUC is the mean over clips. Trainings are of at most 100
epochs (§IV). TUT2018 and TAU2019 have no event labels: theirs are a tagger's, in the released code of AST
where its probability is above 0.1; JSSED has labels of its own. Tables I to VI are with all four loss weights
1 (§V-C), IX to XIII with the best of VII and VIII.

A row that can't be trained from the knobs says under `needs` what it would take. A row is a warm start if it
lies inside the space and no row above has the same configuration; AST, the costliest, comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from searchspace.published import Published

PAPER = "Hou et al. 2023"
MAX_DEVIATION = "max deviation of 10 runs"
EPOCHS = 100
CNN_RECIPE = {"optimiser": "adam", "lr": 1e-3, "schedule": "none", "mixup": 0.0, "spec_augment": False}
DROPOUT = {"pann": 0.2, "cnnt": 0.0, "tinycnn": 0.3, "ast": 0.0}  # of the released code; the paper has none
TWO_BRANCHES = ("mlhe", "mlhe_plus", "csem")
FRAMEWORKS = ("scene_only", "moe", *TWO_BRANCHES)
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
# The systems of other papers that are one model, as family csem builds them (Tables XI to XIII).
COMPARED: Mapping[str, Mapping[str, Any]] = {
    "baseline": {"backbone": "dcase2018", "framework": "scene_only"},
    "hierarchical": {"backbone": "pann", "framework": "hierarchical"},
    "cross_stitch": {
        "backbone": "pann",
        "framework": "cross_stitch",
        "stitch_same": 0.9,
        "stitch_different": 0.1,
    },
    "rgasc": {"backbone": "pann", "framework": "rgasc"},
    "conditional": {"framework": "conditional"},
    "joint": {"framework": "joint"},
    "mtl": {"framework": "mtl"},
}
SOMEONE_ELSES = "another paper's system: its figure is only quoted"
COUNTED = "nothing is trained for it: python -m trainables.describe csem counts it"


def _configuration(
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


def _row(
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
    needs: str = "",
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
        epochs=EPOCHS if values else 0,
        needs=needs,
    )


def _loss_weights(table: str, backbone: str, rows: Mapping[int, tuple[float, ...]]) -> list[Published]:
    """Tables VII and VIII, last row first: λ1 … λ4, accuracy, ±."""
    return [
        _row(
            table,
            number,
            f"#{number} {backbone}, pretrained",
            acc,
            spread,
            _configuration(backbone, "csem", tuple(lambdas)),
        )
        for number, (*lambdas, acc, spread) in reversed(list(rows.items()))
    ]


def _table_1() -> list[Published]:
    pann = [(78.03, 1.85), (78.67, 1.31), (78.13, 1.78), (77.64, 1.95), (76.35, 0.93), (75.64, 1.89)]
    ast = [(81.46, 0.92), (81.91, 1.44), (82.33, 1.39), (82.49, 1.52), (82.30, 1.45)]
    ast += [(82.12, 1.77), (81.86, 1.18), (81.59, 1.93), (81.43, 1.48), (81.03, 1.28)]
    return [
        _row(
            "I",
            n,
            f"n={n} cSEM-{name.upper()}, pretrained",
            *cell,
            _configuration(name, "csem", shared_layers=n),
        )
        for name, cells in (("pann", pann), ("ast", ast))
        for n, cell in enumerate(cells, start=1)
    ]


def _table_2() -> list[Published]:
    names = ("ast", "pann", "cnnt", "tinycnn")
    rows = {
        "#1 without pretraining": ("scene_only", (60.29, 0.55), (69.85, 0.71), (70.88, 0.92), (67.20, 0.43)),
        "#2 without pretraining": ("csem", (61.72, 0.82), (72.21, 0.60), (73.34, 0.79), (68.92, 0.67)),
        "#3 pretrained": ("scene_only", (76.98, 0.95), (74.35, 0.74), (75.74, 1.09), (71.32, 1.43)),
        "#4 pretrained": ("csem", (79.12, 0.89), (76.41, 0.83), (76.76, 0.94), (73.41, 1.17)),
    }
    return [
        _row(
            "II",
            line,
            f"{row}, {name}",
            *cell,
            _configuration(name, framework),
            split="test",
            pretrained=None if line > 2 else "",
        )
        for line, (row, (framework, *cells)) in enumerate(rows.items(), start=1)
        for name, cell in zip(names, cells)
    ]


def _table_3() -> list[Published]:
    rows = [
        ("tut2018", ACCURACY, (71.43, 1.44), (77.57, 0.91), (79.12, 0.89)),
        ("tut2018", AUC, (97.7, 1.2), (98.5, 0.7), (98.6, 0.5)),
        ("jssed", ACCURACY, (93.11, 0.87), (94.14, 0.93), (94.97, 0.96)),
        ("jssed", AUC, (98.9, 0.8), (99.1, 0.8), (99.0, 0.7)),
    ]
    return [
        _row(
            "III",
            line,
            f"{framework} AST",
            *cell,
            _configuration("ast", framework),
            split="test",
            corpus=corpus,
            metric=metric,
        )
        for line, (corpus, metric, *cells) in enumerate(rows, start=1)
        for framework, cell in zip(("moe", "mlhe", "csem"), cells)
    ]


def _table_4() -> list[Published]:
    """Event labels that are right for 80 % of the training clips' entries: JSSED's own, made worse, and a
    tagger's of that accuracy, here the `tags` of the shards."""
    rows = {
        "#1 true labels, 80 % right": ("labels@0.8", (90.83, 1.71), (91.17, 1.55), (92.47, 1.46)),
        "#2 pseudo labels, 80 % right": ("tags>0.5", (88.47, 1.58), (90.62, 1.44), (91.35, 1.84)),
    }
    return [
        _row(
            "IV",
            line,
            f"{row}, {framework} AST",
            *cell,
            _configuration("ast", framework),
            split="test",
            corpus="jssed",
            events=events,
        )
        for line, (row, (events, *cells)) in enumerate(rows.items(), start=1)
        for framework, cell in zip(("moe", "mlhe", "csem"), cells)
    ]


def _counted(table: str, line: int, model: str, metric: str, value: float) -> Published:
    backbone, framework = model.split(" ")
    return Published(
        paper=PAPER,
        table=table,
        row=model,
        line=line,
        corpus="none",
        split="none",
        metric=metric,
        value=value,
        spread=None,
        spread_kind="unknown",
        values=_configuration(backbone, framework),
        needs=COUNTED,
    )


def _sizes() -> list[Published]:
    """Table V and the upper lines of Table VI: parameters and multiply-accumulates, as counts."""
    table_5 = {  # millions, thousands of millions
        "ast scene_only": (73.61, 108.999),
        "pann scene_only": (79.69, 6.439),
        "ast moe": (74.69, 109.001),
        "ast mlhe": (118.79, 174.258),
        "ast csem": (118.79, 174.292),
        "pann csem": (160.19, 11.009),
    }
    table_6 = {
        "pann mlhe": (160.19, 10.976),
        "pann mlhe_plus": (168.58, 10.984),
        "pann csem": (160.19, 11.009),
    }
    return [
        _counted(table, line, model, metric, round(count * unit))
        for table, sizes in (("V", table_5), ("VI", table_6))
        for line, (model, counts) in enumerate(sizes.items(), start=1)
        for metric, count, unit in zip(("parameters", "macs"), counts, (1e6, 1e9))
    ]


def _table_6() -> list[Published]:
    rows = {"mlhe": (75.00, 1.35), "mlhe_plus": (74.68, 1.42), "csem": (76.41, 0.83)}
    return [
        _row(
            "VI",
            line,
            f"{framework} PANN, pretrained",
            *cell,
            _configuration("pann", framework),
            split="test",
        )
        for line, (framework, cell) in enumerate(rows.items(), start=1)
    ]


def _table_9() -> list[Published]:
    rows = {
        "ce_hard": ((76.35, 1.95), (72.33, 1.83)),
        "ce_soft": ((77.34, 2.09), (73.38, 1.39)),
        "mse_logits": ((82.06, 2.32), (76.97, 1.41)),
        "mse_probabilities": ((82.15, 2.48), (77.48, 1.72)),
        "mse_log_softmax": ((83.81, 1.89), (79.80, 1.64)),
    }
    return [
        _row(
            "IX", number, f"#{number} {name}, pretrained", *cell, _configuration(name, "csem", BEST, relation)
        )
        for number, (relation, cells) in enumerate(rows.items(), start=1)
        for name, cell in zip(("ast", "pann"), cells)
    ]


def _table_10() -> list[Published]:
    """Correlation and mutual information (nat) of the embeddings of scene and event, means over the clips."""
    rows = [
        ("train", "embedding_pcc", (1.000, 0.006, 0.001)),
        ("train", "embedding_mi", (4.784, 3.290, 2.958)),
        ("test", "embedding_pcc", (1.000, 0.002, 0.001)),
        ("test", "embedding_mi", (4.827, 3.423, 2.983)),
    ]
    return [
        replace(
            _row(
                "X",
                line,
                f"{framework} AST",
                0.0,
                None,
                _configuration("ast", framework),
                split=split,
                metric=metric,
            ),
            value=value,
        )
        for line, (split, metric, values) in enumerate(rows, start=1)
        for framework, value in zip(("moe", "mlhe", "csem"), values)
    ]


TABLE_7 = {
    1: (1, 0, 0, 0, 78.83, 1.33),
    2: (0, 1, 0, 0, 15.97, 1.70),
    3: (0, 0, 1, 0, 11.77, 1.84),
    4: (0, 0, 0, 1, 11.82, 2.03),
    5: (0, 0, 1, 1, 13.01, 2.69),
    6: (1, 1, 0, 0, 80.06, 1.89),
    7: (1, 1, 0, 1, 80.73, 1.47),
    8: (1, 1, 1, 0, 80.41, 1.64),
    9: (1, 1, 1, 1, 82.49, 1.52),
    10: (1, 1, 0.5, 1, 81.95, 1.74),
    11: (1, 1, 1, 0.5, 81.57, 1.58),
    12: (1, 1, 0.01, 0.01, 83.62, 2.05),
    13: (1, 0.5, 0.01, 0.01, 83.81, 1.89),
    14: (1, 0.1, 0.1, 0.1, 83.11, 1.82),
}
TABLE_8 = {
    1: (1, 0, 0, 0, 76.81, 1.09),
    2: (0, 1, 0, 0, 18.19, 1.42),
    3: (0, 0, 1, 0, 11.68, 2.19),
    4: (0, 0, 0, 1, 12.05, 3.25),
    5: (0, 0, 1, 1, 13.46, 3.17),
    6: (1, 1, 0, 0, 77.12, 1.36),
    7: (1, 1, 0, 1, 77.90, 0.92),
    8: (1, 1, 1, 0, 77.71, 1.14),
    9: (1, 1, 1, 1, 78.67, 1.31),
    10: (1, 1, 0.5, 1, 78.23, 1.34),
    11: (1, 1, 1, 0.5, 77.46, 1.61),
    12: (1, 1, 0.1, 0.1, 79.23, 1.95),
    13: (1, 1, 0.01, 0.01, 79.36, 1.78),
    14: (1, 0.5, 0.01, 0.01, 79.80, 1.64),
}


def _best_on_test() -> list[Published]:
    """§V-C: the best weights of Tables VII and VIII on the test split."""
    return [
        _row(
            f"{table}, text",
            number,
            f"#{number} {backbone}, pretrained",
            acc,
            spread,
            _configuration(backbone, "csem", BEST),
            split="test",
        )
        for table, number, backbone, acc, spread in (
            ("VIII", 14, "pann", 78.50, 0.76),
            ("VII", 13, "ast", 80.95, 0.97),
        )
    ]


def _quoted(
    table: str,
    corpus: str,
    rows: list[tuple[str, float, Mapping[str, Any], str]],
    first_line: int = 1,
) -> list[Published]:
    """Tables XI to XIII: system, accuracy, configuration, what it needs."""
    return [
        _row(
            table,
            line,
            system,
            acc,
            None,
            values,
            split="test",
            corpus=corpus,
            needs=needs,
        )
        for line, (system, acc, values, needs) in enumerate(rows, start=first_line)
    ]


def _table_11() -> list[Published]:
    def ensemble(of: str) -> str:
        return f"another paper's ensemble of {of}: its figure is only quoted"

    return _quoted(
        "XI",
        "tut2018",
        [
            ("Baseline [15]", 59.7, COMPARED["baseline"], ""),
            ("Simple hierarchical baseline", 72.9, COMPARED["hierarchical"], ""),
            ("Cross-stitch-PANN [9]", 74.5, COMPARED["cross_stitch"], ""),
            ("Dataset-specific relation RGASC [8]", 77.4, COMPARED["rgasc"], ""),
            ("Event relational graph [49]", 78.1, {}, "a model of another family (paper 004, ERGL)"),
            ("Wavelet-based DSS [20]", 78.3, {}, SOMEONE_ELSES),
            ("T1A-3rd [48]", 78.4, {}, ensemble("6 models on 4 features")),
            ("Proposed cSEM-PANN", 78.5, _configuration("pann", "csem", BEST), ""),
            ("T1A-2nd [47]", 79.8, {}, ensemble("3 multiscale features")),
            ("T1A-1st [46]", 80.1, {}, ensemble("2 models on 11 features")),
            ("Proposed cSEM-AST", 81.0, _configuration("ast", "csem", BEST), ""),
        ],
    )


def _table_12() -> list[Published]:
    """The paper gives no α of mixup; 0.5 is the AudioSet recipe's of AST."""
    proposed = _configuration("ast", "csem", BEST) | {
        "input_channels": "left_right_difference",
        "spec_augment": True,
        "mixup": 0.5,
    }

    def others(of: str) -> str:
        return f"another paper's {of}: its figure is only quoted"

    *quoted, own = _quoted(
        "XII",
        "tau2019",
        [
            ("Baseline [15]", 62.5, COMPARED["baseline"], ""),
            ("Attentive fusion CNN [56]", 77.0, {}, others("ensemble of 3 models")),
            ("Clustered DNN [57]", 81.6, {}, others("ensemble of 9 models on 3 features")),
            ("DCGAN [58]", 88.0, {}, others("ensemble of 3 models on 3 features")),
            ("Multi-resolution DSS [55]", 88.1, {}, others("system on 2 channels")),
            ("CNN vote [54]", 88.4, {}, others("ensemble of 4 models on 3 channels")),
            ("Proposed cSEM-AST", 88.9, proposed, ""),
        ],
    )
    return [*quoted, replace(own, pretrained="AudioSet, then the scenes of DCASE2013")]


def _table_13() -> list[Published]:
    figures = {"tut2018": (52.4, 61.7, 66.4, 81.0), "jssed": (92.0, 93.7, 93.9, 97.2)}
    systems: list[tuple[str, Mapping[str, Any]]] = [
        ("Joint scene and event recognition [5]", COMPARED["joint"]),
        ("Event and scene joint analysis using MTL [6]", COMPARED["mtl"]),
        ("Conditional scene and event recognition [7]", COMPARED["conditional"]),
        ("Proposed cSEM-AST", _configuration("ast", "csem", BEST)),
    ]
    return [
        row
        for place, (corpus, cells) in enumerate(figures.items())
        for row in _quoted(
            "XIII",
            corpus,
            [(name, acc, values, "") for (name, values), acc in zip(systems, cells)],
            first_line=4 * place + 1,
        )
    ]


def _rows() -> tuple[Published, ...]:
    rows = [
        *_loss_weights("VIII", "pann", TABLE_8),
        *_loss_weights("VII", "ast", TABLE_7),
        *_table_9(),
        *_table_1(),
        *_table_2(),
        *_table_6(),
        *_table_3(),
        *_best_on_test(),
        *_table_4(),
        *_table_10(),
        *_table_11(),
        *_table_12(),
        *_table_13(),
        *_sizes(),
    ]
    rows.sort(key=lambda row: row.values.get("backbone") == "ast")
    starts = [row for row in rows if _starts(row)]
    return tuple(replace(row, warm_start=row in starts and _first(row, starts)) for row in rows)


def _starts(row: Published) -> bool:
    """Whether a search may begin with the row: one of the paper's own frameworks, with a loss on the scene,
    every knob of it inside the space."""
    own = row.values.get("framework") in FRAMEWORKS and "input_channels" not in row.values
    return own and row.trainable and row.metric in (ACCURACY, AUC) and row.values.get("w_scene", 0) > 0


def _first(row: Published, rows: list[Published]) -> bool:
    return next(r for r in rows if r.values == row.values) is row


ROWS = _rows()
