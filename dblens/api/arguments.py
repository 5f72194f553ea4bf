"""What a request gives to an operation: path, query and body, read strictly against the types of its parameters.

Every field that is wrong, missing or unknown is named, all in one answer.
"""

from __future__ import annotations

import collections.abc
import datetime as dt
import enum
import math
import re
import types
import typing
import urllib.parse
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from dblens.api.problems import Refusal, Rejected
from dblens.errors import DBLensError
from dblens.redaction import Secret
from dblens.workspace import wire
from dblens.workspace.registry import Operation, Parameter

LONGEST_PAGE: Final = 1000
"""More than any list gives at once; most give 200."""
_MOST_KEYS: Final = 500
_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_FITS: Final = 2**63

Wrong = list[Rejected]


def arguments(about: Operation, route: wire.Route, path: Mapping[str, str], query: str, body: object) -> dict[str, Any]:
    """Return the arguments of a call; no body is an empty object. Raises Refusal, which names every field that is wrong."""
    wrong: Wrong = []
    known = {p.name: p for p in about.parameters if route.places[p.name] != "sink"}
    found: dict[str, Any] = {name: _subject(name, path[name], wrong) for name in known if route.places[name] == "path"}
    rest = [p for name, p in known.items() if route.places[name] != "path"]
    in_query = route.method in ("GET", "DELETE")
    keys = parsed(query)
    if in_query:
        found |= _from_query(rest, keys, wrong)
    else:
        wrong += [Rejected(field=key, message="unknown in the query: it belongs into the body") for key in keys]
        found |= fields({p.name: (wire.travelling(p.type), p.required) for p in rest}, body, "", wrong)
    flows = "sink" in route.places.values()  # its limit is of rows, not of a page
    if "limit" in found and "limit" in known and not flows and not _page(found["limit"]):
        wrong.append(Rejected(field="limit", message=f"a whole number from 1 to {LONGEST_PAGE}"))
    if wrong:
        raise refused(wrong)
    return found


def refused(wrong: Sequence[Rejected]) -> Refusal:
    """Return the refusal of fields; it is theirs to name what they were given, never a value that may be secret."""
    told = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in wrong[:20])
    more = f"; and {len(wrong) - 20} more" if len(wrong) > 20 else ""
    return Refusal(422, f"{told}{more}", hint="`/api/v1/openapi.json` tells what is accepted", fields=wrong)


def _page(limit: object) -> bool:
    return isinstance(limit, int) and not isinstance(limit, bool) and 1 <= limit <= LONGEST_PAGE


def _subject(name: str, text: str, wrong: Wrong) -> str:
    """Return a part of a path as the text that it means."""
    try:
        found = urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        wrong.append(Rejected(field=name, message="not UTF-8"))
        return ""
    if len(found) > 1000 or "\0" in found:
        wrong.append(Rejected(field=name, message="no id or name"))
    return found


# ------------------------------------------------------------------------------------------------------------------------- query


def parsed(query: str) -> dict[str, list[str]]:
    """Return a query's keys with their values. Raises Refusal."""
    if not query:
        return {}
    try:
        pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_KEYS)
    except ValueError:
        raise Refusal(400, "the query cannot be read", hint="UTF-8, percent-encoded, `key=value&key=value`") from None
    keys: dict[str, list[str]] = {}
    for key, value in pairs:
        keys.setdefault(key, []).append(value)
    return keys


def _from_query(rest: Sequence[Parameter], keys: Mapping[str, list[str]], wrong: Wrong) -> dict[str, Any]:
    found: dict[str, Any] = {}
    used: set[str] = set()
    for p in rest:
        kind = wire.travelling(p.type)
        if not wire.is_struct(kind):
            used.add(p.name)
            _put_text(found, p.name, kind, p.required, keys, wrong)
            continue
        given: dict[str, Any] = {}
        for field in msgspec.structs.fields(kind):
            used.add(field.name)
            _put_text(given, field.name, wire.travelling(field.type), field.required, keys, wrong)
        try:
            found[p.name] = kind(**given)
        except (TypeError, ValueError, DBLensError) as error:
            if not wrong:
                wrong.append(Rejected(field=p.name, message=_reason(error)))
    wrong += [Rejected(field=_short(key), message="unknown") for key in keys if key not in used]
    return found


