"""Knobs: the named plain values a configuration consists of, checked and parsed by the types its dataclass
declares.

A knob is a bool, an int, a float, a string or a `Literal` choice, or one of these `| None`.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
TRUE, FALSE, NONE = ("true", "yes", "on", "1"), ("false", "no", "off", "0"), ("none", "null")


def parse_value(kind: Any, text: str) -> Any:
    """The value that `text` from a command line stands for in a knob of type `kind`: "0.5", "true", "none",
    "pann".

    Raises ValueError saying what is accepted.
    """
    plain, optional = _without_none(kind)
    word = text.strip().lower()
    if optional and word in NONE:
        return None
    try:
        if plain is bool:
            return _flag(word)
        if plain in (int, float):
            return plain(text)
        if get_origin(plain) is Literal:
            return {str(choice): choice for choice in get_args(plain)}[text.strip()]
    except (ValueError, KeyError):
        raise ValueError(f"{text!r} is not accepted; expected {accepted(kind)}") from None
    return text


def fill(config: type[T], values: Mapping[str, Any]) -> T:
    """`config(**values)`, with strings parsed and whole numbers taken for floats where the knob is one.

    Raises ValueError naming the knob, the value and what is accepted.
    """
    kinds = get_type_hints(config)
    refuse_unknown(values, kinds, config.__name__)
    ready = {}
    for name, value in values.items():
        try:
            ready[name] = _as_kind(kinds[name], value)
        except ValueError as error:
            raise ValueError(f"{name}={value!r}: {error}") from None
    return config(**ready)


def check(config: Any) -> None:
    """Every knob of the dataclass instance `config` has its declared type and is one of its choices; else
    ValueError.
    """
    kinds = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if not _fits(kinds[field.name], value):
            raise ValueError(
                f"{field.name}={value!r} is not accepted; expected {accepted(kinds[field.name])}"
            )


def check_range(config: Any, name: str, low: float, high: float = math.inf, *, above: bool = False) -> None:
    """The knob lies in [low, high], or in (low, high] with `above`; None passes. Raises ValueError
    otherwise.
    """
    value = getattr(config, name)
    if value is None or (low < value <= high if above else low <= value <= high):
        return
    limit = f"{'>' if above else '>='} {low:g}" + (f" and <= {high:g}" if high < math.inf else "")
    raise ValueError(f"{name}={value}: expected a number {limit}")


def refuse_unknown(values: Mapping[str, Any], known: Collection[str], owner: str) -> None:
    """Raises ValueError if a key of `values` is not in `known`, suggesting the closest and listing them
    all.
    """
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ";"
            raise ValueError(f"unknown knob {name!r} for {owner}{hint} known: {', '.join(known)}")


def accepted(kind: Any) -> str:
    """In words: "a number", "true or false", "tinycnn, cnnt or pann", …"""
    plain, optional = _without_none(kind)
    words = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    if get_origin(plain) is Literal:
        *most, last = [str(c) for c in get_args(plain)]
        said = f"{', '.join(most)} or {last}" if most else last
    else:
        said = words[plain]
    return said + (" (or none)" if optional else "")


def _as_kind(kind: Any, value: Any) -> Any:
    plain, _ = _without_none(kind)
    if isinstance(value, str):
        value = parse_value(kind, value)
    elif hasattr(value, "item"):  # a number out of numpy or a data frame
        value = value.item()
    if plain is float and type(value) is int:
        value = float(value)
    if not _fits(kind, value):
        raise ValueError(f"not accepted; expected {accepted(kind)}")
    return value


def _fits(kind: Any, value: Any) -> bool:
    plain, optional = _without_none(kind)
    if value is None:
        return optional
    if get_origin(plain) is Literal:
        return value in get_args(plain)
    if plain is float:
        return type(value) in (float, int) and math.isfinite(value)
    return type(value) is plain


def _without_none(kind: Any) -> tuple[Any, bool]:
    """`int | None` → (int, True); `int` → (int, False)."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind, False
    (plain,) = [k for k in get_args(kind) if k is not type(None)]
    return plain, True


def _flag(word: str) -> bool:
    if word not in TRUE + FALSE:
        raise ValueError(word)
    return word in TRUE
