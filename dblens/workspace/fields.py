"""Fields as they are given, read as the records they are: everything that is wrong is told at once, by name, never by value. No door."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from dblens.engines.access.spec import SECRETS, ConnectionSpec
from dblens.errors import InvalidInput

MOST_SHOWN: Final = 20


def read_fields(given: object) -> ConnectionSpec:
    """Return the specification that fields make, checked. Raises InvalidInput naming every field that is unknown, missing or wrong."""
    try:
        plain = msgspec.to_builtins(given)
    except TypeError:
        plain = given
    wrong: list[str] = []
    made = record(ConnectionSpec, plain, "", wrong)
    if wrong:
        more = f"; and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
        raise InvalidInput(
            f"not a connection: {'; '.join(wrong[:MOST_SHOWN])}{more}",
            hint=f"fields are {', '.join(ConnectionSpec.__struct_fields__)}",
        )
    assert isinstance(made, ConnectionSpec)
    return made.validate()


def record(kind: type[msgspec.Struct], given: object, path: str, wrong: list[str]) -> msgspec.Struct | None:
    """Return the record that a JSON object is; note what is wrong with it, each with its path, and then return None."""
    if not isinstance(given, Mapping):
        wrong.append(f"{path.rstrip('.') or 'fields'}: expected an object")
        return None
    before = len(wrong)
    known = {field.name: field for field in msgspec.structs.fields(kind)}
    found: dict[str, Any] = {}
    for name, value in given.items():
        field = known.get(name) if isinstance(name, str) else None
        if field is None:
            wrong.append(f"{path}{cut(str(name))}: {_unknown(str(name), known)}")
        else:
            found[field.name] = _value(field.type, value, path + field.name, wrong)
    wrong += [f"{path}{name}: missing" for name, field in known.items() if field.required and name not in given]
    return None if len(wrong) > before else kind(**found)


def _unknown(name: str, known: Mapping[str, object]) -> str:
    if name in SECRETS or name in ("passwd", "pwd"):
        return "is a secret, which is given beside the fields"
    near = difflib.get_close_matches(name, known, 1)
    return f"unknown, did you mean {near[0]!r}?" if near else "unknown"


def _value(kind: Any, value: object, path: str, wrong: list[str]) -> Any:
    inside = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    nested = next((each for each in inside if isinstance(each, type) and issubclass(each, msgspec.Struct)), None)
    if nested is not None and value is not None:
        return record(nested, value, f"{path}.", wrong)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        choices = [word for each in inside for word in typing.get_args(each) if typing.get_origin(each) is Literal]
        told = f"one of {', '.join(choices)}" if choices else str(error).replace("`", "")
        wrong.append(f"{path}: {told[:1].lower()}{told[1:200]}")
        return None


def cut(text: str) -> str:
    """Return the beginning of a text that somebody gave."""
    return text if len(text) <= 80 else f"{text[:80]}…"
