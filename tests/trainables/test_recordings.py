"""Any recording as a model hears it: what shards would have held, in windows, or one line why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets import convert
from datasets.convert import Conversion
from datasets.corpora.corpus import Recording
from datasets.encode import AudioFile, Encoded, encode
from datasets.shards import ClipLabels
from trainables import recordings
from trainables.recordings import Listening, Unreadable, cut, hear, in_blocks, windows

MONO = Listening(8000, 1, 16000)
STEREO = Listening(8000, 2, 16000)


def tone(count: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return 0.2 * draw.standard_normal((count, channels))


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 192000])
@pytest.mark.parametrize("kind", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8", "MPEG_LAYER_III"])
def test_it_hears_what_a_preparation_would_have_put_into_shards(tmp_path: Path, rate: int, kind: str) -> None:
    if kind.startswith("MPEG") and rate not in (8000, 11025):
        pytest.skip("MP3 has no such rate")
    path = tmp_path / ("a.mp3" if kind.startswith("MPEG") else "a.wav")
    soundfile.write(path, tone(rate, 2), rate, subtype=kind, format="MP3" if path.suffix == ".mp3" else "WAV")
    prepared = encode(
        AudioFile("a", path, Recording("a", ClipLabels())), Conversion(rate=8000, channels="mono")
    )
    assert isinstance(prepared, Encoded)
    kept = tmp_path / f"kept.{prepared.sample.extension}"
    kept.write_bytes(prepared.sample.audio)
    expected, _ = soundfile.read(kept, dtype="float32", always_2d=True)
    heard = hear(path, MONO)
    assert heard.samples.dtype == np.float32 and heard.seconds == pytest.approx(1, abs=0.2)
    assert np.array_equal(heard.samples, expected.T)
    assert any("mean of 2 channels" in note for note in heard.notes)


def test_a_recording_of_the_models_own_format_is_not_touched(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(9000, 2), 8000)
    heard = hear(tmp_path / "a.wav", STEREO)
    raw, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert np.array_equal(heard.samples, raw.T) and heard.notes == ()


@pytest.mark.parametrize(
    ("found", "listening", "expected"),
    [
        (1, STEREO, lambda x: np.repeat(x, 2, 1)),
        (6, MONO, lambda x: x.mean(1, keepdims=True)),
        (6, STEREO, lambda x: np.repeat(x.mean(1, keepdims=True), 2, 1)),
        (2, Listening(8000, 3, 9), lambda x: np.c_[x, x[:, 0] - x[:, 1]]),
        (2, Listening(8000, 2, 9, "mid_side"), lambda x: np.c_[x.sum(1) / 2, (x[:, 0] - x[:, 1]) / 2]),
        (1, Listening(8000, 2, 9, "mid_side"), lambda x: np.c_[x[:, 0], 0 * x[:, 0]]),
    ],
)
def test_channels_become_the_models(
    tmp_path: Path, found: int, listening: Listening, expected: object
) -> None:
    soundfile.write(tmp_path / "a.wav", tone(500, found), 8000, subtype="FLOAT")
    raw, _ = soundfile.read(tmp_path / "a.wav", always_2d=True)
    heard = hear(tmp_path / "a.wav", listening)
    assert np.allclose(heard.samples.T, expected(raw), atol=1e-6)  # type: ignore[operator]
    assert len(heard.notes) == 1


def test_channels_that_nobody_can_make_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(500, 6), 8000)
    for listening, why in (
        (Listening(8000, 4, 9), "6 channel.*this model takes 4"),
        (Listening(8000, 2, 9, "mid_side"), "6 channels can't become mid_side"),
    ):
        with pytest.raises(Unreadable, match=why):
            hear(tmp_path / "a.wav", listening)


@pytest.mark.parametrize("rates", [(44100, 8000), (8000, 44100), (8000, 8000), (48000, 16000)])
def test_a_long_recording_in_blocks_has_the_samples_of_the_whole(
    rates: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rate, wanted = rates
    monkeypatch.setattr(recordings, "BLOCK_SECONDS", 1)
    samples = tone(round(3.7 * rate) + 13, 2)
    whole = convert.resample(samples, rate, wanted)
    blocks = in_blocks(samples, rate, wanted, lambda block: block, 0)
    assert blocks.shape == whole.shape and np.abs(blocks - whole).max() < 1e-6


def test_windows_cover_every_second_once() -> None:
    assert [w.start for w in windows(16000, 16000)] == [0] and windows(5, 16000)[0].weight == 1
    for total in (16001, 31999, 32000, 48000, 50000):
        for step in (1, 160):
            found = windows(total, 16000, step)
            assert sum(w.weight for w in found) == pytest.approx(1)
            assert all(w.start % step == 0 for w in found)
            covered = np.zeros(total, int)
            for w in found:
                before = (covered > 0).sum()
                covered[w.start : w.start + 16000] += 1
                assert w.weight == pytest.approx(((covered > 0).sum() - before) / total)
            assert (covered > 0).all()
            assert found[-1].start + 16000 - total < step


def test_a_short_recording_is_followed_by_zeros() -> None:
    samples = np.ones((1, 5), np.float32)
    assert cut(samples, windows(5, 8)[0], 8).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert cut(np.arange(10.0)[None], windows(10, 8)[1], 8).tolist() == [list(range(2, 10))]


def test_what_is_no_recording_is_refused_in_a_few_words(tmp_path: Path) -> None:
    def refused(content: bytes | np.ndarray, name: str = "a.wav") -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            soundfile.write(path, content, 8000, subtype="FLOAT" if name.endswith("wav") else None)
        with pytest.raises(Unreadable) as caught:
            hear(path, MONO)
        assert str(caught.value).count("\n") == 0
        return str(caught.value)

    assert refused(b"") == "the file is empty"
    assert refused(b"hello, this is text") == "no audio: Format not recognised."
    assert refused(np.zeros((0, 1))) == "no samples"
    assert (
        refused(np.zeros((900, 2)))
        == refused(np.full((900, 1), 0.25))
        == ("silent: all its samples are the same")
    )
    assert refused(np.where(np.arange(900) == 7, np.nan, 0.1)) == "holds NaN or infinite samples"
    soundfile.write(tmp_path / "whole.wav", tone(900), 8000)
    assert refused((tmp_path / "whole.wav").read_bytes()[:1000]).startswith("cut off: 478 of 900")
    soundfile.write(tmp_path / "whole.flac", tone(9000), 8000)
    damaged = bytearray((tmp_path / "whole.flac").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    refused(bytes(damaged), "b.flac")
    with pytest.raises(Unreadable, match="No such file"):
        hear(tmp_path / "nothing.wav", MONO)
    with pytest.raises(Unreadable, match="a folder"):
        hear(tmp_path, MONO)
    soundfile.write(tmp_path / "odd.wav", tone(900), 7999 * 3 + 2)
    with pytest.raises(Unreadable, match="factors up to 10000"):
        hear(tmp_path / "odd.wav", MONO)
