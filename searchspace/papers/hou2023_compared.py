"""Tables XI to XIII of Hou et al. 2023: the paper's models among other people's. No ± is printed.

A system that is one model of family csem can be trained; where its configuration is only the nearest there
is, `unlike` says so. Ensembles and figures quoted from other papers are references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from searchspace.papers.hou2023_rows import BEST, CNN_RECIPE, PRETRAINED, configuration, row_of
from searchspace.published import Published


class System(NamedTuple):
    """`values` {} for what can't be trained, with what it `needs`; the rest as in Published."""

    values: Mapping[str, Any] = {}
    pretrained: str = ""
    unlike: str = ""
    needs: str = ""
    epochs: int | None = None


def _compared(backbone: str, framework: str, **knobs: Any) -> dict[str, Any]:
    return {**CNN_RECIPE, "backbone": backbone, "framework": framework, "w_scene": 1.0, **knobs}


def _quoted(of: str) -> System:
    return System(needs=f"another paper's {of}: its figure is only quoted")


# [5], [6] and [7] are small CRNNs, of which CNNT is the nearest backbone here.
CRNN = "other network (CNNT, theirs a CRNN)"
SYSTEMS = {
    "baseline": System(_compared("dcase2018", "scene_only", dropout=0.3, batch_size=16), epochs=200),
    "hierarchical": System(_compared("pann", "hierarchical", w_event=1.0), PRETRAINED["pann"]),
    "cross_stitch": System(
        _compared("pann", "cross_stitch", stitch_same=0.9, stitch_different=0.1, w_event=1.0),
        PRETRAINED["pann"],
    ),
    "rgasc": System(
        _compared(
            "pann",
            "rgasc",
            shared_layers=2,
            w_event=1.0,
            w_scene_from_event=1.0,
            w_event_from_scene=1.0,
            relation_loss="mse_log_softmax",
            detach=False,
        ),
        "a scene and an event model of its own",
        "other prior (of the training labels; theirs saw the test clips)",
    ),
    "wavelets": System(
        _compared("scattering", "scene_only"),
        unlike="a reading of [20], whose features' sizes and network are not known to us",
    ),
    "joint": System(_compared("cnnt", "joint"), unlike=CRNN),
    "mtl": System(_compared("cnnt", "mlhe", shared_layers=3, w_event=1.0), unlike=CRNN),
    "conditional": System(
        _compared("cnnt", "conditional", shared_layers=3, w_event=1.0, w_fake_scene=1.0), unlike=CRNN
    ),
    "csem_pann": System(configuration("pann", "csem", BEST), PRETRAINED["pann"]),
    "csem_ast": System(configuration("ast", "csem", BEST), PRETRAINED["ast"]),
    "csem_ast_3_channels": System(
        configuration("ast", "csem", BEST)
        | {"input_channels": "left_right_difference", "spec_augment": True, "mixup": 0.2},
        "AudioSet, then the scenes of DCASE2013",
        "mixup's α is not printed (here 0.2)",
    ),
    "ergl": System(needs="a model of another family (paper 004, ERGL)"),
}


def _rows(
    table: str, corpus: str, systems: Sequence[tuple[str, float, System]], first: int = 1
) -> list[Published]:
    """(name, accuracy in per cent, system) from line `first` on."""
    return [
        row_of(
            table,
            line,
            name,
            accuracy,
            None,
            system.values,
            split="test",
            corpus=corpus,
            pretrained=system.pretrained,
            unlike=system.unlike,
            needs=system.needs,
            epochs=system.epochs,
        )
        for line, (name, accuracy, system) in enumerate(systems, start=first)
    ]


def _table_11() -> list[Published]:
    return _rows(
        "XI",
        "tut2018",
        [
            ("Baseline [15]", 59.7, SYSTEMS["baseline"]),
            ("Simple hierarchical baseline", 72.9, SYSTEMS["hierarchical"]),
            ("Cross-stitch-PANN [9]", 74.5, SYSTEMS["cross_stitch"]),
            ("Dataset-specific relation RGASC [8]", 77.4, SYSTEMS["rgasc"]),
            ("Event relational graph [49]", 78.1, SYSTEMS["ergl"]),
            ("Wavelet-based DSS [20]", 78.3, SYSTEMS["wavelets"]),
            ("T1A-3rd [48]", 78.4, _quoted("ensemble of 6 models on 4 features")),
            ("Proposed cSEM-PANN", 78.5, SYSTEMS["csem_pann"]),
            ("T1A-2nd [47]", 79.8, _quoted("system on 3 multiscale features")),
            ("T1A-1st [46]", 80.1, _quoted("ensemble of 2 models on 11 features")),
            ("Proposed cSEM-AST", 81.0, SYSTEMS["csem_ast"]),
        ],
    )


def _table_12() -> list[Published]:
    return _rows(
        "XII",
        "tau2019",
        [
            ("Baseline [15]", 62.5, SYSTEMS["baseline"]),
            ("Attentive fusion CNN [56]", 77.0, _quoted("ensemble of 3 models")),
            ("Clustered DNN [57]", 81.6, _quoted("ensemble of 9 models on 3 features")),
            ("DCGAN [58]", 88.0, _quoted("ensemble of 3 models on 3 features")),
            ("Multi-resolution DSS [55]", 88.1, _quoted("system on 2 channels")),
            ("CNN vote [54]", 88.4, _quoted("ensemble of 4 models on 3 channels")),
            ("Proposed cSEM-AST", 88.9, SYSTEMS["csem_ast_3_channels"]),
        ],
    )


def _table_13() -> list[Published]:
    names = {
        "Joint scene and event recognition [5]": "joint",
        "Event and scene joint analysis using MTL [6]": "mtl",
        "Conditional scene and event recognition [7]": "conditional",
        "Proposed cSEM-AST": "csem_ast",
    }
    figures = {"tut2018": (52.4, 61.7, 66.4, 81.0), "jssed": (92.0, 93.7, 93.9, 97.2)}
    found: list[Published] = []
    for corpus, accuracies in figures.items():
        systems = [(name, value, SYSTEMS[key]) for (name, key), value in zip(names.items(), accuracies)]
        found += _rows("XIII", corpus, systems, first=len(found) + 1)
    return found


ROWS = (*_table_11(), *_table_12(), *_table_13())
