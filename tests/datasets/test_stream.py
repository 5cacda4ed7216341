import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from datasets import plan, stream
from datasets.labels import LabelSpace
from datasets.members import _plain_members, expand_tar
from datasets.shards import ClipLabels, Index, ShardError, read_labels, read_members


def read_all(index: Index, split: str, batch: int = 8, seed: int | None = None) -> list:
    sizes = [len(shard.clips) for shard in index.splits[split].shards]
    reading = plan.eval_reading(sizes, batch)
    if seed is not None:
        reading = replace(reading, order=plan.mixed(reading.order, 20, (seed,)))
    return list(stream.batches(index, split, reading))


def test_batches_hold_what_the_shards_hold(tiny: Index) -> None:
    batches = read_all(tiny, "train")
    labels = list(read_labels(tiny, "train"))
    assert [len(batch) for batch in batches] == [8] * 5 + [3]
    assert torch.cat([batch.clip for batch in batches]).tolist() == list(range(43))
    waveform = torch.cat([batch.waveform for batch in batches])
    assert waveform.shape == (43, 1, tiny.samples) and waveform.dtype == torch.float32
    scene = torch.cat([batch.scene for batch in batches])
    events = torch.cat([batch.events for batch in batches])
    for number, clip in enumerate(labels):
        assert scene[number].nonzero().flatten().tolist() == [tiny.labels.scene_index(str(clip.scene))]
        names = {tiny.labels.events[j] for j in events[number].nonzero().flatten().tolist()}
        assert names == set(clip.events or ())
    assert torch.cat([batch.event_known for batch in batches]).min() == 1


def test_a_tar_that_is_not_the_index_is_an_error(tiny: Index, tmp_path: Path) -> None:
    index, path = broken_copy(tiny, tmp_path / "s")
    first, second = tiny.splits["val"].shards[0].clips[:2]
    data = path.read_bytes()
    path.write_bytes(data.replace(first.key.encode() + b".", second.key.encode() + b"."))
    with pytest.raises(ShardError, match=f"{path.name}: .*not a readable tar"):  # the header's own checksum
        read_all(index, "val")
    with tarfile.open(path, "w") as tar:
        for suffix in ("json", "flac"):
            tar.addfile(tarfile.TarInfo(f"{second.key}.{suffix}"))
    path.write_bytes(path.read_bytes().ljust(len(data), b"\0"))
    with pytest.raises(ShardError, match=f"expected clip {first.key} from the index, found {second.key}"):
        read_all(index, "val")
    path.write_bytes(data[: first.offset + 600])
    with pytest.raises(ShardError, match=path.name):
        read_all(index, "val")


def test_mixing_changes_the_order_and_nothing_else(tiny: Index) -> None:
    plain, mixed = read_all(tiny, "train"), read_all(tiny, "train", seed=1)
    again = read_all(tiny, "train", seed=1)
    order = torch.cat([batch.clip for batch in mixed])
    assert order.tolist() != sorted(order.tolist()) and sorted(order.tolist()) == list(range(43))
    assert torch.equal(order, torch.cat([batch.clip for batch in again]))
    waveform = torch.cat([batch.waveform for batch in plain])
    assert torch.equal(torch.cat([batch.waveform for batch in mixed]), waveform[order])


def test_unknown_labels_are_masked() -> None:
    space = LabelSpace(("park", "tram"), ("bird", "bell"))
    clips = [ClipLabels("tram", ("bell",)), ClipLabels(None, ()), ClipLabels("park", None)]
    scene, events, known = stream.label_arrays(clips, space)
    assert scene.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert events.tolist() == [[0, 1], [0, 0], [0, 0]]
    assert known.tolist() == [[1, 1], [1, 1], [0, 0]]
    with pytest.raises(ValueError, match="event 'dog' is not one of the 2 known"):
        stream.label_arrays([ClipLabels("park", ("dog",))], space)


def broken_copy(tiny: Index, to: Path) -> tuple[Index, Path]:
    shutil.copytree(tiny.root, to)
    return replace(tiny, root=to), to / tiny.splits["val"].shards[0].name


