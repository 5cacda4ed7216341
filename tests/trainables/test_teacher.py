"""The teacher: its numbers are those of each clip alone, whoever computes them and however often it was
stopped, and a tagged shard set is what a training then reads."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import soundfile
import torch
from safetensors.torch import save_file

from datasets.labels import LabelSpace
from datasets.shard_writer import Sample, write_split
from datasets.shards import ClipLabels, Index, ShardError, make_index, read_members
from datasets.source import open_source
from datasets.tagged import Unfinished, read_tags
from trainables import teacher
from trainables.contract import AudioFormat
from trainables.parts.torchaudio_guarded import torchaudio
from trainables.recipe import configure
from trainables.registry import family
from trainables.taggers import load_tagger
from trainables.tagging import Work, Worker, in_this_process, tasks
from trainables.teacher import Request, in_actors, teach

ROOT = Path(__file__).resolve().parents[2]
RATE, MODEL_RATE = 12000, 8000  # the shards' and the model's, in Hz
SAMPLES = 13600  # the longest clip's, 1.7 s, at MODEL_RATE
LENGTHS = (20400, 20400, 9000, 20400, 5000, 9000, 20400)  # samples


def model_folder(folder: Path, rate: int = MODEL_RATE, **values: Any) -> Path:
    """A small untrained joint model of ours for clips of 1.7 s, as `export_best` writes one."""
    values = {"backbone": "tinycnn", "framework": "mlhe", "width": 0.25} | values
    labels = LabelSpace(("park", "tram"), tuple(f"event {k}" for k in range(80)))
    audio = {"sample_rate": rate, "channels": 1, "samples": SAMPLES * rate // MODEL_RATE}
    config, _ = configure("csem", values)
    torch.manual_seed(7)
    model = family("csem").build(config, labels, AudioFormat(**audio))
    with torch.no_grad():  # answers of a model at its initial weights hardly differ
        for parameter in model.parameters():
            parameter.mul_(2.0)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    about = {"family": "csem", "values": values, "scenes": labels.scenes, "events": labels.events}
    (folder / "model.json").write_text(json.dumps(about | {"audio": audio, "run": {}, "metrics": {}}))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """40 training and 9 test clips of noise and tones, 2 channels at RATE, of several lengths, in several
    shards, with a member besides."""
    root = tmp_path_factory.mktemp("stereo") / "shards"
    root.mkdir()
    rng = np.random.default_rng(4)

    def clips(count: int) -> Iterator[Sample]:
        for n in range(count):
            length = LENGTHS[n % len(LENGTHS)]
            tone = np.sin(2 * np.pi * (200 + 90 * n) * np.arange(length) / RATE)
            sound = 0.2 * tone[:, None] * rng.random(2) + 0.1 * rng.standard_normal((length, 2))
            file = io.BytesIO()
            soundfile.write(file, sound, RATE, format="FLAC", subtype="PCM_16")
            labels = ClipLabels("park", ("bird",) if n % 2 else (), location="here")
            yield Sample(f"clip-{n}", file.getvalue(), "flac", length, labels)

    counts = {"train": 40, "test": 9}
    splits = {name: write_split(root, name, clips(n), RATE, 300_000) for name, n in counts.items()}
    space = LabelSpace(("park", "tram"), ("bird", "event 3"))
    (root / "LICENSE.txt").write_text("as you like")
    about = {"corpus": "noise", "licence": "mine", "citation": "none", "labels": space}
    make_index(root, splits, sample_rate=RATE, channels=2, sample_type="int16", **about).save()
    assert len(splits["train"].shards) > 2
    return Index.load(root)


def alone(index: Index, split: str, model: Path) -> np.ndarray:
    """(N, K) the slow way: each clip through soundfile, torchaudio's function and the model by itself."""
    tagger, rows = load_tagger(model), []
    for n in range(index.splits[split].clips):
        sound, rate = soundfile.read(io.BytesIO(read_members(index, split, n)["flac"]), dtype="float32")
        mono = torch.from_numpy(sound.mean(1, keepdims=True).T)
        at_rate = torchaudio.functional.resample(mono, rate, tagger.sample_rate)
        padded = torch.zeros(1, 1, SAMPLES)
        padded[0, :, : at_rate.shape[1]] = at_rate
        with torch.no_grad():
            rows.append(tagger.module(padded)[0].numpy())
    return np.stack(rows)


