"""The one place where torchaudio is imported: `from trainables.parts.torchaudio_guarded import torchaudio`.

torchaudio's Linux wheel is a CUDA build. Beside a CPU-only torch its compiled extension does not load
(OSError: libc10_cuda.so), and beside another CUDA version its version check raises RuntimeError. What the
project uses of it (mel and Kaldi filter banks, resampling, masking) is plain Python, so there the extension
is declared absent and torchaudio is imported again.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any


def _extension_absent() -> types.ModuleType:
    """What torchaudio._extension looks like in a build without compiled parts."""
    extension: Any = types.ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension._check_cuda_version = lambda: None

    def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
        def refused(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(
                f"{function.__name__} needs torchaudio's compiled extension, which does not load here"
            )

        return refused

    extension.fail_if_no_align = fail_if_no_align
    return extension


def _import() -> types.ModuleType:
    if "torchaudio" in sys.modules:
        return sys.modules["torchaudio"]
    try:
        return importlib.import_module("torchaudio")
    except (OSError, RuntimeError):
        for name in [m for m in sys.modules if m == "torchaudio" or m.startswith("torchaudio.")]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _extension_absent()
        return importlib.import_module("torchaudio")


torchaudio: Any = _import()
