"""The words: ranges hold the papers' values, and a conditional space built of them works in a real study."""

import inspect
import json
import warnings

import optuna
import pytest

from datasets.labels import LabelSpace
from searchspace import dimensions
from searchspace.pins import Pinned, Replayed
from trainables.families.csem import RELEASED, TWO_BRANCHES, suggest

LABELS = LabelSpace(("a", "b"), ("x", "y"))
INSIDE = {
    "shared_layers": ((6,), [1, 2, 6], [0, 7]),
    "loss_weight": (("w_event",), [0.01, 0.1, 0.5, 1.0], [1e-4, 3.0]),
    "auxiliary_share": ((), [0.0, 0.5, 0.95, 0.99], [1.0]),
    "scene_weight": ((), [0.1, 1.0], [0.01, 3.0]),
    "learning_rate": ((), [1e-3], [1e-6, 1.0]),
    "weight_decay": ((), [1e-4, 1e-2], [0.5]),
    "dropout": ((), [0.0, 0.2, 0.3], [0.9]),
    "mixup": ((), [0.0, 0.1, 0.2], [0.25, 0.6]),
}
KNOBS = {
    "loss_weight": "w_event",
    "scene_weight": "w_scene",
    "auxiliary_share": "alpha",
    "learning_rate": "lr",
}


@pytest.mark.parametrize("word", INSIDE)
def test_numeric_words_hold_the_papers_values_and_refuse_others(word: str) -> None:
    arguments, inside, outside = INSIDE[word]
    knob = KNOBS.get(word, word)
    for value in inside:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trial = optuna.trial.FixedTrial({knob: value, f"{knob} off": False})
            assert getattr(dimensions, word)(trial, *arguments) == value
    for value in outside:
        with pytest.warns(UserWarning, match="out of the range"):
            trial = optuna.trial.FixedTrial({knob: value, f"{knob} off": False})
            getattr(dimensions, word)(trial, *arguments)


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("optimiser", ["adam", "adamw", "radam"]),
        ("schedule", ["none", "cosine"]),
        ("spec_augment", [False, True]),
        ("embedding", [100, 512, 1024, 2048]),
    ],
)
def test_choices(word: str, values: list) -> None:
    for value in values:
        assert getattr(dimensions, word)(optuna.trial.FixedTrial({word: value})) == value
    with pytest.raises(ValueError):
        getattr(dimensions, word)(optuna.trial.FixedTrial({word: "sgd"}))


def test_every_word_says_what_it_means() -> None:
    words = [
        f
        for n, f in vars(dimensions).items()
        if inspect.isfunction(f) and f.__module__ == dimensions.__name__
    ]
    numeric = [f for f in words if f.__name__ not in ("choice", "switch", "optimiser")]
    assert all(f.__doc__ for f in numeric) and len(words) >= 10


def test_csem_space_asks_only_what_applies() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = set()
    for _ in range(200):
        trial = study.ask()
        knobs = suggest(trial, LABELS)
        seen.add((knobs["backbone"], knobs["framework"]))
        assert ("shared_layers" in knobs) == (knobs["framework"] in TWO_BRANCHES)
        assert ("w_event" in knobs) == ("w_scene" in knobs) == (knobs["framework"] != "scene_only")
        assert ("relation_loss" in knobs) == ("w_scene_from_event" in knobs) == (knobs["framework"] == "csem")
        assert ("weight_decay" in knobs) == (knobs["optimiser"] == "adamw")
        if "shared_layers" in knobs:
            assert 1 <= knobs["shared_layers"] <= RELEASED[knobs["backbone"]].blocks
        low, high = (1e-7, 1e-3) if knobs["backbone"] == "ast" else (1e-4, 1e-2)
        assert low <= knobs["lr"] <= high
        assert json.loads(json.dumps(knobs)) == knobs
    assert len(seen) == 20
    assert len(suggest(optuna.create_study().ask(), LABELS)) <= 17


def test_a_weight_can_be_off_by_a_choice_of_its_own_and_by_a_pin() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [dimensions.loss_weight(study.ask(), "w_event") for _ in range(40)]
    assert 10 < drawn.count(0.0) < 30 and min(value for value in drawn if value) >= 1e-3
    for weight in (0.0, 0.5):
        replayed = Replayed({"w_event": weight})
        assert dimensions.loss_weight(replayed, "w_event") == weight  # type: ignore[arg-type]
        expected = {"w_event off": True} if not weight else {"w_event off": False, "w_event": 0.5}
        assert replayed.params == expected
        trial = study.ask()
        assert dimensions.loss_weight(Pinned(trial, {"w_event": weight}), "w_event") == weight  # type: ignore[arg-type]
        assert trial.params == {}
    fresh = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [fresh.ask() for _ in range(20)]
    chosen = {dimensions.loss_weight(Pinned(one, {"w_event": (0.0, 0.5)}), "w_event") for one in trials}  # type: ignore[arg-type]
    assert chosen == {0.0, 0.5} and all(list(one.params) == ["w_event"] for one in trials)


def test_multivariate_grouped_tpe_learns_through_the_conditions() -> None:
    """Shared layers and learning rate have other ranges with other backbones; a stored study must take that
    without complaint.
    """
    study = optuna.create_study(
        storage="sqlite:///:memory:",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, n_startup_trials=15),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for _ in range(60):
            trial = study.ask()
            knobs = suggest(trial, LABELS)
            study.tell(trial, float(knobs["backbone"] == "pann") + float(knobs["framework"] == "csem"))
    late = [t.params for t in study.trials[40:]]
    assert sum(p["backbone"] == "pann" for p in late) > 10