def request(index: Index, model: Path, out: Path, **options: Any) -> Request:
    return Request(
        **{"data": Path(index.root), "model": model, "out": out, "actors": 0, "batch": 4} | options
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def tagged(stereo: Index, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tagged") / "out"
    teach(request(stereo, model, out))
    return out


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_clips_tags_are_those_of_the_clip_alone_for_any_batch(
    stereo: Index, model: Path, batch: int
) -> None:
    for split in stereo.splits:
        work = Work(str(stereo.root), str(model), batch)
        found = np.concatenate(
            [tags for _, tags in in_this_process(work, tasks(stereo, [split], batch, lambda *_: False))]
        )
        wanted = alone(stereo, split, model)
        assert found.shape == wanted.shape == (stereo.splits[split].clips, 80)
        assert wanted.std(0).max() > 0.01  # the clips do differ
        assert np.abs(found - wanted).max() < 1e-5


def test_a_tagged_shard_set_holds_them_rounded_to_float16(stereo: Index, model: Path, tagged: Path) -> None:
    index = Index.load(tagged)
    assert index.tags and index.tags.names == tuple(f"event {k}" for k in range(80))
    assert index.tags.model == "small" and index.tags.checksum == load_tagger(model).checksum
    for split in stereo.splits:
        assert np.abs(read_tags(index, split) - alone(stereo, split, model)).max() < 2**-12 + 1e-5
        for n in range(stereo.splits[split].clips):
            members = read_members(index, split, n)
            assert np.load(io.BytesIO(members.pop("tags.npy"))).dtype == np.float16
            assert members == read_members(stereo, split, n)
    assert (tagged / "LICENSE.txt").read_text() == "as you like"
    assert {path.name for path in tagged.iterdir()} == {path.name for path in Path(stereo.root).iterdir()}


def test_float32_and_one_split(stereo: Index, model: Path, tmp_path: Path) -> None:
    teach(request(stereo, model, tmp_path / "out", dtype="float32", split=("test",)))
    index = Index.load(tmp_path / "out")
    assert list(index.splits) == ["test"]
    assert np.abs(read_tags(index, "test") - alone(stereo, "test", model)).max() < 1e-5


def test_a_training_reads_what_the_teacher_wrote(tagged: Path, tmp_path: Path) -> None:
    for cache in (tmp_path / "cache", None):
        source = open_source(tagged, cache=cache, events="tags>0.5")
        tags = torch.from_numpy(read_tags(Index.load(tagged), "train"))
        for batch in source.train_batches(8, epoch=0, seed=0):
            assert torch.equal(batch.tags, tags[batch.clip])
            assert torch.equal(batch.events, (tags[batch.clip] > 0.5).float())
        assert source.index.labels.events[:2] == ("event 0", "event 1")


def test_another_teacher_replaces_the_tags(tagged: Path, tmp_path: Path) -> None:
    other = model_folder(tmp_path / "other", width=0.5)
    teach(request(Index.load(tagged), other, tmp_path / "out"))
    index = Index.load(tmp_path / "out")
    assert index.tags and index.tags.model == "other" and index.checksum != Index.load(tagged).checksum
    members = read_members(index, "test", 0)
    assert list(members) == ["json", "tags.npy", "flac"]


def test_stopped_anywhere_and_gone_on_with_gives_the_same_bytes(
    stereo: Index, model: Path, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, honest = tmp_path / "out", teacher.results
    for stop in (3, 0, 1, 4):

        def until(asked: Request, todo: list, stop: int = stop) -> Iterator:
            for n, result in enumerate(honest(asked, todo)):
                if n == stop:
                    raise KeyboardInterrupt
                yield result

        monkeypatch.setattr(teacher, "results", until)
        with pytest.raises(KeyboardInterrupt):
            teach(request(stereo, model, out, resume=stop != 3))
        assert not out.exists()
        (tmp_path / ".out.tagging" / ".train-000009.tar.77").write_text("a tar that a kill cut off")
        with open(tmp_path / ".out.tagging" / "done.jsonl", "a") as log:
            log.write('{"split": "tra')  # torn by the kill
    monkeypatch.undo()
    finished = sorted((tmp_path / ".out.tagging").glob("*.tar"))
    assert 1 < len(finished) < sum(len(split.shards) for split in stereo.splits.values())
    finished[0].write_bytes(finished[0].read_bytes()[:-1] + b"x")  # damaged since: made again
    index, clips, _ = teach(request(stereo, model, out, resume=True))
    assert content(out) == content(tagged) and 0 < clips < 49
    assert index.checksum == Index.load(tagged).checksum
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing else is left


def test_going_on_with_something_else_is_refused(
    stereo: Index, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(asked: Request, todo: list, after: int) -> Iterator:
        yield from islice(honest(asked, todo), after)
        raise KeyboardInterrupt

    honest = teacher.results
    out = tmp_path / "out"
    for after in (0, 3):  # with nothing finished nothing is left, and nothing to go on with
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(teacher, "results", partial(stopped, after=after))
            teach(request(stereo, model, out))
        assert (tmp_path / ".out.tagging").exists() == (after > 0)
    with pytest.raises(FileExistsError, match=r"an earlier attempt was stopped there; go on with --resume"):
        teach(request(stereo, model, out))
    other = model_folder(tmp_path / "other", width=0.5)
    for options, name in (
        ({"batch": 5}, "batch 4, now it is 5"),
        ({"dtype": "float32"}, "dtype float16, now"),
        ({"split": ("test",)}, "splits"),
        ({"model": other}, "model"),
    ):
        with pytest.raises(ValueError, match=f"--resume: .* was begun with {name}"):
            teach(request(stereo, options.pop("model", model), out, resume=True, **options))
    with Unfinished(tmp_path / "busy", {}, resume=False):
        with pytest.raises(FileExistsError, match="another process is making it"):
            teach(request(stereo, model, tmp_path / "busy"))


def test_a_full_disk_keeps_what_is_finished(
    stereo: Index, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = teacher.write_tagged, []

    def full(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(*arguments)

    monkeypatch.setattr(teacher, "write_tagged", full)
    with pytest.raises(OSError, match=r"the disk is full; 2 finished shards are kept in .*--resume$"):
        teach(request(stereo, model, tmp_path / "out"))
    index, clips, _ = teach(request(stereo, model, tmp_path / "out", resume=True))
    assert clips < 49 and index.splits["train"].clips == 40


def mistakes(stereo: Index, model: Path, folder: Path) -> dict[str, tuple[Request, str]]:
    """What a user may get wrong, and what has to be said."""
    good = request(stereo, model, folder / "out")
    broken = folder / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    other = folder / "halved"
    shutil.copytree(model, other)
    record = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps(record | {"events": record["events"][:40]}))
    wide = model_folder(folder / "wide", rate=16000)
    silent = model_folder(folder / "silent", framework="scene_only")
    (folder / "used").mkdir()
    (folder / "used" / "file").write_text("mine")
    damaged = folder / "damaged"
    shutil.copytree(stereo.root, damaged)
    shard = stereo.splits["train"].shards[1]
    data = bytearray((damaged / shard.name).read_bytes())
    clip = shard.clips[2]
    data[clip.offset + clip.size // 2 : clip.offset + clip.size // 2 + 200] = bytes(200)
    (damaged / shard.name).write_bytes(bytes(data))
    return {
        "no shards": (replace(good, data=folder / "nowhere"), "nowhere: no such folder"),
        "no model": (replace(good, model=folder / "nothing"), "nothing: "),
        "an empty folder": (replace(good, model=folder / "used"), "used: no model there"),
        "a corrupt model": (replace(good, model=broken), "broken: a damaged model"),
        "another model's weights": (replace(good, model=other), "halved: a damaged model"),
        "no events": (replace(good, model=silent), "silent: this model has no event branch"),
        "too low a rate": (replace(good, model=wide), "12000 Hz, but the model wide expects 16000 Hz"),
        "out in use": (replace(good, out=folder / "used"), "used exists and is not an empty folder"),
        "an unknown split": (replace(good, split=("dev",)), "no split 'dev'; there are: train, test"),
        "no batch": (replace(good, batch=0), "--batch 0: expected at least 1"),
        "a damaged clip": (replace(good, data=damaged), f"{shard.name}: clip {clip.key}: "),
    }


MISTAKES = ("no shards", "no model", "an empty folder", "a corrupt model", "another model's weights",
            "no events", "too low a rate", "out in use", "an unknown split", "no batch",
            "a damaged clip")  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line(
    mistake: str, stereo: Index, model: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, message = mistakes(stereo, model, tmp_path)[mistake]
    words = [
        "teacher",
        str(asked.data),
        "--model",
        str(asked.model),
        "--out",
        str(asked.out),
        "--actors",
        "0",
    ]
    words += ["--batch", str(asked.batch), *(["--split", *asked.split] if asked.split else [])]
    monkeypatch.setattr(sys, "argv", words)
    assert teacher.main() == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "a second" not in line]
    assert len(said) == 1 and said[0].startswith("error: ") and message in said[0], said
    assert not (tmp_path / "out").exists()


def test_a_lower_rate_is_taken_when_it_is_accepted(stereo: Index, model: Path, tmp_path: Path) -> None:
    wide = mistakes(stereo, model, tmp_path)["too low a rate"][0]
    index, _, _ = teach(replace(wide, accept_mismatch=True, split=("test",)))
    assert read_tags(index, "test").shape == (9, 80)


def test_numbers_that_are_no_probabilities_are_refused(stereo: Index, model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    bad = tmp_path / "bad"
    shutil.copytree(model, bad)
    weights = load_file(bad / "model.safetensors")
    name = next(name for name in weights if name.startswith("event_classifier"))
    weights[name].fill_(float("nan"))
    save_file(weights, bad / "model.safetensors")
    worker = Worker(Work(str(stereo.root), str(bad), 4))
    with pytest.raises(ShardError, match="test-000000.tar: clip clip-0: the model gives nan to nan"):
        worker.tag(next(tasks(stereo, ["test"], 4, lambda *_: False)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")  # type: ignore[arg-type]
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("actors", [1, 3])
def test_any_number_of_actors_writes_the_same_bytes(
    cluster: None, stereo: Index, model: Path, tagged: Path, tmp_path: Path, actors: int
) -> None:
    teach(request(stereo, model, tmp_path / "out", actors=actors))
    assert content(tmp_path / "out") == content(tagged)


@pytest.mark.ray
@pytest.mark.slow
def test_a_mistake_in_an_actor_gets_one_line_too(
    cluster: None, stereo: Index, model: Path, tmp_path: Path
) -> None:
    asked, message = mistakes(stereo, model, tmp_path)["a damaged clip"]
    with pytest.raises(ShardError, match=message):
        teach(replace(asked, actors=2))
    with pytest.raises(ValueError, match="--actors 4: each needs a CPU core, the cluster has 3"):
        teach(request(stereo, model, tmp_path / "many", actors=4))


@pytest.mark.ray
@pytest.mark.slow
def test_the_work_of_a_dead_actor_is_done_again_and_little_waits_at_any(
    cluster: None, stereo: Index, model: Path
) -> None:
    work, handed = Work(str(stereo.root), str(model), 1), []

    def todo() -> Iterator:
        for task in tasks(stereo, ["train"], 1, lambda *_: False):
            handed.append(task)
            yield task

    found = {}
    for n, (task, tags) in enumerate(in_actors(work, todo(), actors=2)):
        found[task.shard, task.first] = tags
        assert len(handed) - len(found) <= 2 * teacher.IN_HAND
        if n == 1:
            (victim, *_) = [
                process
                for process in psutil.Process().children(recursive=True)
                if any("Careful" in word for word in process.cmdline())
            ]
            victim.kill()
    assert (
        np.abs(np.concatenate([found[k] for k in sorted(found)]) - alone(stereo, "train", model)).max() < 1e-5
    )


@pytest.mark.ray
@pytest.mark.slow
def test_killed_and_started_again_with_resume_gives_the_same_bytes(
    stereo: Index, model: Path, tagged: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "trainables.teacher", str(stereo.root), "--model", str(model), "--out"]
    words += [str(out), "--batch", "4", "--actors", "1"]
    options: dict[str, Any] = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(words, **options, start_new_session=True)
    done, end = tmp_path / ".out.tagging" / "done.jsonl", time.monotonic() + 90
    while not done.is_file():
        assert first.poll() is None and time.monotonic() < end, first.communicate()
        time.sleep(0.002)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not out.exists()
    again = subprocess.run([*words, "--resume"], **options, timeout=120)
    assert again.returncode == 0, again.stderr
    assert content(out) == content(tagged) and "clips tagged now" in again.stdout
