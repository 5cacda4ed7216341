"""Real files of every kind that is read, written by real encoders."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets.convert import AS_IT_IS, Channels, Conversion
from datasets.corpora.corpus import Recording
from datasets.encode import AudioFile, Damaged, Encoded, encode, probe, quantise
from datasets.shards import ClipLabels


def audio_file(path: Path, start: float = 0.0, seconds: float | None = None) -> AudioFile:
    return AudioFile("a", path, Recording(path.name, ClipLabels(), start, seconds))


def encoded(path: Path, conversion: Conversion = AS_IT_IS) -> Encoded:
    result = encode(audio_file(path), conversion)
    assert isinstance(result, Encoded), result
    return result


def samples_of(result: Encoded, dtype: str = "float64") -> np.ndarray:
    return soundfile.read(io.BytesIO(result.sample.audio), dtype=dtype, always_2d=True)[0]


def noise(samples: int = 4000, channels: int = 2, level: float = 0.2) -> np.ndarray:
    return level * np.random.default_rng(3).normal(size=(samples, channels)).clip(-4, 4)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("a.wav", "PCM_16"),
        ("a.wav", "PCM_24"),
        ("a.flac", "PCM_16"),
        ("a.flac", "PCM_24"),
        ("a.wav", "FLOAT"),
    ],
)
def test_lossless_audio_is_kept_bit_for_bit(tmp_path: Path, name: str, subtype: str) -> None:
    """24-bit stereo at 48 kHz among them."""
    path = tmp_path / name
    soundfile.write(path, noise(), 48000, subtype=subtype)
    result = encoded(path)
    assert np.array_equal(samples_of(result, "int32"), soundfile.read(path, dtype="int32", always_2d=True)[0])
    assert soundfile.info(io.BytesIO(result.sample.audio)).subtype == subtype
    assert result.sample.samples == 4000 and result.limited == 0


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.ogg", "VORBIS"), ("a.opus", "OPUS"), ("a.ogg", "OPUS"), ("a.mp3", "MPEG_LAYER_III")],
)
def test_compressed_audio_is_decoded_and_kept_as_16_bit(tmp_path: Path, name: str, subtype: str) -> None:
    path = tmp_path / name
    soundfile.write(path, noise(48000), 48000, format=None if name != "a.opus" else "OGG", subtype=subtype)
    decoded = soundfile.read(path, always_2d=True)[0]
    result = encoded(path)
    assert soundfile.info(io.BytesIO(result.sample.audio)).subtype == "PCM_16"
    assert np.abs(samples_of(result) - decoded).max() <= 0.5 / 32768 + 1e-9


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.ogg", "VORBIS"), ("a.ogg", "OPUS"), ("a.mp3", "MPEG_LAYER_III")]
)
def test_a_decoder_that_overshoots_full_scale_is_limited_and_not_wrapped_around(
    tmp_path: Path, name: str, subtype: str
) -> None:
    """libsndfile's own 16-bit output of Vorbis and Opus turns 1.1 into -0.9: a click for every peak."""
    path = tmp_path / name
    square = np.sign(np.sin(2 * np.pi * 300 * np.arange(16000) / 16000 + 0.1)) * 0.99
    soundfile.write(path, square, 16000, subtype=subtype)
    decoded = soundfile.read(path, always_2d=True)[0]
    assert np.abs(decoded).max() > 1.01
    result = encoded(path)
    assert np.abs(samples_of(result) - decoded.clip(-1, 1)).max() <= 1.0 / 32768 + 1e-9
    assert result.limited == np.count_nonzero((decoded >= 1 - 0.5 / 32768) | (decoded < -1 - 0.5 / 32768))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("channels", ["keep", "mono", "mid_side", "left_right_difference"])
def test_conversion_rounds_once_to_the_word_length(tmp_path: Path, subtype: str, channels: Channels) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(level=0.05), 44100, subtype=subtype)
    conversion = Conversion(16000, channels)
    exact = conversion.apply(soundfile.read(path, always_2d=True)[0], 44100)
    step = {"PCM_16": 2.0**-15, "PCM_24": 2.0**-23, "FLOAT": 1e-7}[subtype]
    result = encoded(path, conversion)
    found = samples_of(result)
    assert found.shape == exact.shape and np.abs(found - exact).max() <= step / 2 + 1e-12
    assert soundfile.info(io.BytesIO(result.sample.audio)).samplerate == 16000


def test_quantising() -> None:
    values = np.array([[0.0, 1.0], [-1.0, 1.2], [-1.5, 0.5 / 32768], [1.5 / 32768, 2.4 / 32768]])
    whole, limited = quantise(values, 16)
    assert whole.tolist() == [[0, 32767], [-32768, 32767], [-32768, 0], [2, 2]] and limited == 3
    whole, limited = quantise(np.array([[0.5, -1.0, 2.0]]), 24)
    assert whole.tolist() == [[2**30, -(2**31), (2**23 - 1) << 8]] and limited == 1
    assert quantise(np.array([[1.5]]), 0) == (np.float32(1.5), 0)


def test_a_part_of_a_recording_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(80000, 1), 8000, subtype="PCM_16")
    result = encode(audio_file(path, 2.0, 3.0), Conversion(4000))
    assert isinstance(result, Encoded) and result.sample.samples == 12000


def test_files_that_differ_name_the_option_that_helps(tmp_path: Path) -> None:
    files = []
    for name, rate, channels in (("a", 8000, 1), ("b", 8000, 1), ("c", 16000, 2)):
        soundfile.write(tmp_path / f"{name}.wav", noise(100, channels), rate)
        files.append(audio_file(tmp_path / f"{name}.wav"))
    with pytest.raises(ValueError) as error:
        probe(files, Conversion(), 1)
    assert str(error.value) == (
        "c.wav has 16000 Hz and 2 channel(s); expected 8000 Hz and 1 channel(s) as 2 of 3 files have "
        "(1 differ); --rate 8000 resamples all to that; --channels mono mixes all to one channel (stereo, "
        "mid_side … are other ways)"
    )
    with pytest.raises(ValueError, match=r"\(1 differ\); --channels mono mixes"):
        probe(files, Conversion(8000), 1)
    headers = probe(files, Conversion(16000, "mono"), 1)
    assert (headers.sample_rate, headers.channels, headers.sample_type) == (16000, 1, "int16")


def test_a_file_that_can_not_be_converted_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(100, 3), 8000)
    with pytest.raises(ValueError, match="a.wav: 3 channels can't become stereo"):
        probe([audio_file(tmp_path / "a.wav")], Conversion(None, "stereo"), 1)


def test_a_file_that_is_no_audio(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"<html>" * 10)
    assert isinstance(encode(audio_file(tmp_path / "a.mp3")), Damaged)
