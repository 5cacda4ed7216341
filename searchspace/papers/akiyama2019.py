"""Akiyama & Sato, "DCASE 2019 Task 2: Multitask learning, semi-supervised learning and model ensemble with
noisy data for audio tagging", in the knobs of family tagger: the three ResNets of their released code.

FSDKaggle2019. The score quoted is the whole ensemble's, on the private part of the test clips; what each
model reaches is not known here. `epochs` is the code's, eight cosine cycles of 64 (seven for model 2), of
which one cycle is what a run here has; their five folds are one validation split here.
"""

from __future__ import annotations

from typing import Any

from searchspace.published import Published

PAPER = "Akiyama & Sato 2019"
RECIPE: dict[str, Any] = {
    "optimiser": "adam",
    "lr": 1e-3,
    "schedule": "cosine",
    "batch_size": 64,
    "mixup": 1.0,
    "w_noisy": 1.0,
    "noisy_loss": "bce_of_sigmoid",
    "freq_mask": 32,
}
UNLIKE = "one cosine cycle; features and augmentation as said in families/tagger.py"
MODELS = (
    ("ResNet 1: multitask learning", {"crop_frames": 512, "w_pseudo": 0.0}, 512),
    ("ResNet 2: with soft pseudo labels", {"crop_frames": 512, "w_pseudo": 20.0}, 448),
    ("ResNet 3: longer crops", {"crop_frames": 1024, "w_pseudo": 0.0}, 512),
)


def _rows() -> tuple[Published, ...]:
    common: dict[str, Any] = {
        "paper": PAPER,
        "corpus": "fsdkaggle2019",
        "metric": "event_lwlrap",
        "split": "test",
    }
    models = [
        Published(
            **common,
            table="models",
            row=row,
            line=line,
            value=None,
            spread=None,
            spread_kind="unknown",
            values=RECIPE | knobs,
            pretrained="ResNet 1" if knobs["w_pseudo"] else "",
            epochs=epochs,
            unlike=UNLIKE,
            warm_start=not knobs["w_pseudo"],
        )
        for line, (row, knobs, epochs) in enumerate(MODELS, start=1)
    ]
    ensemble = Published(
        **common,
        table="models",
        row="Ensemble of all models",
        line=4,
        value=0.75787,
        spread=None,
        spread_kind="unknown",
        needs="an ensemble of folds, cycles and six models; here one model is trained at a time",
    )
    return (*models, ensemble)


ROWS = _rows()
