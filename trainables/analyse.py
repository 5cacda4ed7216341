"""What a trained model has learned, as numbers: the input of the figures of Hou et al. 2023, §V-E and §V-F.

    python -m trainables.analyse studies/NAME/best --data SHARDS
    python -m trainables.analyse studies/NAME/runs/t0007-r1 --data SHARDS --split test

Runs the model once over a split and writes analysis/SPLIT.json and analysis/SPLIT.npz beside it: scores of
every clip, classifier weights and their coupling, t-SNE maps, Table X's statistics, and what they were made
from. `python -m reports.analysis FOLDER` and the study's report draw them. The test split is read only when
--split test asks for it, and the file's name says that it was.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from datasets.batch import Batch
from datasets.command import asked, exit_code
from datasets.shard_writer import check_no_file
from datasets.shards import Index
from datasets.source import Source, open_source
from searchspace.record import provenance
from trainables.contract import RelatesEvents, answer, event_targets
from trainables.dependence import dependence
from trainables.metrics import PRESENT, Scores
from trainables.parts.coupling import attend
from trainables.relations import Relations
from trainables.trained import open_trained
from trainables.tsne import Distance, tsne

FORMAT = 1
BATCH = 64
WINNER_BATCH = 16  # small: a large model on a head node without a GPU is found slow soon
WINNER_SECONDS = 180.0


@dataclass(frozen=True)
class Request:
    """Which model, on which clips."""

    model: tyro.conf.Positional[Path]
    """A study's best/, one of its runs/, or the --out folder of trainables.train."""
    data: str
    """Shard set, a folder or a URL; for a run the one it was trained on."""
    events: str = "labels"
    """Event labels, as in training: labels, tags, tags>0.1, labels@0.8."""
    split: str = "val"
    """train, val or test; the test split is read only when named here."""
    out: Path | None = None
    """Folder to write to; analysis/ in the model's folder by default."""
    seed: int = 0
    """Seed of the t-SNE maps and of which rows a mutual information is averaged over."""
    distance: Distance = "cosine"
    """Distance between classifier weights on their map: cosine leaves out how long they are."""
    threads: int = 1
    """CPU threads."""


def main(arguments: list[str] | None = None) -> int:
    request = asked(Request, "python -m trainables.analyse", __doc__, arguments)
    return exit_code(lambda: print(said(run(request))), stopped="stopped; nothing was written")


def run(request: Request) -> Path:
    if request.threads < 1:
        raise ValueError(f"--threads {request.threads}: expected at least 1")
    if not 0 <= request.seed < 2**32:
        raise ValueError(f"--seed {request.seed}: expected 0 to {2**32 - 1}")
    if request.out is not None:
        check_no_file(request.out)
    torch.set_num_threads(request.threads)
    source = open_source(request.data, cache=None, events=request.events)
    return analyse(
        request.model,
        source.index,
        request.split,
        source.eval_batches(request.split, BATCH, device=_device()),
        out=request.out,
        seed=request.seed,
        distance=request.distance,
    )


def analyse(
    folder: Path,
    index: Index,
    split: str,
    batches: Iterable[Batch],
    *,
    out: Path | None = None,
    seed: int = 0,
    distance: Distance = "cosine",
) -> Path:
    """Run the model of `folder` over the `batches` of a split and write its analysis; the json file's path.

    Raises ValueError (see `open_trained`) and for a split that is not there or has no clips.
    """
    if not index.split(split).clips:
        raise ValueError(f"{index.root}: split {split!r} has no clips")
    trained = open_trained(folder, index)
    rows = run_over(trained.model.to(_device()), batches)
    if not rows.scene_logits.shape[1]:
        raise ValueError(f"{folder}: this model says nothing of scenes, which an analysis is about")
    _refuse_diverged(folder, rows)
    arrays, found = numbers(trained.model.cpu(), rows, seed=seed, distance=distance)
    metrics = {f"{split}/{name}": value for name, value in rows.scores.compute().items() if value == value}
    analysed_with = provenance(Path(__file__).resolve().parents[1])
    about = {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "analysed_with": {"commit": analysed_with["git"]["commit"], "packages": analysed_with["packages"]},
        "model": trained.about,
        "data": {"path": str(index.root), "split": split, "clips": len(rows.clip)}
        | {name: getattr(index, name) for name in ("corpus", "checksum", "licence")},
        "scenes": list(index.labels.scenes),
        "events": [index.labels.events[column] for column in rows.columns],
        "metrics": metrics,
    }
    return _write(Path(out) if out else Path(folder) / "analysis", split, arrays, about | found)


