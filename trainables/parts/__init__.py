"""Modules that take numbers and return tensors, and know no family."""
