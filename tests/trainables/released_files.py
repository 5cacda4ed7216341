"""Files like the released ones: their tensor names and shapes, made from rules, and random numbers.

The digests are of the lists of name, shape and type that the public files and classes have, one a line,
sorted; `digest` of what the rules give is compared with them (test_weights.py).
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def channels(width: float) -> tuple[int, ...]:
    return tuple(round(c * width) for c in (64, 128, 256, 512, 1024, 2048))


def batch_norm(name: str, size: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{n}": (size,) for n in vectors} | {f"{name}.num_batches_tracked": ()}


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def layer_norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def conv_blocks(numbers: range, suffix: str = "", width: float = 1.0) -> Shapes:
    shapes: Shapes = {}
    for n in numbers:
        inputs, outputs = (1, *channels(width))[n - 1 : n + 1]
        name = f"conv_block{n}{suffix}"
        shapes |= {f"{name}.conv1.weight": (outputs, inputs, 3, 3)}
        shapes |= {f"{name}.conv2.weight": (outputs, outputs, 3, 3)}
        shapes |= batch_norm(f"{name}.bn1", outputs) | batch_norm(f"{name}.bn2", outputs)
    return shapes


def panns_cnn14(window: int) -> Shapes:
    bins = window // 2 + 1
    stft = {f"spectrogram_extractor.stft.conv_{part}.weight": (bins, 1, window) for part in ("real", "imag")}
    front = stft | {"logmel_extractor.melW": (bins, 64)} | batch_norm("bn0", 64)
    return front | conv_blocks(range(1, 7)) | linear("fc1", 2048, 2048) | linear("fc_audioset", 2048, 527)


def csem_pann(width: float = 1.0) -> Shapes:
    top = channels(width)[-1]
    scene = conv_blocks(range(1, 7), "", width) | linear("fc1", top, top) | linear("fc_final", top, 10)
    event = conv_blocks(range(3, 7), "_event", width) | linear("fc1_event", top, top)
    return scene | event | linear("fc_final_event", top, 527)


def mlhe_plus_pann() -> Shapes:
    shapes = csem_pann() | linear("fc1_another_layer", 2048, 2048)
    shapes |= linear("fc1_event_another_layer", 2048, 2048) | linear("fc_audioset", 2048, 527)
    return {name: s for name, s in shapes.items() if not name.startswith("fc_final_event")}


def self_attention(suffix: str, width: float) -> Shapes:
    inner, size = f"mha{suffix}.layers.0.enc_self_attn", 8 * round(64 * width)
    shapes = linear(f"mha{suffix}.mel_projection", 8 * channels(width)[2], size)
    shapes |= layer_norm(f"{inner}.layernorm", size)
    for name in ("W_Q", "W_K", "W_V", "fc"):
        shapes |= linear(f"{inner}.{name}", size, size)
    return shapes | linear(f"fc512_128{suffix}", size, size)


def cnnt(width: float = 1.0) -> Shapes:
    scene = conv_blocks(range(1, 4), "", width) | self_attention("", width)
    return scene | linear("fc_final", 8 * round(64 * width), 10)


def csem_cnnt(width: float = 1.0) -> Shapes:
    event = conv_blocks(range(3, 4), "_event", width) | self_attention("_event", width)
    return cnnt(width) | event | linear("fc_final_event", 8 * round(64 * width), 527)


def tinycnn() -> Shapes:
    shapes: Shapes = {"conv1.weight": (32, 1, 7, 7), "conv2.weight": (64, 32, 7, 7)}
    shapes |= batch_norm("bn1", 32) | batch_norm("bn2", 64)
    return shapes | linear("fc1", 704, 100) | linear("fc_final", 100, 10)


def csem_tinycnn() -> Shapes:
    return tinycnn() | linear("fc1_event", 704, 100) | linear("fc_final_event", 100, 527)


def encoder_blocks(name: str, count: int, size: int = 768) -> Shapes:
    shapes: Shapes = {}
    for n in range(count):
        block = f"{name}.{n}"
        shapes |= layer_norm(f"{block}.norm1", size) | layer_norm(f"{block}.norm2", size)
        shapes |= linear(f"{block}.attn.qkv", size, 3 * size) | linear(f"{block}.attn.proj", size, size)
        shapes |= linear(f"{block}.mlp.fc1", size, 4 * size) | linear(f"{block}.mlp.fc2", 4 * size, size)
    return shapes


def ast_stem(prefix: str, patches: int = 1212, size: int = 768) -> Shapes:
    tokens = {f"{prefix}{token}_token": (1, 1, size) for token in ("cls", "dist")}
    patch = {f"{prefix}patch_embed.proj.weight": (size, 1, 16, 16), f"{prefix}patch_embed.proj.bias": (size,)}
    return tokens | {f"{prefix}pos_embed": (1, 2 + patches, size)} | patch


def ast_audioset() -> Shapes:
    shapes = ast_stem("v.") | encoder_blocks("v.blocks", 12) | layer_norm("v.norm", 768)
    shapes |= linear("v.head", 768, 1000) | linear("v.head_dist", 768, 1000)
    shapes |= layer_norm("mlp_head.0", 768) | linear("mlp_head.1", 768, 527)
    return {f"module.{name}": shape for name, shape in shapes.items()}


def csem_ast(size: int = 768, embedding: int = 2048, patches: int = 1212) -> Shapes:
    shapes = ast_stem("shared_", patches, size) | encoder_blocks("shared_blocks", 4, size)
    for task, classifier, classes in (("scene", "fc_final_asc", 10), ("event", "fc_final_event", 527)):
        shapes |= encoder_blocks(f"{task}_blocks", 6, size) | layer_norm(f"norm_{task}", size)
        shapes |= layer_norm(f"fc_norm_{task}", size) | linear(f"fc_{task}_2048", size, embedding)
        shapes |= linear(classifier, embedding, classes)
    return shapes


def ast() -> Shapes:
    shapes = ast_stem("shared_") | encoder_blocks("shared_blocks", 10) | layer_norm("norm_scene", 768)
    return shapes | linear("shared_fc_2048", 768, 2048) | linear("fc_final_asc", 2048, 10)


def moe_ast() -> Shapes:
    return ast() | linear("fc_final_event", 2048, 527)


RELEASED = {
    "Cnn14_16k": (panns_cnn14(512), "52bc43bc4f997847"),
    "Cnn14_32k": (panns_cnn14(1024), "f30864b48212eeb3"),
    "AST_10_10": (ast_audioset(), "fc1aaf9395b773cb"),
    "cSEM_PANN": (csem_pann(), "7936ec0cca6c8823"),
    "RGASC_Cnn14_asc_aec": (csem_pann(), "7936ec0cca6c8823"),
    "MlhE_plus_PANN": (mlhe_plus_pann(), "f8fe1c6fe0bcd80a"),
    "CnnT": (cnnt(), "4118496d7950b6e4"),
    "cSEM_CNNT": (csem_cnnt(), "c8f69c1245c71aec"),
    "TinyCNN": (tinycnn(), "7c506e2dd8a59e08"),
    "cSEM_TinyCNN": (csem_tinycnn(), "eec8cfacfffc2827"),
    "cSEM_AST": (csem_ast(), "13c3b30e1eaaebcc"),
    "MlhE_AST": (csem_ast(), "13c3b30e1eaaebcc"),
    "MoE_AST": (moe_ast(), "85cff28148e05325"),
    "AST": (ast(), "551980abb53ecb7f"),
}


def digest(shapes: Shapes) -> str:
    lines = [
        f"{name}\t{shape}\t{'int64' if name.endswith('num_batches_tracked') else 'float32'}"
        for name, shape in shapes.items()
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def random_state(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Numbers that keep the signal's size from layer to layer; no parameter at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if not shape:
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        elif len(shape) == 1:
            own = 0.1 * torch.randn(shape, generator=generator)
            state[name] = own + 1 if name.endswith("weight") else own
        else:
            state[name] = torch.randn(shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))
    return state
