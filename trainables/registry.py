"""The model families by name. A new family is one file in `families/` and one name here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from trainables.contract import Family
from trainables.knobs import fill, parse_value, refuse_unknown

__all__ = ["FAMILIES", "config_from", "family", "fill", "parse_value", "refuse_unknown"]

FAMILIES: tuple[str, ...] = ("csem", "ergl", "bigru_mtl", "resnet_aet", "tagvector", "tagger")


def family(name: str) -> Family:
    """Raises ValueError for a name that is not in FAMILIES."""
    if name not in FAMILIES:
        raise ValueError(f"family {name!r} is not known; known: {', '.join(FAMILIES)}")
    return importlib.import_module(f"trainables.families.{name}").FAMILY


def config_from(family_name: str, values: Mapping[str, Any]) -> Any:
    """The family's config with `values` in the place of defaults; strings are parsed by the knob's type.

    Raises ValueError naming the knob, the value and what is accepted; an unknown knob is answered with the
    known ones.
    """
    config = family(family_name).config
    refuse_unknown(values, [f.name for f in fields(config)], f"family {family_name}")
    return fill(config, values)