def analyse_winner(best: Path, source: Source) -> str:
    """Analyse a study's best model on validation, for its report. What was found or why nothing was: an
    analysis that fails, or would take more than three minutes here, is one line; the study is finished."""
    clips = source.index.split("val").clips
    batches = source.eval_batches("val", WINNER_BATCH, device=_device())
    try:
        found = said(analyse(best, source.index, "val", within(batches, clips, WINNER_SECONDS)))
        return f"analysed the best model: {found.splitlines()[0]}"
    except (ValueError, OSError, RuntimeError) as error:
        again = f"python -m trainables.analyse {best} --data {source.index.root}"
        return f"warning: the best model is not analysed: {error}. To do it: {again}"


def within(batches: Iterable[Batch], clips: int, seconds: float) -> Iterator[Batch]:
    """The batches, as long as all `clips` look like being done in `seconds`; raises ValueError otherwise, not
    before ten seconds have passed."""
    started, done = time.monotonic(), 0
    for batch in batches:
        yield batch
        done += len(batch)
        spent = time.monotonic() - started
        if spent > 10 and done < clips and (needed := spent / done * clips) > seconds:
            raise ValueError(f"it would take about {needed / 60:.0f} min on this machine")


def said(written: Path) -> str:
    """What was written, for a terminal."""
    about = json.loads(written.read_text())
    left_out = "".join(f"\nleft out: {reason}" for reason in about["left_out"])
    accuracy = about["metrics"].get(f"{about['data']['split']}/scene_accuracy")
    score = "" if accuracy is None else f", scene accuracy {100 * accuracy:.1f} %"
    clips = f"{about['data']['clips']} {about['data']['split']} clips"
    return f"{clips}{score}{left_out}\n{written.with_suffix('.npz')}\n{written}"


class Rows(NamedTuple):
    """What the model said about every clip, in order of clip number; None where it has no such output.

    coupled   each branch infers the other's answer through the classifiers' weights
    columns   which events of the corpus the event numbers are of
    relations arrays of `Relations`, {} for a model without a graph of events
    """

    clip: np.ndarray
    scene: np.ndarray
    events: np.ndarray
    event_known: np.ndarray
    scene_logits: np.ndarray
    event_logits: np.ndarray | None
    scene_embedding: np.ndarray | None
    event_embedding: np.ndarray | None
    scores: Scores
    coupled: bool
    columns: tuple[int, ...]
    relations: dict[str, np.ndarray]


@torch.no_grad()
def run_over(model: nn.Module, batches: Iterable[Batch]) -> Rows:
    """Every batch once through the model, in full precision."""
    model.eval()
    scores, relations, coupled, columns = Scores(), Relations(), False, None
    parts: dict[str, list[Tensor]] = {}
    for batch in batches:
        output = answer(model, batch)
        scores.add(output, batch)
        coupled = output.scene_from_event is not None
        columns = output.event_columns
        if isinstance(model, RelatesEvents):
            relations.add(model, batch, output)
        said = {"clip": batch.clip, "scene": batch.scene}
        said["events"], said["event_known"] = event_targets(output, batch)
        wanted = ("scene_logits", "event_logits", "scene_embedding", "event_embedding")
        said |= {name: getattr(output, name) for name in wanted}
        for name, value in said.items():
            if value is not None:
                parts.setdefault(name, []).append(value.float().cpu() if name != "clip" else value.cpu())
    joined = {name: torch.cat(values).numpy() for name, values in parts.items()}
    order = np.argsort(joined["clip"], kind="stable")
    whole = {name: joined[name][order] if name in joined else None for name in Rows._fields[:8]}
    events = range(joined["events"].shape[1]) if columns is None else columns.tolist()
    return Rows(
        **whole,  # type: ignore[arg-type]
        scores=scores,
        coupled=coupled,
        columns=tuple(events),
        relations=relations.arrays(),
    )


