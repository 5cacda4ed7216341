import io
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile
from sounds import tone

from datasets.decode import ClipFormat, decode_array, decode_clip, flac_intact
from datasets.members import ALLOWED, check_members
from datasets.shards import ClipLabels, ShardError

WANTED = ClipFormat(8000, 1, 800)
LABELS = ClipLabels("park", ("bird",), None, None)


def encoded(
    sound: np.ndarray, container: str = "FLAC", subtype: str | None = "PCM_16", rate: int = 8000
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=container, subtype=subtype)
    return file.getvalue()


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def members(suffix: str = "flac", data: bytes | None = None, **more: bytes) -> dict[str, bytes]:
    return {"json": LABELS.to_json(), suffix: encoded(tone()) if data is None else data, **more}


def decode(
    found: dict[str, bytes], wanted: ClipFormat = WANTED, dtype: str = "float32", room: int = 900
) -> np.ndarray:
    out = np.full((wanted.channels, room), 7, dtype=dtype)
    assert decode_clip(found, wanted, out, shard="train-000000.tar", key="k") == LABELS
    return out


@pytest.mark.parametrize(("container", "channels"), [("FLAC", 1), ("FLAC", 2), ("WAV", 1), ("WAV", 3)])
def test_16_bit_audio_comes_back_exactly_and_the_rest_is_zero(container: str, channels: int) -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32768, (800, channels)).astype(np.int16)
    found = members(container.lower(), encoded(pcm, container))
    out = decode(found, replace(WANTED, channels=channels), "int16")
    assert np.array_equal(out[:, :800], pcm.T) and not out[:, 800:].any()
    floats = decode(found, replace(WANTED, channels=channels))
    assert np.array_equal(floats, out.astype(np.float32) / 32768)


def test_threads_forks_and_systems_without_files_in_memory_decode_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips = [np.random.default_rng(n).integers(-32768, 32768, (800, 1)).astype(np.int16) for n in range(40)]
    found = [members(data=encoded(clip)) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda one: decode(one, dtype="int16"), found))
    decode(found[0])  # so that the forks inherit this thread's open file
    with multiprocessing.get_context("fork").Pool(2) as forks:
        forked = forks.map(partial(decode, dtype="int16"), found)
    monkeypatch.delattr(os, "memfd_create")
    plain = [decode(one, dtype="int16") for one in found]
    for clip, *decoded in zip(clips, threaded, forked, plain, strict=True):
        assert all(np.array_equal(out[0, :800], clip[:, 0]) for out in decoded)


def test_24_bit_audio_keeps_its_bits() -> None:
    pcm = np.random.default_rng(0).integers(-(2**23), 2**23, (800, 1)).astype(np.int32) << 8
    out = decode(members(data=encoded(pcm, subtype="PCM_24")))
    assert np.array_equal(out[0, :800], (pcm[:, 0] / 2.0**31).astype(np.float32))


@pytest.mark.parametrize(("suffix", "container", "subtype"), [("ogg", "OGG", "VORBIS"), ("mp3", "MP3", None)])
def test_lossy_audio_is_read(suffix: str, container: str, subtype: str | None) -> None:
    data = encoded(tone(1.0, 16000), container, subtype, 16000)
    frames = soundfile.info(io.BytesIO(data)).frames
    out = decode(members(suffix, data), ClipFormat(16000, 1, frames), room=frames)
    assert 0.2 < np.abs(out).max() < 0.3


CORRUPT = bytearray(encoded(np.random.default_rng(0).normal(0, 0.1, (800, 1))))
CORRUPT[400:700] = bytes(300)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (members(pkl=pickle.dumps([1])), "member .pkl is not one of: .flac"),
        (members(pyd=b""), "member .pyd is not one of"),
        ({"json": LABELS.to_json()}, "expected one audio file and one .json"),
        ({"flac": encoded(tone())}, "expected one audio file and one .json"),
        (members(wav=encoded(tone(), "WAV")), "expected one audio file and one .json"),
        (members(data=b"not audio at all"), "Error opening"),
        (members(data=b""), "Error opening"),
        (members(data=encoded(tone(), "WAV")), "the .flac member is WAV audio"),
        (
            members(data=encoded(tone(rate=16000), rate=16000)),
            "has 16000 Hz, 1 channel(s), 1600 samples; the index says 8000",
        ),
        (
            members(data=encoded(tone(channels=2))),
            "has 8000 Hz, 2 channel(s), 800 samples; the index says 8000 Hz, 1 ch",
        ),
        (members(data=encoded(tone(0.2))), "1600 samples; the index says"),
        (members(data=bytes(CORRUPT)), ""),
        (members() | {"json": b"{"}, "its labels are not JSON: Expecting property name"),
        (members() | {"json": b"[1]"}, "labels are a JSON list"),
        (members() | {"json": b" " * (2**20 + 1)}, "member .json has 1048577 bytes, the limit is 1048576"),
    ],
)
def test_what_is_wrong_names_shard_and_clip(found: dict[str, bytes], message: str) -> None:
    out = np.zeros((1, 900), dtype=np.float32)
    with pytest.raises(ShardError) as error:
        decode_clip(found, WANTED, out, shard="train-000000.tar", key="k17")
    text = str(error.value)
    assert text.startswith("train-000000.tar: clip k17: ") and message in text and "\n" not in text


def test_a_header_that_promises_the_moon_allocates_nothing() -> None:
    data = bytearray(encoded(tone()))
    data[21] |= 0x0F  # STREAMINFO's total samples: 36 bits, the top four in byte 21's low nibble
    with pytest.raises(ShardError, match="the index says 8000 Hz, 1 channel"):
        decode(members(data=bytes(data)))


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_damage_to_a_flac_is_found_by_its_own_checksum(subtype: str) -> None:
    data = encoded(np.random.default_rng(0).normal(0, 0.1, (6000, 2)), subtype=subtype)
    assert flac_intact(data) is True
    for at in (2000, 5000, len(data) - 9):
        assert flac_intact(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]) is False
    assert flac_intact(data[: len(data) // 2]) is False
    assert flac_intact(data[:26] + bytes(16) + data[42:]) is None
    assert flac_intact(encoded(tone(), "WAV")) is None


def test_arrays_are_plain_numbers_or_nothing() -> None:
    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.ones((3, 2)))):
        assert np.array_equal(decode_array(saved(array)), array)
    with pytest.raises(ValueError, match="expected plain numbers"):
        decode_array(saved(np.array([{"a": 1}], dtype=object)))
    with pytest.raises(ValueError, match="promises shape"):
        decode_array(saved(np.zeros(9))[:-8])
    honest = saved(np.zeros((4,)))
    with pytest.raises(ValueError, match="promises shape"):
        decode_array(honest.replace(b"(4,), }", b"(99999999999,), }").replace(b"        \n", b"\n"))


def test_allowed_members_pass() -> None:
    check_members(members() | {"tags.npy": b"", "frames.npy": b""})
    assert set(ALLOWED) == {"flac", "wav", "ogg", "mp3", "json", "tags.npy", "frames.npy"}
