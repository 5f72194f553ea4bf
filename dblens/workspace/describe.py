"""Read a door's method: parameters and types for the table, and what cannot be guarded refused at import."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

from dblens.workspace.permissions import is_name
from dblens.workspace.registry import Parameter

_SECRET_NAMES = (
    "password",
    "passphrase",
    "secret",
    "token",
    "key",
    "dsn",
    "url",
    "uri",
    "credential",
    "cookie",
    "sql",
    "text",
)
_STREAMS = ("Iterator", "Generator", "AsyncIterator", "AsyncGenerator", "Awaitable", "Coroutine", "AsyncIterable")


def described(function: Callable[..., Any], name: str, shown: Sequence[str]) -> dict[str, Any]:
    """Return what the table keeps of a method. Raises TypeError for one that cannot be guarded or shown."""
    if not is_name(name):
        raise TypeError(f"{name!r} is no name of an operation: `noun.verb`, the noun one of permissions.NOUNS")
    if not inspect.isfunction(function):
        raise TypeError(f"{name}: not a plain method but a {type(function).__name__}")
    if (
        inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.iscoroutinefunction(function)
    ):
        raise TypeError(
            f"{name}: a generator or coroutine runs after its outcome was written; return the whole, or take a sink"
        )
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise TypeError(f"{name}: {error}; import the types of an operation for real") from error
    signature = inspect.signature(function)
    if "return" not in hints:
        raise TypeError(f"{name}: its result has no type")
    if getattr(typing.get_origin(hints["return"]) or hints["return"], "__name__", "") in _STREAMS:
        raise TypeError(f"{name}: it returns {hints['return']!r}, which runs after its outcome was written")
    if not (function.__doc__ or "").strip():
        raise TypeError(f"{name}: it has no docstring")
    parameters = []
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}: the parameter {parameter} has no name of its own")
        if parameter.name not in hints:
            raise TypeError(f"{name}: the parameter {parameter.name!r} has no type")
        required = parameter.default is parameter.empty
        paths = [path for path in shown if path.partition(".")[0] == parameter.name]
        if any(secretive(path) for path in paths) or (paths and "Secret" in repr(hints[parameter.name])):
            raise TypeError(f"{name}: the audit must not show {paths}")
        parameters.append(
            Parameter(
                name=parameter.name,
                type=hints[parameter.name],
                required=required,
                keyword=parameter.kind is parameter.KEYWORD_ONLY,
                default=None if required else parameter.default,
                shown=bool(paths),
            )
        )
    unknown = {path.partition(".")[0] for path in shown} - {parameter.name for parameter in parameters}
    if unknown:
        raise TypeError(f"{name}: there is no parameter {sorted(unknown)}")
    door, _, method = function.__qualname__.rpartition(".")
    return {
        "parameters": tuple(parameters),
        "result": hints["return"],
        "signature": signature,
        "doc": inspect.cleandoc(function.__doc__ or ""),
        "door": f"{function.__module__}.{door}",
        "method": method,
    }


def secretive(path: str) -> bool:
    """Return whether a parameter's name says that its value is not for the audit."""
    last = path.rpartition(".")[2].lower()
    if last.endswith("_id"):
        return False
    return any(
        last == word or last.endswith((f"_{word}", f"{word}s")) or last.startswith(f"{word}_") for word in _SECRET_NAMES
    )
