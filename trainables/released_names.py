"""What the tensors of the published models are called, and what they were trained on.

In our names a model of one network is `scene.…`, with blocks counted from 1 as if nothing were shared;
trainables/weights.py then gives the trunk and the event branch what they lack from it. A file with two
branches has `event.…` as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainables.weights import Rename

# PANNs' Cnn14 and the CNN models of cSEM and RGASC
PANN = (
    Rename("conv_block{n}.", "scene.block{n}."),
    Rename("conv_block{n}_event.", "event.block{n}."),
    Rename("bn0.", "bn0."),
    Rename("fc1.", "scene.fc1."),
    Rename("fc1_event.", "event.fc1."),
    Rename("fc1_another_layer.", "scene.fc2."),  # MlhE-plus
    Rename("fc1_event_another_layer.", "event.fc2."),
    Rename("fc_final.", "scene_classifier."),
    Rename("fc_final_event.", "event_classifier."),
    Rename("fc_audioset.", "event_classifier."),
)

TINYCNN = (
    Rename("conv{n}.", "scene.block{n}.conv."),
    Rename("bn{n}.", "scene.block{n}.bn."),
)

CNNT = tuple(
    Rename(f"mha{suffix}.{theirs}.", f"{task}.block4.{ours}.")
    for suffix, task in (("", "scene"), ("_event", "event"))
    for theirs, ours in (
        ("mel_projection", "projection"),
        ("layers.0.enc_self_attn.W_Q", "query"),
        ("layers.0.enc_self_attn.W_K", "key"),
        ("layers.0.enc_self_attn.W_V", "value"),
        ("layers.0.enc_self_attn.fc", "out"),
        ("layers.0.enc_self_attn.layernorm", "norm"),
    )
) + (
    Rename("fc512_128.", "scene.fc1."),
    Rename("fc512_128_event.", "event.fc1."),
)

CSEM_AST = (
    Rename("shared_cls_token", "scene.stem.cls_token"),
    Rename("shared_dist_token", "scene.stem.dist_token"),
    Rename("shared_pos_embed", "scene.stem.pos_embed"),
    Rename("shared_patch_embed.", "scene.stem."),
    Rename("shared_blocks.{n}.", "scene.block{n}.", first=1),
    Rename("scene_blocks.{n}.", "scene.block{n}.", first=1, after="shared_blocks"),
    Rename("event_blocks.{n}.", "event.block{n}.", first=1, after="shared_blocks"),
    Rename("norm_scene.", "scene.pooling.norm."),
    Rename("norm_event.", "event.pooling.norm."),
    Rename("fc_norm_scene.", "scene.pooling.fc_norm."),
    Rename("fc_norm_event.", "event.pooling.fc_norm."),
    Rename("fc_scene_2048.", "scene.fc1."),
    Rename("fc_event_2048.", "event.fc1."),
    Rename("shared_fc_2048.", "scene.fc1."),
    Rename("fc_final_asc.", "scene_classifier."),
)

# AST of AudioSet; its classifier (mlp_head.1) reads another embedding than cSEM's, so has no place there
AUDIOSET_AST = (
    Rename("v.cls_token", "scene.stem.cls_token"),
    Rename("v.dist_token", "scene.stem.dist_token"),
    Rename("v.pos_embed", "scene.stem.pos_embed"),
    Rename("v.patch_embed.", "scene.stem."),
    Rename("v.blocks.{n}.", "scene.block{n}.", first=1),
    Rename("v.norm.", "scene.pooling.norm."),
    Rename("mlp_head.0.", "scene.pooling.fc_norm."),
)

RELEASED = PANN + TINYCNN + CNNT + CSEM_AST + AUDIOSET_AST


@dataclass(frozen=True)
class Released:
    """A published model: `name`, and `features` as `trainables.pretrained.features_of` says them. It is told
    by `key`, with `shape` if that tells two apart.
    """

    name: str
    key: str
    features: str
    shape: tuple[int, ...] | None = None


STFT = "spectrogram_extractor.stft.conv_real.weight"
MODELS = (
    Released("PANNs' Cnn14 for 16 kHz", STFT, "10·log10 mel of 16 kHz, 64 bins, 50-8000 Hz", (257, 1, 512)),
    Released("PANNs' Cnn14 for 32 kHz", STFT, "10·log10 mel of 32 kHz, 64 bins, 50-14000 Hz", (513, 1, 1024)),
    Released("AST of AudioSet", "v.pos_embed", "KaldiFbank, 128 bins, 20-8000 Hz"),
    Released("cSEM's released AST", "shared_pos_embed", "KaldiFbank, 128 bins, 20-8000 Hz"),
    Released("cSEM's or RGASC's released CNN", "conv_block1.conv1.weight", "LogMel, 64 bins, 50-22050 Hz"),
    Released("cSEM's released TinyCNN", "conv1.weight", "LogMel, 64 bins, 50-22050 Hz"),
)
