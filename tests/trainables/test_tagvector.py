import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.svm import SVC
from torch import Tensor

from datasets import synthetic
from datasets.batch import Batch
from datasets.labels import LabelSpace
from datasets.shards import Index, Tags
from datasets.source import Source, open_source
from datasets.tagged import tagged_index, write_tagged
from reports.again import predict_command, tagger_of
from searchspace.papers.jung2020 import ROWS
from trainables.contract import AudioFormat, answer, answer_features, tags_read
from trainables.describe import describe
from trainables.evaluators import choose_svm, codes
from trainables.export import export_run, load_model
from trainables.families.tagvector import Config, TagConditionedResNet, build
from trainables.recipe import configure
from trainables.run import Run
from trainables.taggers import load_tagger
from trainables.trained import open_trained

SCENES = tuple(f"scene {i}" for i in range(10))
LABELS = LabelSpace(SCENES, (), tags=tuple(f"tag {k}" for k in range(80)))
TAU = AudioFormat(48_000, 2, 480_000)
SHORT = AudioFormat(16_000, 1, 26_245)
# The tensors of the 2019 code's released network in order, but for the biases and BatchNorm's: facts §6.
CODE2019_WEIGHTS = (
    (128, 2, 12), (128,),
    (64, 128, 3), (64,), (64, 64, 3), (64,), (64, 128, 3),
    (64, 64, 3), (64,), (64, 64, 3), (64,),
    (128, 64, 3), (128,), (128, 128, 3), (128,), (128, 64, 3),
    *((128, 128, 3), (128,)) * 8,
    (128, 128, 1), (128,),
    (128, 256), (10, 128),
)  # fmt: skip


def made(labels: LabelSpace = LABELS, audio: AudioFormat = SHORT, **knobs: Any) -> TagConditionedResNet:
    torch.manual_seed(0)
    return build(Config(**knobs), labels, audio)


def counted(**knobs: Any) -> int:
    found = describe("tagvector", knobs, LABELS, TAU)
    return found["parameters"]


def test_table_1_as_printed_has_714058_parameters() -> None:
    assert counted(tag_use="none") == 714_058


def test_the_2019_network_has_its_636736_parameters_and_its_tensors() -> None:
    assert counted(tag_use="none", widths="code2019", code_width=128) == 636_736
    model = made(audio=TAU, tag_use="none", widths="code2019", code_width=128)
    state = {n: tuple(t.shape) for n, t in model.state_dict().items() if not n.startswith("frontend.")}
    assert tuple(shape for n, shape in state.items() if n.endswith("weight")) == CODE2019_WEIGHTS
    biases = [n for n in state if n.endswith(".bias")]
    assert len(biases) == len(CODE2019_WEIGHTS) - 1 and "scene_classifier.bias" not in biases
    assert sum("running_mean" in n for n in state) == 16 and len(state) == 119


def test_table_6_counts_the_2019_network_with_as_many_outputs_a_tag_layer_as_tags() -> None:
    (ours,) = [row for row in ROWS if row.table == "6" and row.trainable]
    (printed,) = [row for row in ROWS if row.row == "Ours" and row.metric == "parameters"]
    config, _ = configure("tagvector", ours.values)
    found = sum(p.numel() for p in build(config, LABELS, TAU).parameters())
    assert found == 676_784 and found // 1000 * 1000 == printed.value


def test_tag_layers_are_counted_as_they_are_built() -> None:
    baseline = 714_058
    fc = 80 * 80 + 80
    into_map, into_code = 80 * 128 + 128, 80 * 64
    assert counted(tag_use="concat", concat="codecat", concat_layers=0) == baseline + 80 * 10
    assert counted(tag_use="concat", concat="codecat_transform", concat_layers=0) == baseline + 144 * 64 + 64
    for layers in range(6):
        assert counted(tag_use="concat", concat_layers=layers) == baseline + into_code + layers * fc
    for layers in range(5):
        for heads in (2, 4, 8, 16, 32):
            found = counted(tag_use="attention", attention_layers=layers, heads=heads)
            assert found == baseline + into_map + layers * fc
    both = baseline + into_code + into_map
    assert counted(shared_tag_layers=True, concat_layers=3) == both + 3 * fc
    assert counted(shared_tag_layers=False, concat_layers=3, attention_layers=4) == both + 7 * fc


