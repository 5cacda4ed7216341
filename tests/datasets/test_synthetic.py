import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets import synthetic
from datasets.shards import Index, read_labels, read_members
from datasets.synthetic import EVENT_PRIOR, EVENTS, SCENES, TEXTURE_PRIOR

SIZE = {"train": 20, "val": 10, "test": 10, "seconds": 0.3, "sample_rate": 8000}


def test_two_builds_are_bit_identical_and_seeds_matter(tmp_path: Path) -> None:
    first, second = (synthetic.build(tmp_path / name, **SIZE) for name in "ab")
    assert first.checksum == second.checksum and first.splits == second.splits
    assert synthetic.build(tmp_path / "c", **SIZE, seed=1).checksum != first.checksum


def test_clips_and_labels(tiny: Index) -> None:
    assert tiny.labels.scenes == SCENES and tiny.labels.events == EVENTS
    assert {name: split.clips for name, split in tiny.splits.items()} == {"train": 43, "val": 17, "test": 10}
    for number, labels in enumerate(read_labels(tiny, "train")):
        sound, rate = soundfile.read(io.BytesIO(read_members(tiny, "train", number)["flac"]))
        assert rate == 8000 and len(sound) == 2000
        assert np.sqrt(np.mean(sound**2)) > 0.001 and np.abs(sound).max() <= 0.99
        assert labels.strong is not None and {name for _, _, name in labels.strong} == set(
            labels.events or ()
        )
        assert all(0 <= onset < offset <= 0.25 for onset, offset, _ in labels.strong)


def test_locations_are_not_shared_between_splits() -> None:
    recipes = {split: synthetic.recipes(split, 200, 0) for split in ("train", "val", "test")}
    seeds = {split: {recipe.location.seed for recipe in part} for split, part in recipes.items()}
    assert (
        not seeds["train"] & seeds["val"]
        and not seeds["train"] & seeds["test"]
        and not seeds["val"] & seeds["test"]
    )
    assert len(seeds["train"]) == 160 and len(seeds["val"]) == 80
    assert set(Counter(recipe.scene for recipe in recipes["train"]).values()) == {20}
    clips = [recipe.seed for part in recipes.values() for recipe in part]
    assert len(set(clips)) == len(clips)


def test_events_follow_their_prior() -> None:
    counts = np.zeros_like(EVENT_PRIOR)
    rng = np.random.default_rng(0)
    for s, scene in enumerate(SCENES):
        for _ in range(600):
            for event in set(synthetic._present(scene, rng)):
                counts[s, EVENTS.index(event)] += 1
    assert np.abs(counts / 600 - EVENT_PRIOR).max() < 0.08  # four standard deviations


def test_nothing_gives_the_scene_away() -> None:
    assert (EVENT_PRIOR > 0).all() and (TEXTURE_PRIOR > 0).all()
    assert np.allclose(TEXTURE_PRIOR.sum(1), 1)
    assert (EVENT_PRIOR / EVENT_PRIOR.sum(0)).max() < 0.5
    assert (TEXTURE_PRIOR / TEXTURE_PRIOR.sum(0)).max() < 0.85


@pytest.mark.parametrize("event", EVENTS)
def test_the_mixing_is_at_the_stated_ratio(event: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one event in the clip, mixture minus background has the drawn level over the event's length."""
    recipe = synthetic.recipes("train", 10, 0)[0]
    monkeypatch.setattr(synthetic, "_present", lambda scene, rng: [])
    quiet, none = synthetic.render(recipe, 2.0, 16000)
    assert none.events == () and none.strong == ()
    monkeypatch.setattr(synthetic, "_present", lambda scene, rng: [event])
    monkeypatch.setattr(synthetic, "SNR_DB", (-6.0, -6.0))
    mixture, labels = synthetic.render(recipe, 2.0, 16000)
    ((onset, offset, name),) = labels.strong or ()
    first, stop = round(onset * 16000), round(offset * 16000)
    difference = mixture - quiet
    assert name == event and not difference[:first].any() and not difference[stop:].any()
    ratio = np.sqrt(np.mean(difference[first:stop] ** 2)) / np.sqrt(np.mean(quiet**2))
    assert 20 * np.log10(ratio) == pytest.approx(-6.0, abs=0.1)
    assert -38.0 <= 20 * np.log10(np.sqrt(np.mean(quiet**2))) <= -26.0


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_every_sound_is_finite_and_audible(rate: int) -> None:
    rng = np.random.default_rng(0)
    for name, texture in synthetic._TEXTURES.items():
        sound = texture(rate // 2, rate, np.random.default_rng(1), rng)
        assert sound.shape == (rate // 2,) and np.isfinite(sound).all() and sound.std() > 1e-3, name
    for event in EVENTS:
        sound = synthetic.event_sound(event, 0.6, rate, rng)
        assert np.isfinite(sound).all() and sound.std() > 1e-3 and len(sound) <= 0.3 * rate + 1, event


def test_ensure_builds_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = synthetic.build, []

    def small(out: Path) -> Index:
        calls.append(out)
        return real(out, **SIZE)

    monkeypatch.setattr(synthetic, "build", small)
    assert synthetic.ensure(tmp_path) == synthetic.ensure(tmp_path) == calls[0]
    assert len(calls) == 1 and Index.load(calls[0]).corpus == "synthetic"


def test_bad_sizes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--clips", "3"], "train: 3 clips are fewer than the 10 scenes"),
        (["--seconds", "0"], "a clip of 0.0 s"),
        (["--sample-rate", "100"], "a sampling rate of 100 Hz"),
        (["--seed", "-1"], "seed -1 is negative"),
    ):
        assert synthetic.main(["--out", str(tmp_path / "out"), *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}") and error.count("\n") == 1
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert synthetic.main(["--out", str(tmp_path / "full")]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--clips", "10", "--seconds", "0.2", "--sample-rate", "8000"]
    assert synthetic.main(["--out", str(tmp_path / "new" / "out"), *options]) == 0
    assert "10 train, 10 val, 10 test" in capsys.readouterr().out