def _put_text(
    into: dict[str, Any], name: str, kind: Any, required: bool, keys: Mapping[str, list[str]], wrong: Wrong
) -> None:
    texts = keys.get(name)
    if texts is None:
        if required:
            wrong.append(Rejected(field=name, message="missing"))
        return
    if wire.is_list(kind):
        inner = typing.get_args(kind)[0]
        values = [_text(inner, text, f"{name}[{at}]", wrong) for at, text in enumerate(texts)]
        into[name] = tuple(values) if typing.get_origin(kind) is tuple else values
    elif len(texts) > 1:
        wrong.append(Rejected(field=name, message="given more than once"))
    else:
        into[name] = _text(kind, texts[0], name, wrong)


def _text(kind: Any, text: str, name: str, wrong: Wrong) -> Any:
    """Return what a text in a query means. In a query nothing stands for None: it is left out."""
    kinds = [each for each in (typing.get_args(kind) if _is_union(kind) else (kind,)) if each is not type(None)]
    for each in kinds:
        value = _meant(each, text)
        if value is not _NO:
            return value
    wrong.append(Rejected(field=name, message=f"expected {' or '.join(_called(each) for each in kinds)}"))
    return None


_NO: Final = object()


def _meant(kind: Any, text: str) -> Any:
    if typing.get_origin(kind) is Literal:
        return text if text in typing.get_args(kind) else _NO
    if kind is str:
        return _NO if "\0" in text else text
    if kind is bool:
        return {"true": True, "false": False}.get(text, _NO)
    if kind is int:
        return int(text) if _WHOLE.fullmatch(text) and abs(int(text)) < _FITS else _NO
    if kind is float:
        return float(text) if _NUMBER.fullmatch(text) and math.isfinite(float(text)) else _NO
    try:
        if kind is dt.datetime:
            moment = dt.datetime.fromisoformat(text)
            return moment if moment.tzinfo is not None and 1 < moment.year < 9999 else _NO
        if kind is dt.date:
            return dt.date.fromisoformat(text)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return kind(text)
    except (ValueError, OverflowError):
        return _NO
    return _NO


