"""Models, and the training of one trial."""

import datasets

if not hasattr(datasets, "SCENETUNE"):
    raise ImportError(
        f"`import datasets` found {getattr(datasets, '__file__', datasets)}, not scenetune's own package. "
        "Uninstall the other one (pip uninstall datasets) or run from scenetune's folder."
    )