def numbers(
    model: nn.Module, rows: Rows, *, seed: int, distance: Distance
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays of SPLIT.npz, {"coupled", "dependence", "maps", "left_out"} of SPLIT.json).

    N clips, S scenes, E events, D dimensions; an absent array is named in "left_out":

    clip             (N,) the clip's number in the split        scene        (N,) true scene, -1 unknown
    scene_logits     (N, S)                                     event_logits (N, E)
    scene_weight     (S, D) W_s                                 event_weight (E, D) W_e
    coupling         (S, E) W_se = W_s · W_eᵀ
    event_attention  (S, E) A_e, rows sum to 1                  scene_attention (E, S) A_s, rows sum to 1
    event_share      (S, E) share of a true scene's clips labelled with the event; NaN where none is known
    clip_map         (M, 2) t-SNE of the scene logits           clip_rows    (M,) which clips these are
    label_map        (S + E, 2) t-SNE of W_s and W_e together, scenes first
    relation         (S, E, E) share of event j in what event i receives, mean over the clips of each true
                     scene; NaN without any
    relation_clip    (M,) the clip of each scene whose own scene is most probable to the model
    clip_relation    (M, E, E) the shares in these clips
    The last three are of a model with a graph of events, E its events.
    """
    left_out: list[str] = []
    clip_map, clip_rows, about_clips = tsne(rows.scene_logits, seed=seed)
    arrays = {
        "clip": rows.clip,
        "scene": np.where(rows.scene.sum(1) > 0, rows.scene.argmax(1), -1),
        "scene_logits": rows.scene_logits,
        "event_share": event_share(rows),
        "clip_map": clip_map,
        "clip_rows": clip_rows,
        **rows.relations,
    }
    maps = {"clips": about_clips}
    table = []
    if rows.event_logits is None:
        left_out.append(
            "the model has no event branch: no scene-event statistics, no coupling, no event maps"
        )
    else:
        arrays["event_logits"] = rows.event_logits
        table = _table(rows, seed, left_out)
        weights = _weights(model, rows, left_out)
        if weights is not None:
            arrays |= _coupling(*weights)
            both = np.concatenate([arrays["scene_weight"], arrays["event_weight"]])
            arrays["label_map"], _, maps["labels"] = tsne(both, seed=seed, distance=distance)
    return arrays, {"coupled": rows.coupled, "dependence": table, "maps": maps, "left_out": left_out}


def _refuse_diverged(folder: Path, rows: Rows) -> None:
    """Raises ValueError if an answer is not a number."""
    for name in ("scene_logits", "event_logits", "scene_embedding", "event_embedding"):
        values = getattr(rows, name)
        if values is not None and not (finite := np.isfinite(values).all(1)).all():
            clips = f"{(~finite).sum()} of {len(finite)} clips"
            raise ValueError(f"{folder}: {name} is not finite for {clips}; the training diverged")


def event_share(rows: Rows) -> np.ndarray:
    """(S, E) share of the clips of each true scene in which the event is labelled as present."""
    scene, known = rows.scene.astype(np.float64), rows.event_known.astype(np.float64)
    clips = scene.T @ known
    heard = scene.T @ (known * (rows.events >= PRESENT))
    return np.divide(heard, clips, out=np.full(clips.shape, np.nan), where=clips > 0)


def _table(rows: Rows, seed: int, left_out: list[str]) -> list[dict[str, Any]]:
    scene, event = rows.scene_embedding, rows.event_embedding
    if scene is None or event is None or scene.shape != event.shape:
        left_out.append("Table X: the model has no two embeddings of equal width to compare")
        return []
    return dependence(scene, event, seed=seed)


def _weights(model: nn.Module, rows: Rows, left_out: list[str]) -> tuple[Tensor, Tensor] | None:
    """W_s (S, D) and W_e (E, D) of two linear classifiers on embeddings of one width; None without such."""
    found = []
    for name, logits in (("scene_classifier", rows.scene_logits), ("event_classifier", rows.event_logits)):
        classifier = getattr(model, name, None)
        if (
            isinstance(classifier, nn.Linear)
            and logits is not None
            and classifier.out_features == logits.shape[1]
        ):
            found.append(classifier.weight.detach().float())
    if len(found) < 2 or found[0].shape[1] != found[1].shape[1]:
        left_out.append(
            "coupling and map of the labels: the model has no two linear classifiers of equal width"
        )
        return None
    return found[0], found[1]


def _coupling(scene_weight: Tensor, event_weight: Tensor) -> dict[str, np.ndarray]:
    coupling, event_attention, scene_attention = attend(scene_weight, event_weight)
    named = {
        "scene_weight": scene_weight,
        "event_weight": event_weight,
        "coupling": coupling,
        "event_attention": event_attention,
        "scene_attention": scene_attention,
    }
    return {name: value.cpu().numpy() for name, value in named.items()}


def _write(out: Path, split: str, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> Path:
    """The arrays first, the description last: a json file there has its arrays."""
    out.mkdir(parents=True, exist_ok=True)
    fresh = out / f".{split}.{os.getpid()}"
    try:
        with open(fresh, "wb") as handle:
            np.savez_compressed(handle, allow_pickle=False, **arrays)
        os.replace(fresh, out / f"{split}.npz")
        fresh.write_text(json.dumps(about, indent=1, allow_nan=False))
        os.replace(fresh, out / f"{split}.json")
    finally:
        fresh.unlink(missing_ok=True)
    return out / f"{split}.json"


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(main())