def _called(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    return {
        str: "a text without NUL",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        dt.datetime: "a time with its offset, like 2026-11-23T12:00:00Z",
        dt.date: "a date",
    }.get(kind, getattr(kind, "__name__", str(kind)))


# -------------------------------------------------------------------------------------------------------------------------- body


def json_object(body: bytes) -> Any:
    """Return what a body holds. Raises Refusal when it is no JSON."""
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Refusal(400, "the body is no JSON", hint="RFC 8259, in UTF-8") from None


def fields(kinds: Mapping[str, tuple[Any, bool]], given: object, path: str, wrong: Wrong) -> dict[str, Any]:
    """Return values for fields, each with its type and whether it is required, from a JSON object."""
    if not isinstance(given, dict):
        wrong.append(Rejected(field=path, message=f"expected an object, got {_is(given)}"))
        return {}
    found = {}
    before = f"{path}." if path else ""
    for name, (kind, required) in kinds.items():
        if name in given:
            found[name] = value(kind, given[name], before + name, wrong)
        elif required:
            wrong.append(Rejected(field=before + name, message="missing"))
    wrong += [Rejected(field=_short(before + str(name)), message="unknown") for name in given if name not in kinds]
    return found


def value(kind: Any, given: Any, path: str, wrong: Wrong) -> Any:
    """Return a JSON value as a type wants it, noting what is wrong with it."""
    if _is_union(kind):
        return _one_of(typing.get_args(kind), given, path, wrong)
    if wire.is_struct(kind) and not kind.__struct_config__.array_like and not typing.get_args(kind):
        return _record(kind, given, path, wrong)
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if wire.is_list(kind) and (origin is not tuple or (len(inside) == 2 and inside[1] is ...)):
        if not isinstance(given, list):
            wrong.append(Rejected(field=path, message=f"expected a list, got {_is(given)}"))
            return None
        items = [value(inside[0], each, f"{path}[{at}]", wrong) for at, each in enumerate(given)]
        return tuple(items) if origin is tuple else items
    if origin in (dict, collections.abc.Mapping) and inside[0] is str:
        if not isinstance(given, dict):
            wrong.append(Rejected(field=path, message=f"expected an object, got {_is(given)}"))
            return None
        return {name: value(inside[1], each, f"{path}.{_short(name)}", wrong) for name, each in given.items()}
    return _leaf(kind, given, path, wrong)


def _one_of(kinds: Sequence[Any], given: Any, path: str, wrong: Wrong) -> Any:
    if given is None and type(None) in kinds:
        return None
    kinds = [each for each in kinds if each is not type(None)]
    if isinstance(given, dict):
        records = [each for each in kinds if wire.is_struct(each)]
        tagged = [each for each in records if each.__struct_config__.tag == given.get(each.__struct_config__.tag_field)]
        kinds = tagged[:1] or records if len(records) > 1 and tagged else kinds
        kinds = records if len(records) == 1 else kinds
    if len(kinds) == 1:
        return value(kinds[0], given, path, wrong)
    lists = [each for each in kinds if wire.is_list(each)]
    if isinstance(given, list) and len(lists) == 1:
        return value(lists[0], given, path, wrong)
    return _leaf(typing.Union[tuple(kinds)], given, path, wrong)  # noqa: UP007 - of what is known only now


def _record(kind: type[msgspec.Struct], given: Any, path: str, wrong: Wrong) -> Any:
    before = len(wrong)
    names, tag, tag_field = _fields_of(kind)
    if isinstance(given, dict) and tag is not None and tag_field is not None:
        if given.get(tag_field) != tag:
            wrong.append(Rejected(field=f"{path}.{tag_field}", message=f"expected {tag!r}"))
        given = {name: each for name, each in given.items() if name != tag_field}
    found = fields({outer: (each, required) for outer, (_, each, required) in names.items()}, given, path, wrong)
    if len(wrong) > before:
        return None
    try:
        return kind(**{names[outer][0]: each for outer, each in found.items()})
    except (TypeError, ValueError, DBLensError) as error:
        wrong.append(Rejected(field=path, message=_reason(error)))
        return None


@lru_cache(maxsize=512)
def _fields_of(kind: type[msgspec.Struct]) -> tuple[dict[str, tuple[str, Any, bool]], object, str | None]:
    """Return a record's fields by the names they travel under: name, type, whether it is required; and its tag."""
    found = {f.encode_name: (f.name, wire.travelling(f.type), f.required) for f in msgspec.structs.fields(kind)}
    return found, kind.__struct_config__.tag, kind.__struct_config__.tag_field


def _leaf(kind: Any, given: Any, path: str, wrong: Wrong) -> Any:
    try:
        found = msgspec.convert(given, kind, strict=True, dec_hook=_special)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError, DBLensError) as error:
        wrong.append(Rejected(field=path, message=_reason(error)))
        return None
    if isinstance(found, dt.datetime) and (found.tzinfo is None or not 1 < found.year < 9999):
        wrong.append(Rejected(field=path, message=f"expected {_called(dt.datetime)}"))
    if isinstance(found, int) and abs(found) >= _FITS:
        wrong.append(Rejected(field=path, message="a number beyond 64 bits"))
    return found


def _special(kind: type, given: Any) -> Any:
    if kind is Secret:
        if not isinstance(given, str):
            raise ValueError("expected a text")  # never what was given instead
        return Secret(given)
    raise ValueError(f"{kind.__name__} does not travel")


def _reason(error: Exception) -> str:
    if isinstance(error, DBLensError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    text = str(error).replace("`", "'")
    return text[:1].lower() + text[1:300] if text else type(error).__name__


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _is(given: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(given), "an object")


def _short(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:100]}…"