def test_a_damaged_header_is_one_line_naming_the_shard(tiny: Index, tmp_path: Path) -> None:
    index, path = broken_copy(tiny, tmp_path / "s")
    data = bytearray(path.read_bytes())
    data[0:512] = b"\xff" * 512
    path.write_bytes(data)
    with pytest.raises(ShardError) as error:
        read_all(index, "val")
    assert path.name in str(error.value) and "not a readable tar" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_clip_is_one_line_naming_shard_and_clip(tiny: Index, tmp_path: Path) -> None:
    index, path = broken_copy(tiny, tmp_path / "s")
    clip = tiny.splits["val"].shards[0].clips[1]
    audio = read_members(tiny, "val", 1)["flac"]
    data = path.read_bytes()
    at = data.index(audio)
    path.write_bytes(data[: at + 100] + bytes(len(audio) - 150) + data[at + len(audio) - 50 :])
    with pytest.raises(ShardError, match=f"{path.name}: clip {clip.key}: "):
        read_all(index, "val")


def test_members_that_are_not_allowed_are_refused(tiny: Index, tmp_path: Path) -> None:
    index, path = broken_copy(tiny, tmp_path / "s")
    with tarfile.open(path) as old:
        members = [(m, old.extractfile(m).read()) for m in old.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as new:
        for member, data in members:
            member.name = member.name.replace(".json", ".pyth")
            new.addfile(member, io.BytesIO(data))
    with pytest.raises(ShardError, match="member .pyth is not one of"):
        read_all(index, "val")


SUFFIXES = st.sampled_from(("json", "flac", "pyth", "tags.npy"))
LAYOUTS = st.sampled_from((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))


@given(st.dictionaries(SUFFIXES, st.binary(max_size=1500), min_size=1), st.integers(1, 110), LAYOUTS)
def test_the_fast_look_into_a_clip_sees_what_the_slow_one_does(
    members: dict[str, bytes], length: int, layout: int
) -> None:
    assume(layout != tarfile.USTAR_FORMAT or length < 80)  # it has no room for longer names
    file, key = io.BytesIO(), "k" * length
    with tarfile.open(fileobj=file, mode="w", format=layout) as tar:
        for suffix, content in members.items():
            member = tarfile.TarInfo(f"{key}.{suffix}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        data = file.getvalue()[: tar.offset]
    whole = [(f"{key}.{suffix}", content) for suffix, content in members.items()]
    if "pyth" in members:
        assert _plain_members(data) is None
        with pytest.raises(ShardError, match="member .pyth"):
            list(expand_tar(io.BytesIO(data), "here"))
    else:
        assert list(expand_tar(io.BytesIO(data), "here")) == whole
        assert _plain_members(data) in ((whole,) if length < 80 else (whole, None))
        for missing in (513, len(data) - 512, len(data) - 100):
            assert _plain_members(data[:-missing] if missing < len(data) else b"x") != whole


def test_links_in_a_tar_are_not_followed(tiny: Index, tmp_path: Path) -> None:
    index, path = broken_copy(tiny, tmp_path / "s")
    with tarfile.open(path, "w") as tar:
        for suffix in ("json", "flac"):
            link = tarfile.TarInfo(f"{tiny.splits['val'].shards[0].clips[0].key}.{suffix}")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    with pytest.raises(ShardError, match="is a symbolic link"):
        read_all(index, "val")


def test_batches_that_are_kept_are_not_overwritten(tiny: Index) -> None:
    sizes = [len(shard.clips) for shard in tiny.splits["train"].shards]
    kept = []
    for batch in stream.batches(tiny, "train", plan.eval_reading(sizes, 4)):
        kept.append((batch, batch.waveform.clone()))
    assert all(torch.equal(batch.waveform, copy) for batch, copy in kept)


def test_short_clips_end_in_zeros(tmp_path: Path) -> None:
    from test_decode import encoded

    from datasets.shard_writer import Sample, write_split
    from datasets.shards import make_index

    rng = np.random.default_rng(0)
    sounds = [rng.integers(-999, 999, (n, 1)).astype(np.int16) for n in (50, 80)]
    root = tmp_path / "s"
    root.mkdir()
    samples = [Sample(f"k{i}", encoded(s), "flac", len(s), ClipLabels()) for i, s in enumerate(sounds)]
    splits = {"train": write_split(root, "train", samples, 8000)}
    about = {"corpus": "c", "licence": "", "citation": "", "sample_type": "int16"}
    index = make_index(root, splits, sample_rate=8000, channels=1, labels=LabelSpace(("a",), ()), **about)
    (batch,) = read_all(index, "train")
    assert batch.waveform.shape == (2, 1, 80) and not batch.waveform[0, 0, 50:].any()
    assert np.array_equal(batch.waveform[1, 0].numpy() * 32768, sounds[1][:, 0])
    assert batch.event_known.shape == (2, 0)
