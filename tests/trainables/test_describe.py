import json
import time

import pytest
import torch

from datasets.labels import LabelSpace
from trainables.contract import AudioFormat
from trainables.describe import describe, main

LABELS = LabelSpace(tuple(f"s{i}" for i in range(10)), tuple(f"e{i}" for i in range(527)))


def test_json_of_the_default_is_csem_pann(capsys: pytest.CaptureFixture) -> None:
    assert main(["csem", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == found["trainable"] == 160_188_249
    assert sum(part["parameters"] for part in found["parts"].values()) == 160_188_249
    assert found["input"]["features"] == [1, 1, 320, 64]
    assert found["config"]["backbone"] == "pann" and found["recipe"]["batch_size"] == 64
    assert (
        sum(part["macs"] for part in found["parts"].values()) + 33_478_656 == found["macs"]
    )  # coupling between parts


def test_json_of_csem_ast_for_ten_seconds_of_the_corpus_s_own_rate(capsys: pytest.CaptureFixture) -> None:
    assert main(["csem", "--set", "backbone=ast", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 118_793_497 and found["input"]["features"] == [1, 1, 1024, 128]
    assert 0.97 * 174.292e9 < found["macs"] < 174.292e9
    assert main(["csem", "--set", "backbone=ast", "--seconds", "0.02"]) == 2
    assert "shorter than one window, 0.025 s" in capsys.readouterr().err


def test_macs_of_ergl_s_graph_stand_in_its_own_lines() -> None:
    n, d, width = 25, 10, 64
    parts = describe("ergl", {}, LABELS, AudioFormat(32000, 1, 320000))["parts"]
    projections, tokens = width * (width // 2 + width // 2 + width), n * d
    seen_by_all, seen_by_pairs = tokens**2 * (width // 2 + width), tokens**2 * width // 2 + n * n * d * width
    assert parts["edges"]["macs"] == 2 * tokens * projections + seen_by_all + seen_by_pairs
    gates = n * n * width
    assert parts["graph"]["macs"] == 2 * (n * 4 * width**2 + n * n * width**2 + gates)
    assert parts["nodes"]["macs"] == d * 2048 * n * width


def test_table_names_knobs_from_either_form_and_the_clip(capsys: pytest.CaptureFixture) -> None:
    arguments = ["csem", "--set", "backbone=tinycnn", "framework=scene_only", "--set", "lr=0.01"]
    assert (
        main([*arguments, "--seconds", "2", "--sample-rate", "16000", "--scenes", "4", "--events", "0"]) == 0
    )
    out = capsys.readouterr().out
    assert "backbone=tinycnn" in out and "framework=scene_only" in out
    assert "2 s at 16000 Hz → features 1 × 63 × 64" in out
    sizes = {
        line.split()[0]: line.split()[1]
        for line in out.splitlines()
        if line.startswith(("shared", "scene", "total"))
    }
    assert sizes == {"shared": "102,112", "scene": "6,500", "scene_classifier": "404", "total": "109,016"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["csm"], "family 'csm' is not known; known: csem"),
        (["csem", "--set", "bakbone=pann"], "did you mean 'backbone'?"),
        (["csem", "--set", "backbone=resnet"], "expected tinycnn, cnnt, pann, ast, dcase2018 or scattering"),
        (["csem", "--set", "lr=-1"], "lr=-1"),
        (["csem", "--set", "backbone"], "expected key=value"),
        (["csem", "--set", "backbone=pann", "--set", "backbone=cnnt"], "given twice"),
        (["csem", "--seconds", "0.5"], "needs at least 32 frames, 1.01 s"),
        (["csem", "--seconds", "0"], "--seconds 0"),
        (["csem", "--sample-rate", "0"], "--sample-rate 0"),
        (["csem", "--events", "0"], "needs event labels"),
        (["csem", "--scenes", "0"], "--scenes 0"),
        (["csem", "--set", "f_max=30000"], "22050"),
        (["csem", "--set", "n_mels=1000"], "take fewer mel bins"),
        (
            ["resnet_aet", "--set", "width=1e9"],
            "torch can't build this model: Storage size calculation overflowed",
        ),
        (["csem", "--set", "pretrained=/no/such"], "pretrained=/no/such: no such file or folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err


def test_the_largest_model_is_described_without_allocating_it() -> None:
    audio = AudioFormat(44100, 1, 441000)
    describe("csem", {}, LABELS, audio)
    started = time.process_time()
    found = describe("csem", {"framework": "mlhe_plus"}, LABELS, audio)
    assert time.process_time() - started < 1.0  # drawing 168 million numbers alone takes longer
    assert found["parameters"] == 168_580_953


def test_description_leaves_torch_s_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    describe("csem", {"backbone": "tinycnn"}, LABELS, AudioFormat(16000, 1, 32000))
    assert torch.equal(torch.rand(3), expected)
