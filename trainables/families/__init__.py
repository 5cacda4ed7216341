"""One file per model family; `trainables.registry` names them."""
