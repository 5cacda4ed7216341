import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import tone

from datasets import encode, prepare
from datasets.shards import Index, read_labels, read_members
from datasets.source import open_source

Make = Callable[..., Path]


def run(root: Path, out: Path, *more: str) -> int:
    return prepare.main(["tau-like", "--source", str(root), "--out", str(out), "--jobs", "2", *more])


def failing(capsys: pytest.CaptureFixture[str], root: Path, out: Path, *more: str) -> str:
    """The one line that a failing preparation prints; nothing may be left behind."""
    assert run(root, out, *more) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if " clips, " not in line]
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert not out.exists() and not list(out.parent.glob("*.unfinished"))
    return lines[0]


def audio_of(index: Index, split: str) -> dict[str, np.ndarray]:
    """{key: (n, C) int32}"""
    found = {}
    for number, (_, clip) in enumerate(index.splits[split].entries()):
        members = read_members(index, split, number)
        data = next(data for suffix, data in members.items() if suffix != "json")
        found[clip.key] = soundfile.read(io.BytesIO(data), dtype="int32", always_2d=True)[0]
    return found


@pytest.mark.parametrize(
    ("subtype", "kept", "sample_type"),
    [
        ("PCM_16", "PCM_16", "int16"),
        ("PCM_U8", "PCM_16", "int16"),
        ("PCM_24", "PCM_24", "float32"),
        ("FLOAT", "FLOAT", "float32"),
    ],
)
def test_samples_are_kept_bit_for_bit(
    tau_folder: Make, tmp_path: Path, subtype: str, kept: str, sample_type: str
) -> None:
    root, out = tau_folder(subtype=subtype), tmp_path / "out"
    assert run(root, out) == 0
    index = Index.load(out)
    assert index.sample_type == sample_type and (index.sample_rate, index.channels) == (8000, 1)
    for split in index.splits:
        for key, samples in audio_of(index, split).items():
            source = soundfile.read(root / f"audio/{key}.wav", dtype="int32", always_2d=True)[0]
            assert np.array_equal(samples, source)
    members = read_members(index, "train", 0)
    data = members.get("flac") or members["wav"]
    assert soundfile.info(io.BytesIO(data)).subtype == kept
    (batch,) = open_source(out, cache=None).eval_batches("test", 8)
    assert batch.waveform.shape == (4, 1, 800)


