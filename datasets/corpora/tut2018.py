"""TUT Urban Acoustic Scenes 2018, development set: 8640 clips of 10 s, 48 kHz, 24-bit, binaural; 6122 for
training, 2518 for test.

As TAU2019, but the lists are .txt without a header. The mobile variant (devices a, b, c) has the same layout.
"""

from __future__ import annotations

from pathlib import Path

from datasets.corpora.corpus import About, Corpus, Validation
from datasets.corpora.tau2019 import SCENES, TAMPERE
from datasets.corpora.tau_like import ListForm, NamedScenes, read_tau_like

ABOUT = About(
    TAMPERE,
    "Mesaros, Heittola, Virtanen, A multi-device dataset for urban acoustic scene classification, DCASE 2018",
)


def read_tut2018(
    folder: Path, *, validation: Validation = "auto", validation_fraction: float = 0.2, seed: int = 0
) -> Corpus:
    """The development set as it is unpacked; see `read_tau_like` for the options and the errors."""
    return read_tau_like(
        folder,
        validation=validation,
        validation_fraction=validation_fraction,
        seed=seed,
        lists=ListForm(".txt", header=False),
        named=NamedScenes("TUT2018", SCENES),
        about=ABOUT,
    )