def layer_by_layer(model: TagConditionedResNet, config: Config, waveform: Tensor, tags: Tensor) -> Tensor:
    """Scene logits from the weights alone, as Jung et al. 2020 §3 and Table 1 say, in evaluation."""
    w = model.state_dict()

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = w[f"{name}.running_mean"][:, None], w[f"{name}.running_var"][:, None]
        return (x - mean) / (var + 1e-5).sqrt() * w[f"{name}.weight"][:, None] + w[f"{name}.bias"][:, None]

    def conv(x: Tensor, name: str, **options: int) -> Tensor:
        return torch.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def leaky(x: Tensor) -> Tensor:
        return torch.maximum(x, torch.zeros(())) + 0.3 * torch.minimum(x, torch.zeros(()))

    def transformed(name: str, layers: int) -> Tensor:
        t = tags
        for layer in range(layers):
            t = leaky(linear(t, f"{name}.{2 * layer}"))
        return t

    x = waveform[:, :, 1:] - 0.97 * waveform[:, :, :-1]
    x = leaky(norm(conv(x, "trunk.0.0", stride=12), "trunk.0.1"))
    for block in range(1, 8):
        y = leaky(norm(conv(x, f"trunk.{block}.conv1", padding=1), f"trunk.{block}.bn1"))
        y = norm(conv(y, f"trunk.{block}.conv2", padding=1), f"trunk.{block}.bn2")
        widened = f"trunk.{block}.widen"
        x = leaky(y + (conv(x, widened, padding=1) if f"{widened}.weight" in w else x))
        x = torch.stack([x[:, :, 3 * i : 3 * i + 3].amax(2) for i in range(x.shape[2] // 3)], 2)
    if config.widths == "code2019":
        x = leaky(norm(conv(x, "trunk.8.0", padding=3), "trunk.8.1"))
    beside = transformed("concat_tags", config.concat_layers) if config.concatenates else tags
    if config.attends:
        shared = config.shared_tag_layers and config.concatenates
        attended = beside if shared else transformed("attend_tags", config.attention_layers)
        groups = linear(attended, "attention.map").chunk(config.heads, 1)
        x = x * torch.cat([group.softmax(1) for group in groups], 1)[:, :, None]
    x = torch.cat([x.mean(2), x.amax(2)], 1)
    if not config.concatenates:
        return linear(linear(x, "code"), "scene_classifier")
    if config.concat == "before_code":
        return linear(linear(torch.cat([x, beside], 1), "code"), "scene_classifier")
    code = torch.cat([linear(x, "code"), beside], 1)
    if config.concat == "codecat_transform":
        code = linear(code, "transform")
    return linear(code, "scene_classifier")


@pytest.mark.parametrize(
    "knobs",
    [
        {"tag_use": "none"},
        {"tag_use": "none", "widths": "code2019"},
        {"tag_use": "concat", "concat": "codecat", "concat_layers": 0},
        {"tag_use": "concat", "concat": "codecat_transform", "concat_layers": 1},
        {"tag_use": "concat", "concat_layers": 2},
        {"tag_use": "attention", "attention_layers": 2, "heads": 8},
        {"tag_use": "both", "concat_layers": 3, "heads": 4},
        {"shared_tag_layers": False, "concat_layers": 1, "attention_layers": 0, "widths": "code2019"},
    ],
    ids=str,
)
def test_the_answer_is_that_of_the_layers_one_by_one(knobs: dict[str, Any]) -> None:
    config = Config(**knobs, width=0.125)
    model = made(**knobs, width=0.125)
    draw = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():  # running statistics away from 0 and 1
        if "running" in name:
            tensor.uniform_(0.5, 1.5, generator=draw)
    waveform = torch.randn(2, 1, 3 * 26_244, generator=draw)
    tags = torch.rand(2, 80, generator=draw)
    with torch.no_grad():
        ours = model.eval()(waveform, tags).scene_logits
        torch.testing.assert_close(ours, layer_by_layer(model, config, waveform, tags), rtol=1e-4, atol=1e-5)


def batch(tags: int, clips: int = 2) -> Batch:
    none = torch.zeros(clips, 0)
    return Batch(
        torch.randn(clips, 1, 26_245), torch.eye(10)[:clips], none, none, torch.arange(clips),
        torch.rand(clips, tags),
    )  # fmt: skip


def test_another_clips_tags_change_the_answer_but_for_the_baseline() -> None:
    clips = batch(80)
    other = replace(clips, tags=clips.tags.flip(0))
    for use in ("none", "concat", "attention", "both"):
        model = made(tag_use=use, width=0.125).eval()
        assert tags_read(model) == (0 if use == "none" else 80)
        with torch.no_grad():
            same = torch.equal(answer(model, clips).scene_logits, answer(model, other).scene_logits)
        assert same == (use == "none")


def test_a_data_parallel_model_is_given_its_tags_too(tmp_path: Path) -> None:
    model, clips = made(width=0.125).eval(), batch(80)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        assert tags_read(parallel) == 80
        with torch.no_grad():
            found, plain = (answer(m, clips).scene_logits for m in (parallel, model))
        assert torch.equal(found, plain)
    finally:
        dist.destroy_process_group()


def test_tags_of_another_length_are_refused() -> None:
    model = made(width=0.125)
    with pytest.raises(ValueError, match="clips with 32 tags; 80 expected"):
        answer(model, batch(32))
    with pytest.raises(ValueError, match="clips with 0 tags; 80 expected"):
        model(batch(80).waveform)


def test_features_alone_are_answered_with_tags_of_zeros() -> None:
    model, clips = made(width=0.125).eval(), batch(80)
    with torch.no_grad():
        x = model.frontend(clips.waveform)
        zeros = model(clips.waveform, torch.zeros(2, 80)).scene_logits
        assert torch.equal(answer_features(model, x).scene_logits, zeros)


@pytest.mark.parametrize(
    ("knobs", "labels", "audio", "said"),
    [
        ({}, replace(LABELS, tags=()), SHORT, "the shards hold none: `python -m trainables.teacher SHARDS"),
        ({}, LabelSpace((), ("dog",), tags=LABELS.tags), SHORT, "needs scene labels"),
        ({"heads": 3}, LABELS, SHORT, "heads=3 do not divide the 128 filters"),
        ({}, LABELS, replace(SHORT, samples=26_244), "the network needs 26245 samples, 1.64 s"),
        ({"crop": 1.0}, LABELS, SHORT, "crop=1 s at 16000 Hz: the network needs 26245 samples"),
    ],
)
def test_what_cannot_be_built_is_one_line(
    knobs: dict[str, Any], labels: LabelSpace, audio: AudioFormat, said: str
) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        made(labels, audio, **knobs)
    assert "\n" not in str(refused.value)


def test_the_baseline_needs_no_tags() -> None:
    assert made(replace(LABELS, tags=()), tag_use="none", width=0.125).reads_tags == 0


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"concat_layers": 6}, "concat_layers=6: expected a number >= 0 and <= 5"),
        ({"attention_layers": 5}, "attention_layers=5: expected a number >= 0 and <= 4"),
        ({"heads": 0}, "heads=0: expected a number >= 1"),
        ({"crop": -1.0}, "crop=-1.0: expected a number >= 0"),
        ({"concat": "after"}, "expected codecat, codecat_transform or before_code"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config(**knobs)


def test_every_cell_of_the_tables_is_a_row_that_can_be_built() -> None:
    cells = {table: [row for row in ROWS if row.table == table] for table in "23456"}
    assert {table: sum(row.trainable for row in rows) for table, rows in cells.items()} == {
        "2": 8, "3": 20, "4": 8, "5": 20, "6": 1,
    }  # fmt: skip
    assert all(row.spread is None for row in ROWS)
    bests = {"2": 0.7566, "3": 0.7658, "4": 0.7624, "5": 0.7675}
    for table, value in bests.items():
        assert max(row.value for row in cells[table]) == value
    for row in ROWS:
        if row.trainable:
            config, _ = configure("tagvector", row.values)
            with torch.device("meta"):
                build(config, LABELS, TAU)


def test_no_two_lines_of_a_table_are_the_same_configuration() -> None:
    for table in "2345":
        values = [json.dumps(dict(row.values), sort_keys=True) for row in ROWS if row.table == table]
        assert len(set(values)) == len(values)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A few clips of 3.4 s with three tags each."""
    folder = tmp_path_factory.mktemp("corpus")
    synthetic.build(folder / "plain", train=20, val=10, test=10, seconds=3.4, sample_rate=8000)
    plain = Index.load(folder / "plain")
    tagged, draw = folder / "tagged", np.random.default_rng(0)
    tagged.mkdir()
    splits = {}
    for name, split in plain.splits.items():
        drawn = [draw.random((len(shard.clips), 3)).astype(np.float16) for shard in split.shards]
        shards = [write_tagged(plain, *one, tagged) for one in zip(split.shards, drawn)]
        splits[name] = replace(split, shards=tuple(shards))
    tagged_index(plain, splits, Tags(("dog", "rain", "car"), "teacher-1", "a" * 64), tagged).save()
    return open_source(tagged, cache=folder / "cache")


@pytest.fixture(scope="module")
def run(source: Source) -> Run:
    made = Run("tagvector", {"width": 0.0625, "batch_size": 8}, source, seed=0, epochs=2)
    made.metrics = [made.next_epoch(), made.next_epoch()]  # type: ignore[attr-defined]
    return made


def test_shards_name_their_tags_in_the_label_space(source: Source) -> None:
    assert source.index.labels.tags == ("dog", "rain", "car")
    assert replace(source.index, tags=None).labels.tags == ()
    relabelled = replace(source.index, labels=LabelSpace(SCENES, ()))
    assert relabelled.labels == LabelSpace(SCENES, (), tags=("dog", "rain", "car"))


def test_the_svm_is_reported_beside_the_softmax_after_the_last_epoch(run: Run) -> None:
    first, last = run.metrics  # type: ignore[attr-defined]
    assert "val/svm_accuracy" not in first and "val/scene_accuracy" in first
    train, val, test = (codes(run.model, run.source.eval_batches(s, 5)) for s in ("train", "val", "test"))
    accuracies = {}
    for kernel in ("rbf", "sigmoid"):
        svm = SVC(C=1, gamma="scale", kernel=kernel).fit(train.code, train.scene)
        accuracies[kernel] = [float((svm.predict(c.code) == c.scene).mean()) for c in (val, test)]
    best = max(accuracies, key=lambda kernel: accuracies[kernel][0])
    assert last["val/svm_accuracy"] == accuracies[best][0]
    assert run.score("test")[0]["svm_accuracy"] == accuracies[best][1]


def test_a_last_epoch_that_forgets_everything_leaves_the_svm_to_an_earlier_one(
    source: Source, tmp_path: Path
) -> None:
    values = {"width": 0.0625, "lr": 0.003, "batch_size": 4}
    run = Run("tagvector", values, source, seed=0, epochs=6)
    while run.epoch < 5:
        run.next_epoch()
    candidates = {epoch: dict(state) for epoch, state in run.svm.weights.items()}
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.zero_()
    run.learning_rate = lambda update: 0.0
    last = run.next_epoch()
    assert run.svm.epoch != 6 and last["val/scene_accuracy"] < last["val/svm_accuracy"]
    expected = run.score("test")[0]["svm_accuracy"]
    run.save(tmp_path / "checkpoint")
    again = Run("tagvector", values, source, seed=0, epochs=6)
    again.load(tmp_path / "checkpoint")
    assert again.score("test")[0]["svm_accuracy"] == expected and again.svm.epoch == run.svm.epoch

    found = []  # the slow way, model by model
    for epoch, state in candidates.items():
        run.model.load_state_dict(state)
        train, val, test = (codes(run.model, source.eval_batches(s, 5)) for s in ("train", "val", "test"))
        svm = choose_svm(train, val, ("rbf", "sigmoid"))
        found.append((svm.accuracy(val), epoch, svm.accuracy(test)))
    assert max(found) == (last["val/svm_accuracy"], run.svm.epoch, expected)


def test_without_an_svm_nothing_of_it_is_reported(source: Source) -> None:
    values = {"width": 0.0625, "classifier": "softmax"}
    assert not [n for n in Run("tagvector", values, source, seed=0, epochs=1).next_epoch() if "svm" in n]


def test_a_model_folder_keeps_the_tags_and_refuses_those_of_another_teacher(
    run: Run, source: Source, tmp_path: Path
) -> None:
    run.save(tmp_path / "run" / "checkpoint")
    best, index = tmp_path / "best", source.index
    export_run(tmp_path / "run", index, best)
    model, about = load_model(best)
    assert about["tags"] == {"names": ["dog", "rain", "car"], "model": "teacher-1", "checksum": "a" * 64}
    (clips,) = source.eval_batches("val", 10)
    with torch.no_grad():
        ours = answer(run.model.eval(), clips).scene_logits
        assert torch.equal(answer(model, clips).scene_logits, ours)
    assert tags_read(open_trained(best, index).model) == 3
    said = (best / "MODEL_CARD.md").read_text()
    assert "It reads 3 tags of `teacher-1`" in said and "MODEL FILE --teacher TAGGER`" in said
    assert about["reads_tags"] == 3 and about["event_outputs"] == 0 and len(about["events"]) == 12
    assert said.startswith("# tagvector: 10 scenes, no events") and "It tags no events." in said
    assert "which sound events" not in said
    assert tagger_of(best) == "teacher-1"
    assert predict_command(best) == "python -m trainables.predict best --teacher teacher-1 RECORDING …"

    assert index.tags is not None
    other = replace(index, tags=replace(index.tags, checksum="b" * 64))
    with pytest.raises(ValueError, match=r"reads the 3 tags of teacher-1 \(aaaaaaaaaaaa\).*bbbbbbbbbbbb"):
        open_trained(best, other)
    with pytest.raises(ValueError, match="has none: python -m trainables.teacher writes them"):
        open_trained(best, replace(index, tags=None))
    with pytest.raises(ValueError, match="this model has no event branch to tag with"):
        load_tagger(best)
