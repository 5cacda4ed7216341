"""TAU Urban Acoustic Scenes 2019, development set: 14400 clips of 10 s, 48 kHz, 24-bit, binaural.

Fold 1 has 9185 training and 4185 test files; the other 1030, all from Milan, are in neither list.
"""

from __future__ import annotations

from pathlib import Path

from datasets.corpora.corpus import About, Corpus, Validation
from datasets.corpora.tau_like import NamedScenes, read_tau_like

TAMPERE = "Tampere University, non-commercial experimental use; the notice must travel with every copy"
ABOUT = About(
    TAMPERE,
    "Heittola, Mesaros, Virtanen, TAU Urban Acoustic Scenes 2019, Development dataset; "
    "Mesaros, Heittola, Virtanen, A multi-device dataset for urban acoustic scene classification, "
    "DCASE 2018",
)
SCENES = (
    "airport", "bus", "metro", "metro_station", "park", "public_square", "shopping_mall",
    "street_pedestrian", "street_traffic", "tram",
)  # fmt: skip


def read_tau2019(
    folder: Path, *, validation: Validation = "auto", validation_fraction: float = 0.2, seed: int = 0
) -> Corpus:
    """The development set as it is unpacked; see `read_tau_like` for the layout, the options and the errors.

    The labels of meta.csv must be those that the file names tell.
    """
    return read_tau_like(
        folder,
        validation=validation,
        validation_fraction=validation_fraction,
        seed=seed,
        named=NamedScenes("TAU2019", SCENES),
        about=ABOUT,
    )
