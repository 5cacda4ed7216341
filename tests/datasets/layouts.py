"""Folders in the true layout of published corpora, with generated audio."""

from pathlib import Path

import soundfile
from sounds import tone

PLACES = ("barcelona-0", "helsinki-1", "lyon-1001", "milan-1003")
META = "filename\tscene_label\tidentifier\tsource_label"


def urban(root: Path, year: int, scenes: tuple[str, ...] = ("metro_station", "park")) -> Path:
    """Per scene 4 places x 2 segments: two places for training, one for test, half of Milan in no list."""
    (root / "audio").mkdir(parents=True)
    (root / "evaluation_setup").mkdir()
    meta, train, test = [], [], []
    for s, scene in enumerate(scenes):
        for p, place in enumerate(PLACES):
            city, number = place.split("-")
            for segment in range(2):
                location = f"{city}-{int(number) + 10 * s}"
                file = f"audio/{scene}-{location}-{40000 + 100 * s + 10 * p + segment}-a.wav"
                soundfile.write(root / file, tone(0.05, channels=2), 8000, subtype="PCM_24")
                meta.append(f"{file}\t{scene}\t{location}\ta")
                if p < 3:
                    (train if p < 2 else test).append((file, scene))
    lines = {
        "train": [f"{file}\t{scene}" for file, scene in train],
        "evaluate": [f"{file}\t{scene}" for file, scene in test],
        "test": [file for file, _ in test],
    }
    (root / "meta.csv").write_text("\n".join([META, *meta]) + "\n")
    for kind, rows in lines.items():
        header = [] if year == 2018 else ["filename" if kind == "test" else "filename\tscene_label"]
        suffix = "txt" if year == 2018 else "csv"
        end = "\r\n" if kind == "test" else "\n"
        (root / f"evaluation_setup/fold1_{kind}.{suffix}").write_bytes(
            (end.join([*header, *rows]) + end).encode()
        )
    return root
