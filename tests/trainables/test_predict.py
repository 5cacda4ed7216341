"""Recordings in, scenes, events and reasons out: the numbers of training, and nothing stops the rest."""

from __future__ import annotations

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from datasets.labels import LabelSpace
from datasets.source import Source
from trainables.contract import AudioFormat
from trainables.folder import RunFolder
from trainables.model_folder import load_model, write_model
from trainables.predict import listed, main, text
from trainables.predictor import Answer, Failed, Predictor, Span
from trainables.recordings import windows
from trainables.registry import family

LABELS = LabelSpace(("bus", "park", "tram"), ("speech", "bird", "car", "dog"))
AUDIO = AudioFormat(8000, 1, 16000)


def answers(predictor: Predictor, *files: Path) -> list[Answer]:
    found = list(predictor.predict(files))
    assert all(isinstance(one, Answer) for one in found), found
    return found  # type: ignore[return-value]


def untrained(home: Path, name: str, knobs: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    built = family(name).build(family(name).config(**knobs), LABELS, AUDIO)
    about = {"family": name, "values": knobs, "scenes": list(LABELS.scenes), "events": list(LABELS.events)}
    about |= {"tags": None, "audio": {"sample_rate": 8000, "channels": 1, "samples": 16000}, "metrics": {}}
    return write_model(home / name, built.state_dict(), about)


def noise(path: Path, seconds: float, seed: int = 0, rate: int = 8000) -> Path:
    draw = np.random.default_rng(seed)
    soundfile.write(path, 0.1 * draw.standard_normal(round(seconds * rate)), rate)
    return path


def test_the_scenes_of_the_test_split_are_named_at_the_accuracy_that_the_run_states(
    model: Path, tested_run: RunFolder, recordings: dict[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    stated = json.loads((tested_run.path / "test.json").read_text())["metrics"]["test/scene_accuracy"]
    folder = next(iter(recordings)).parent
    assert main([str(model), str(folder), "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(said) == len(recordings) == 24
    right = [one["scene"] == recordings[Path(one["file"])] for one in said]
    assert np.mean(right) == stated == load_model(model)[1]["metrics"]["test/scene_accuracy"]
    assert 0.1 < stated < 1  # neither chance nor a matter of course


def test_its_numbers_are_the_models_own(model: Path, recordings: dict[Path, str]) -> None:
    net, about = load_model(model)
    predictor = Predictor(model, batch=5, top_events=3)
    assert predictor.calibration is not None
    for one, path in zip(answers(predictor, *recordings), recordings):
        waveform = torch.from_numpy(soundfile.read(path, dtype="float32", always_2d=True)[0].T[None].copy())
        with torch.no_grad():
            output = net(torch.nn.functional.pad(waveform, (0, 13600 - waveform.shape[-1])))
        expected = (output.scene_logits / predictor.calibration.temperature).softmax(1)[0]
        for scene, probability in zip(about["scenes"], expected.tolist()):
            assert one.scenes[scene] == pytest.approx(probability, abs=1e-5)
        events = output.event_logits.sigmoid()[0]
        assert list(one.events) == [about["events"][e] for e in events.argsort(descending=True)[:3]]
        assert one.unsure == (expected.max().item() < (predictor.calibration.threshold or math.inf))
        assert one.scene == next(iter(one.scenes)) and one.probability == max(one.scenes.values())


def test_why_is_the_vote_of_the_events_to_the_last_digit(model: Path, recordings: dict[Path, str]) -> None:
    """Algorithm 1: what the events gave to the scene against the runner-up is ỹ_s of the two."""
    net, about = load_model(model)
    for one, path in zip(answers(Predictor(model), *recordings), recordings):
        waveform = torch.from_numpy(soundfile.read(path, dtype="float32", always_2d=True)[0].T[None].copy())
        with torch.no_grad():
            output = net(torch.nn.functional.pad(waveform, (0, 13600 - waveform.shape[-1])))
        first, second = (about["scenes"].index(name) for name in list(one.scenes)[:2])
        vote = output.scene_from_event[0]
        assert one.why is not None and one.why.kind == "coupling"
        assert one.why.against == about["scenes"][second]
        assert one.why.total == pytest.approx((vote[first] - vote[second]).item(), abs=1e-5)
        gave = [reason.contribution for reason in one.why.reasons]
        assert gave == sorted(gave, reverse=True) and all(g > 0 for g in gave)
        for reason in one.why.reasons:  # by a loop over the paper's symbols
            e = about["events"].index(reason.events[0])
            scene, event = net.scene_classifier.weight, net.event_classifier.weight
            a = [torch.softmax(scene[s] @ event.T, 0)[e] for s in (first, second)]
            z = event[e] @ output.event_embedding[0]
            assert reason.contribution == pytest.approx(((a[0] - a[1]) * z).item(), abs=1e-5)


def test_a_long_recording_is_the_mean_of_its_windows_by_what_each_adds(model: Path, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal(8000 * 4) * np.linspace(0.01, 0.3, 32000)
    soundfile.write(tmp_path / "long.wav", samples, 8000, subtype="FLOAT")
    cuts = windows(32000, 13600)
    assert len(cuts) == 3
    for n, window in enumerate(cuts):
        piece = samples[window.start : window.start + 13600]
        soundfile.write(tmp_path / f"{n}.wav", piece, 8000, subtype="FLOAT")
    predictor = Predictor(model, batch=2)
    whole, *parts = answers(predictor, tmp_path / "long.wav", *(tmp_path / f"{n}.wav" for n in range(3)))
    for scene, probability in whole.scenes.items():
        mean = sum(window.weight * part.scenes[scene] for window, part in zip(cuts, parts))
        assert probability == pytest.approx(mean, abs=1e-5)
    for event, probability in whole.events.items():
        assert probability == pytest.approx(max(part.events.get(event, 0) for part in parts), abs=1e-5)
    assert "3 windows: the scenes averaged, the largest of each event" in whole.notes and whole.seconds == 4


def test_neighbours_in_a_batch_change_nothing(model: Path, tmp_path: Path) -> None:
    files = [noise(tmp_path / f"{n}.wav", seconds, n) for n, seconds in enumerate((1.7, 0.3, 9.1, 2.0))]
    together = answers(Predictor(model, batch=4), *files)
    alone = [answers(Predictor(model, batch=1), file)[0] for file in files]
    for a, b in zip(together, alone):
        assert list(a.scenes) == list(b.scenes)
        assert np.allclose(list(a.scenes.values()), list(b.scenes.values()), atol=1e-5)
    assert together[1].notes[0] == "shorter than the model's 1.7 s: followed by silence"


def test_a_recording_that_is_mostly_the_silence_after_it_is_never_sure(model: Path, tmp_path: Path) -> None:
    """The threshold comes from whole clips; a model may be certain of what silence sounds like to it."""
    files = [noise(tmp_path / f"{n}.wav", seconds) for n, seconds in enumerate((0.8, 0.9, 1.7))]
    predictor = Predictor(model)
    assert predictor.calibration is not None
    predictor.calibration = replace(predictor.calibration, threshold=0.0)
    short, half, whole = answers(predictor, *files)
    assert (short.unsure, half.unsure, whole.unsure) == (True, False, False)
    assert short.notes[1] == "less than half of that: never called sure" and len(half.notes) == 1
    assert "UNSURE" in text(short)


def test_what_cannot_be_read_gets_its_line_and_stops_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / 'a "quoted" it\'s\nname.wav'
    noise(odd, 1)
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "zero.wav").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    names = [str(odd), *(str(tmp_path / n) for n in ("text.wav", "zero.wav", "none.wav", "empty")), str(odd)]
    assert main([str(model), *names]) == 1
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if not line.startswith("  ")]
    assert len(lines) == 6 and "Traceback" not in out + err
    assert lines[0] == lines[5] and r'a "quoted" it\'s' not in lines[0] and r"\nname.wav" in lines[0]
    assert [line.split("error: ")[1][:15] for line in lines[1:5]] == [
        "no audio: Forma", "the file is emp", "No such file or", "a folder withou",
    ]  # fmt: skip
    assert err == "4 of 6 recordings could not be answered\n"
    assert main([str(model), *names, "--json"]) == 1
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(one) == {"file", "error"} for one in said] == [False, True, True, True, True, False]


def test_names_come_from_folders_and_from_standard_input(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.flac", "._a.flac", "notes.txt", "deep/c.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    inside = [tmp_path / name for name in ("a.flac", "b.WAV", "deep/c.mp3")]
    assert list(listed([str(tmp_path)])) == inside
    assert list(listed(["-"], io.StringIO(f"{tmp_path}\n\nx y.wav\n"))) == [*inside, Path("x y.wav")]
    assert list(listed(["-"], io.StringIO("a\nb.wav\0c.wav\0"))) == [Path("a\nb.wav"), Path("c.wav")]
    (tmp_path / "none").mkdir()
    assert [type(one) for one in listed([str(tmp_path / "none")])] == [Failed]


def test_events_over_time_come_from_the_frames(tmp_path: Path) -> None:
    """Frames of two seconds' windows laid end to end, against those of the windows one by one."""
    model = untrained(tmp_path, "bigru_mtl", {"width": 0.06})
    path = noise(tmp_path / "long.wav", 5.3)
    predictor = Predictor(model, batch=2)
    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    net: Any = predictor.model
    with torch.no_grad():  # so that every event comes and goes
        net.event_classifier.bias -= net(samples[None, None, :16000]).frame_logits[0].median(0).values
    found = answers(predictor, path)[0]
    frames = torch.zeros(265, 4)
    done = 0
    for start in (0, 16000, 26400):  # the last window ends with the recording, on a frame's edge
        piece = torch.nn.functional.pad(samples[start : start + 16000], (0, max(0, start + 16000 - 42400)))
        with torch.no_grad():
            answered = predictor.model(piece[None, None]).frame_logits[0].sigmoid()
        first = start // 160
        stop = min(first + 100, 265)
        frames[done:stop] = answered[done - first : stop - first]
        done = stop
    expected = []
    for e, name in enumerate(LABELS.events):
        t = 0
        while t < 265:
            stop = t
            while stop < 265 and frames[stop, e] >= 0.5:
                stop += 1
            if stop > t:
                expected.append(Span(name, t * 0.02, stop * 0.02, frames[t:stop, e].max().item()))
            t = max(stop, t + 1)
    assert found.spans is not None and len(found.spans) == len(expected) > 0
    for ours, theirs in zip(found.spans, sorted(expected, key=lambda s: (s.onset, s.offset, s.event))):
        assert (ours.event, ours.onset) == (theirs.event, pytest.approx(theirs.onset))
        assert ours.offset == pytest.approx(theirs.offset)
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)
    assert found.why is None and "s  " in text(found)


def test_the_edges_of_the_graph_sum_to_the_gradient_of_the_logits(tmp_path: Path) -> None:
    model = untrained(tmp_path, "ergl", {"width": 0.06, "n_events": 3, "node_width": 8, "dropout": 0.0})
    predictor = Predictor(model)
    net: Any = predictor.model
    with torch.no_grad():
        for layer in net.graph:
            layer.node_norm.running_var.uniform_(0.5, 2)
            layer.node_norm.running_mean.uniform_(-0.3, 0.3)
    reasons = predictor.reasons
    assert reasons is not None and reasons.kind == "edges"
    waveform = 0.1 * torch.randn(2, 1, 16000)
    with torch.no_grad(), reasons.listening():  # type: ignore[attr-defined]
        pull = reasons.pull(net(waveform))
    last = net.graph[-1]
    nodes, edges = (x.detach() for x in reasons.heard)  # type: ignore[attr-defined]
    own, sent, start, end = last.nodes(nodes).chunk(4, -1)
    gate = (last.edges(edges) + start[:, None] + end[:, :, None]).sigmoid()
    message = (gate * sent[:, None] / (gate.sum(2, keepdim=True) + 1e-6)).detach().requires_grad_()
    mixed = nodes + torch.relu(last.node_norm((own.detach() + message.sum(2)).flatten(0, 1))).view_as(nodes)
    logits = net.scene_classifier(mixed.flatten(1))
    with torch.no_grad():
        assert torch.allclose(logits, net(waveform).scene_logits, atol=1e-5)  # the graph's own end
    for b in range(2):
        for s in range(3):
            gradient = torch.autograd.grad(logits[b, s], message, retain_graph=True)[0]
            expected = (gradient * message)[b].sum(-1)  # (i, j)
            assert torch.allclose(pull[b, s], expected.detach().flatten(), atol=1e-6)
    columns = [LABELS.events[c] for c in net.columns.tolist()]
    assert reasons.names[1] == (columns[1], columns[0]) and reasons.names[3] == (columns[0], columns[1])
    one = answers(predictor, noise(tmp_path / "a.wav", 1))[0]
    assert one.why is not None and len(one.why.reasons) <= 5 and "→" in text(one)


def test_a_fixed_relation_gives_its_terms(tmp_path: Path) -> None:
    model = untrained(tmp_path, "csem", {"backbone": "tinycnn", "framework": "rgasc", "width": 0.1})
    predictor = Predictor(model)
    net: Any = predictor.model
    net.relation.prior.copy_(torch.rand(3, 4))
    one = answers(predictor, noise(tmp_path / "a.wav", 2))[0]
    waveform = torch.from_numpy(soundfile.read(tmp_path / "a.wav", dtype="float32")[0])[None, None]
    with torch.no_grad():
        vote = net(waveform).scene_from_event[0]
    first, second = (LABELS.scenes.index(name) for name in list(one.scenes)[:2])
    assert one.why is not None and one.why.kind == "prior"
    assert one.why.total == pytest.approx((vote[first] - vote[second]).item(), abs=1e-5)


def test_a_model_without_calibration_or_events_says_so(tmp_path: Path) -> None:
    model = untrained(tmp_path, "csem", {"backbone": "tinycnn", "framework": "scene_only", "width": 0.1})
    one = answers(Predictor(model), noise(tmp_path / "a.wav", 2))[0]
    assert one.unsure is None and one.events == {} and one.why is None and one.spans is None
    assert "(not calibrated)" in text(one)


def test_a_diverged_model_gives_no_answer(tmp_path: Path) -> None:
    model = untrained(tmp_path, "csem", {"backbone": "tinycnn", "framework": "mlhe", "width": 0.1})
    predictor = Predictor(model)
    with torch.no_grad():
        predictor.model.scene_classifier.bias[0] = math.nan  # type: ignore[index, union-attr]
    found = list(predictor.predict([noise(tmp_path / "a.wav", 2)]))
    assert found == [Failed(str(tmp_path / "a.wav"), "the model's answer is not a number")]


def test_mistakes_are_one_line(
    model: Path,
    tested_run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        out, err = capsys.readouterr()
        assert err.startswith("error: ") and err.count("\n") == 1 and out == ""
        return err

    clip = str(noise(tmp_path / "a.wav", 1))
    assert "no model there" in refused(str(tmp_path / "nothing"), clip)
    assert "this is a run: python -m trainables.export" in refused(str(tested_run.path), clip)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    assert "this is a study: name a model" in refused(str(tmp_path / "study"), clip)
    shutil.copytree(model, tmp_path / "study" / "best")
    assert "this is a study: name its best/" in refused(str(tmp_path / "study"), clip)
    half = tmp_path / "half"
    shutil.copytree(model, half)
    (half / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:500])
    assert "a damaged model" in refused(str(half), clip)
    (half / "model.safetensors").unlink()
    assert "no model there (expected model.safetensors" in refused(str(half), clip)
    assert "no recording is named" in refused(str(model))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert "no recording is named on standard input" in refused(str(model), "-")
    assert "--top-events -1" in refused(str(model), clip, "--top-events", "-1")
    assert "--device tpu: expected cpu or cuda" in refused(str(model), clip, "--device", "tpu")


def test_a_model_that_reads_tags_asks_for_its_tagger(
    model: Path, tmp_path: Path, source: Source, recordings: dict[Path, str]
) -> None:
    from trainables.weights import file_checksum

    labels = LabelSpace(LABELS.scenes, (), tags=source.index.labels.events)
    torch.manual_seed(0)
    built = family("tagvector").build(
        family("tagvector").config(width=0.06), labels, AudioFormat(8000, 1, 32000)
    )
    about = {"family": "tagvector", "values": {"width": 0.06}, "scenes": list(LABELS.scenes), "events": []}
    tags = {
        "names": list(labels.tags),
        "model": "tagger",
        "checksum": file_checksum(model / "model.safetensors"),
    }
    audio = {"sample_rate": 8000, "channels": 1, "samples": 32000}
    folder = write_model(tmp_path / "m", built.state_dict(), about | {"tags": tags, "audio": audio})
    with pytest.raises(ValueError, match="reads the 12 tags of tagger .* name that tagger with --teacher"):
        Predictor(folder)
    clip = next(iter(recordings))
    one = answers(Predictor(folder, teacher=model), clip)[0]
    tagger, _ = load_model(model)
    waveform = torch.from_numpy(soundfile.read(clip, dtype="float32")[0])[None, None]
    with torch.no_grad():
        tagged = tagger(waveform).event_logits.sigmoid().half().float()
        padded = torch.nn.functional.pad(waveform, (0, 32000 - waveform.shape[-1]))
        expected = load_model(folder)[0](padded, tagged).scene_logits.softmax(1)[0]
    assert [one.scenes[name] for name in LABELS.scenes] == pytest.approx(expected.tolist(), abs=1e-5)
    other = untrained(tmp_path, "csem", {"backbone": "tinycnn", "framework": "mlhe", "width": 0.1})
    with pytest.raises(ValueError, match="is another"):
        Predictor(folder, teacher=other)
    with pytest.raises(ValueError, match=f"--teacher {other}: {model} reads no tags; leave it out"):
        Predictor(model, teacher=other)