def test_summary_and_labels(tau_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tau_folder(), tmp_path / "out"
    (root / "LICENSE").write_text("Ask us.")
    assert run(root, out, "--corpus", "tau2019") == 0
    printed = capsys.readouterr()
    index = Index.load(out)
    assert "24/24" not in printed.err and "22/22 clips" in printed.err
    for text in ("train     12 clips", "2 scenes, 2 events", "2 of the 24 files of meta.csv", index.checksum):
        assert text in printed.out
    assert "Tampere University" in index.licence and (out / "LICENSE").read_text() == "Ask us."
    keys = [clip.key for _, clip in index.splits["train"].entries()]
    assert keys != sorted(keys)  # shuffled: the stream mixes only within a window
    labels = dict(zip(keys, read_labels(index, "train")))
    assert labels["park-lisbon-0-1-a"].strong == ((0.01, 0.05, "bell"),)


def test_the_same_input_gives_the_same_shards(tau_folder: Make, tmp_path: Path) -> None:
    root = tau_folder()
    for name, jobs in (("a", "1"), ("b", "3")):
        assert (
            prepare.main(["tau-like", "--source", str(root), "--out", str(tmp_path / name), "--jobs", jobs])
            == 0
        )
    a, b = Index.load(tmp_path / "a"), Index.load(tmp_path / "b")
    assert a.checksum == b.checksum and a.splits == b.splits


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "no samples":
        soundfile.write(path, np.zeros((0, 1)), 8000)
    elif how == "cut off":
        path.write_bytes(data[: len(data) * 2 // 3])
    elif how == "not audio":
        path.write_bytes(b"<html>404</html>" * 20)
    elif how == "NaN":
        soundfile.write(path, np.full((800, 1), np.nan, dtype=np.float32), 8000, subtype="FLOAT")
    elif how == "flac":
        sound = io.BytesIO()
        soundfile.write(
            sound, np.random.default_rng(0).normal(0, 0.1, (800, 1)), 8000, format="FLAC", subtype="PCM_16"
        )
        broken = bytearray(sound.getvalue())
        broken[600] ^= 1
        path.write_bytes(broken)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty", "the file is empty"),
        ("no samples", "no samples"),
        ("cut off", "cut off: 526 of 800 samples are there"),
        ("not audio", "Format not recognised"),
        ("NaN", "holds NaN or infinite samples"),
        ("flac", ""),
    ],
)
def test_damaged_clips_are_counted_and_named(
    tau_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, reason: str
) -> None:
    root, out = tau_folder(), tmp_path / "out"
    name = "audio/park-lisbon-1-1-a.wav"
    damage(root / name, how)
    line = failing(capsys, root, out)
    assert "1 of 22 clips are damaged so far, more than --max-damaged 0.01 allows" in line
    assert f"{name}: " in line and reason in line
    assert run(root, out, "--max-damaged", "0.05") == 0
    printed = capsys.readouterr().out
    assert "1 damaged clips dropped" in printed and f"    {name}: " in printed
    index = Index.load(out)
    assert [file for file, _ in index.dropped] == [name] and index.splits["train"].clips == 11


def test_wavs_that_are_not_cut_off(tmp_path: Path) -> None:
    """Odd chunks before the data, and the open-ended header that a piping encoder writes."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), 8000, subtype="PCM_16")
    data = path.read_bytes()
    assert encode.wav_frames(data) == 800
    assert encode.wav_frames(data[:12] + b"junk\x03\0\0\0abc\0" + data[12:]) == 800
    at = data.index(b"data")
    assert encode.wav_frames(data[: at + 4] + b"\xff\xff\xff\xff" + data[at + 8 :]) == 0
    assert encode.wav_frames(b"fLaC" + data) == 0 and encode.wav_frames(data[:30]) == 0


def test_a_wrong_rate_names_both(
    tau_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tau_folder()
    soundfile.write(root / "audio/tram-lisbon-0-0-a.wav", tone(rate=16000), 16000)
    line = failing(capsys, root, tmp_path / "out", "--max-damaged", "0.9")
    assert (
        "audio/tram-lisbon-0-0-a.wav has 16000 Hz and 1 channel(s); expected 8000 Hz and 1 channel(s)" in line
    )
    assert "as 21 of 22 files have (1 differ)" in line


def test_clips_of_different_lengths(tau_folder: Make, tmp_path: Path) -> None:
    root, out = tau_folder(), tmp_path / "out"
    soundfile.write(root / "audio/tram-lisbon-3-0-a.wav", tone(0.05), 8000, subtype="PCM_16")
    assert run(root, out) == 0
    index = Index.load(out)
    assert index.samples == 800
    assert sorted(clip.samples for _, clip in index.splits["test"].entries()) == [400, 800, 800, 800]


def test_out_that_is_in_use(tau_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert run(tau_folder(), out) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]
    (out / "thesis.txt").unlink()
    assert run(tau_folder("again"), out) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-damaged", "1.5"), "--max-damaged 1.5: accepted are fractions"),
        (("--jobs", "0"), "--jobs 0: at least 1"),
        (("--fold", "7"), "fold7_train.csv: no such file"),
        (("--validation", "random", "--validation-fraction", "2"), "--validation-fraction 2.0: accepted are"),
    ],
)
def test_nonsense_options(
    tau_folder: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert message in failing(capsys, tau_folder(), tmp_path / "out", *options)


def test_unknown_options_and_missing_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere: no such folder" in failing(capsys, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        prepare.main(["tau-like", "--sauce", "x"])
    assert stop.value.code == 2


def test_a_split_of_nothing_but_damage(
    tau_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tau_folder()
    for path in root.glob("audio/*-3-?-a.wav"):
        damage(path, "cut off")
    line = failing(capsys, root, tmp_path / "out", "--max-damaged", "0.5")
    assert "split 'test' has no clip left: 4 files, all damaged" in line
