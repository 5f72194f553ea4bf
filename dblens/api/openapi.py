"""The API's description (OpenAPI 3.1), made from the operation table: `python -m dblens.api.openapi` writes the file in the repository.

Records are components named after themselves. Every route lists each status that it can give.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec

from dblens import errors
from dblens.accounts.jwt import Jwks
from dblens.api import again, auth, identity, problems
from dblens.api.arguments import LONGEST_PAGE
from dblens.api.health import Live, Ready, Version
from dblens.api.problems import Problem
from dblens.query import stream
from dblens.redaction import Secret
from dblens.store.runs import Run
from dblens.version import __version__
from dblens.workspace import registry, wire
from dblens.workspace.registry import Operation, Parameter, Table
from dblens.workspace.wire import allows_none

FILE: Final = Path(__file__).with_name("openapi.json")
LIVE: Final = f"{wire.PREFIX}/health/live"
READY: Final = f"{wire.PREFIX}/health/ready"
VERSION: Final = f"{wire.PREFIX}/version"
JWKS: Final = "/.well-known/jwks.json"
EVENTS: Final = f"{wire.PREFIX}/runs/{{run}}/events"
_REFS: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"
_ALWAYS: Final = (401, 403, 404, 409, 422, 429, 500, 503)
_BODY: Final = (400, 408, 413, 415)
_DATABASE: Final = (400, 410, 499, 501, 502, 504)
_RAISES: Final = re.compile(r"\b(" + "|".join(k for k in vars(errors) if k[:1].isupper()) + r")\b")
_ABOUT: Final = (
    "Everything DBLens does, for programs. Made from the operation table: each route is one operation and asks for its permission. "
    "Long work answers `202` with its run. Errors are problem documents (RFC 9457). "
    "`Authorization: Bearer` is the only way to say who asks."
)


@lru_cache(maxsize=4)
def _cached(table: Table | None) -> dict[str, Any]:
    return _document(list(registry.load() if table is None else table))


def document(table: Table | None = None) -> dict[str, Any]:
    """Return the description."""
    return _cached(table)


def text(table: Table | None = None, *, server: str = "") -> bytes:
    """Return the description as JSON; `server` is the prefix below which it is served."""
    return msgspec.json.encode({**document(table), "servers": [{"url": server or "/"}]})


def _document(operations: Sequence[Operation]) -> dict[str, Any]:
    travelling = [(about, route) for about in operations if (route := wire.route(about)) is not None]
    schemas = _Schemas(travelling)
    paths: dict[str, dict[str, Any]] = {}
    for about, route in travelling:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(about, route, schemas)
    for way in auth.WAYS:
        paths.setdefault(way.path, {})[way.method.lower()] = _way(way, schemas)
    for path, method, entry in _others(schemas):
        paths.setdefault(path, {}).setdefault(method, entry)
    return {
        "openapi": "3.1.0",
        "info": {"title": "DBLens", "version": __version__, "description": _ABOUT, "license": {"name": "BSD-3-Clause"}},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": {path: paths[path] for path in sorted(paths)},
        "components": {
            "schemas": schemas.components(),
            "responses": _all_problems(),
            "parameters": _all_headers(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The access token of a login, or a personal one.",
                }
            },
        },
    }


# ------------------------------------------------------------------------------------------------------------------- operations


def _operation(about: Operation, route: wire.Route, schemas: _Schemas) -> dict[str, Any]:
    summary, _, _more = about.doc.partition("\n")
    entry: dict[str, Any] = {
        "operationId": about.name,
        "tags": [about.noun],
        "summary": summary,
        "description": about.doc,
        "x-permission": about.permission,
    }
    if about.step_up:
        entry["x-step-up"] = True
    parameters = [*_parameters(about, route, schemas), *_headers(about, route)]
    if parameters:
        entry["parameters"] = parameters
    if route.method in ("POST", "PATCH"):
        body = [p for p in about.parameters if route.places[p.name] == "body"]
        required = any(p.required for p in body)
        entry["requestBody"] = {"required": required, "content": {_JSON: {"schema": _object(body, schemas)}}}
    entry["responses"] = _responses(about, route, schemas)
    return entry


def _parameters(about: Operation, route: wire.Route, schemas: _Schemas) -> list[dict[str, Any]]:
    found = []
    for p in about.parameters:
        place = route.places[p.name]
        if place == "path":
            schema = {"type": "string", "minLength": 1, "maxLength": 1000}
            found.append({"name": p.name, "in": "path", "required": True, "schema": schema})
        elif place == "query" and p.name in route.spread:
            for field in msgspec.structs.fields(p.type):
                default = None if field.required else field.default
                found.append(_query(field.name, field.type, field.required, default, schemas))
        elif place == "query":
            found.append(_query(p.name, p.type, p.required, p.default, schemas))
    return found


def _query(name: str, kind: Any, required: bool, default: Any, schemas: _Schemas) -> dict[str, Any]:
    schema = _without_null(schemas.of(wire.travelling(kind)))
    if name == "limit":
        schema = {"type": "integer", "minimum": 1, "maximum": LONGEST_PAGE}
    if not required and isinstance(default, str | int | float | bool):
        schema = {**schema, "default": default}
    made: dict[str, Any] = {"name": name, "in": "query", "required": required, "schema": schema}
    return {**made, "explode": True} if schema.get("type") == "array" else made


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value in a query, where nothing stands for null."""
    kept = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if not kept:
        return schema
    return dict(kept[0]) if len(kept) == 1 else {"anyOf": kept}


def _headers(about: Operation, route: wire.Route) -> list[dict[str, Any]]:
    names = [identity.ORGANIZATION, identity.AS]
    names += [again.HEADER] if about.mutates and route.method == "POST" else []
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _all_headers() -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[A-Za-z0-9._~%-]+$"}
    found = (
        {
            "name": identity.ORGANIZATION,
            "in": "header",
            "required": False,
            "description": "The organization to act in, by id or short name; else the current one.",
            "schema": text,
        },
        {
            "name": identity.AS,
            "in": "header",
            "required": False,
            "description": "Act as super_admin, by a login of one.",
            "schema": {"type": "string", "enum": ["super_admin"]},
        },
        {
            "name": again.HEADER,
            "in": "header",
            "required": False,
            "description": "The same request under the same key is done once and answered twice alike.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
        },
    )
    return {str(each["name"]): each for each in found}


def _object(parameters: Sequence[Parameter], schemas: _Schemas) -> dict[str, Any]:
    properties = {}
    for p in parameters:
        schema = schemas.of(wire.travelling(p.type))
        if p.name == "limit" and not allows_none(p.type):
            schema = {"type": "integer", "minimum": 1, "maximum": LONGEST_PAGE}
        properties[p.name] = schema
    made: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [p.name for p in parameters if p.required]
    return {**made, "required": required} if required else made


def _responses(about: Operation, route: wire.Route, schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if any(place == "sink" for place in route.places.values()):
        binary: dict[str, Any] = {"schema": {}}
        kinds = ("text/csv", "application/x-ndjson", "application/octet-stream", stream.MEDIA_TYPE, wire.FRAMES)
        found["200"] = {
            "description": f"What is written, as it comes; with `Accept: {wire.FRAMES}` in frames that say their end.",
            "content": dict.fromkeys(kinds, binary),
        }
    elif about.long:
        found["202"] = {
            "description": "It goes on as a run.",
            "headers": {"Location": {"description": "The run.", "schema": {"type": "string"}}},
            "content": {_JSON: {"schema": schemas.of(Run)}},
        }
    elif about.result is type(None) or about.result is None:
        found["204"] = {"description": "Done."}
    else:
        status = "201" if about.verb == "create" else "200"
        found[status] = {"description": "Done.", "content": {_JSON: {"schema": schemas.of(about.result)}}}
        if type(None) in getattr(about.result, "__args__", ()):
            found["204"] = {"description": "There is nothing."}
    statuses = {*_ALWAYS, *_told(about.doc), 400}
    if route.method in ("POST", "PATCH"):
        statuses |= set(_BODY)
    if about.noun == "run":  # what the run raised is raised again
        statuses |= set(problems.TITLES) - {405}
    if about.on == "connection" or about.noun in ("connection", "migration", "catalog", "template") or about.long:
        statuses |= set(_DATABASE)
    return found | _problems(statuses)


def _told(doc: str) -> set[int]:
    """Return the statuses of the errors that a docstring names."""
    return {getattr(errors, name).http for name in _RAISES.findall(doc)}


def _problems(statuses: Iterable[int]) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(set(statuses))}


def _all_problems() -> dict[str, Any]:
    found = {}
    for status in problems.TITLES:
        entry: dict[str, Any] = {
            "description": problems.TITLES.get(status) or HTTPStatus(status).phrase,
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": _REFS.format(name="Problem")}}},
        }
        if status in (429, 503):
            entry["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
        if status == 401:
            entry["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        found[str(status)] = entry
    return found


# ----------------------------------------------------------------------------------------------------------------------- others


def _way(way: auth.Way, schemas: _Schemas) -> dict[str, Any]:
    entry: dict[str, Any] = {"operationId": way.name, "tags": ["auth"], "summary": way.doc}
    entry["security"] = [{"bearer": []}] if way.bearer else []
    statuses = {400, 422, 429, 500, 503, *way.statuses}
    if way.method == "POST":
        statuses |= set(_BODY)
    if way.takes is not None:
        entry["requestBody"] = {"required": True, "content": {_JSON: {"schema": schemas.of(way.takes)}}}
    done: dict[str, Any] = {"204": {"description": "Done."}}
    if way.gives is not None:
        done = {"200": {"description": "Done.", "content": {_JSON: {"schema": schemas.of(way.gives)}}}}
    entry["responses"] = done | _problems(statuses)
    return entry


def _others(schemas: _Schemas) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for path, name, kind, doc in (
        (LIVE, "health.live", Live, "Say that the process answers."),
        (READY, "health.ready", Ready, "Say whether store, audit and sweep are there."),
        (VERSION, "version", Version, "Say what answers here."),
        (JWKS, "auth.jwks", Jwks, "Return the public keys of the access tokens (RFC 7517)."),
    ):
        done = {"200": {"description": "Yes.", "content": {_JSON: {"schema": schemas.of(kind)}}}}
        statuses = (429, 500, 503)
        entry = {"operationId": name, "tags": ["auth" if path == JWKS else "health"], "summary": doc, "security": []}
        yield path, "get", entry | {"responses": done | _problems(statuses)}
    run = {
        "name": "run",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 1000},
    }
    organization = _headers(_NOBODY, _NOWHERE)
    last = {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
    }
    stream = {"200": {"description": "Events: log, progress, end.", "content": {"text/event-stream": {"schema": {}}}}}
    yield (
        EVENTS,
        "get",
        {
            "operationId": "run.events",
            "tags": ["run"],
            "summary": "Tell how a run goes, as server-sent events, until it ends.",
            "x-permission": "run.read",
            "parameters": [run, last, *organization],
            "responses": stream | _problems({*_ALWAYS, 400}),
        },
    )


class _Nobody:
    """Stands for an operation that changes nothing."""

    mutates = False


_NOBODY: Any = _Nobody()
_NOWHERE: Any = wire.Route(method="GET", path="", places={})


# ---------------------------------------------------------------------------------------------------------------------- schemas


class _Schemas:
    """The schemas of every type that travels, made together so that each record is one component."""

    def __init__(self, travelling: Sequence[tuple[Operation, wire.Route]]) -> None:
        taken: list[Any] = [way.takes for way in auth.WAYS if way.takes is not None]
        given: list[Any] = [way.gives for way in auth.WAYS if way.gives is not None]
        given += [Problem, Run, Live, Ready, Version, Jwks]
        for about, route in travelling:
            for p in about.parameters:
                if route.places[p.name] == "sink":
                    continue
                kind = wire.travelling(p.type)
                if p.name in route.spread:
                    taken += [wire.travelling(f.type) for f in msgspec.structs.fields(kind)]
                else:
                    taken.append(kind)
            given.append(type(None) if about.result is None else about.result)
        self._kinds = [*taken, *given]
        found, components = msgspec.json.schema_components(self._kinds, schema_hook=_special, ref_template=_REFS)
        self._found = list(found)
        self._components = dict(components)
        self._close(self._found[: len(taken)])

    def of(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a type: a reference for a record."""
        for at, each in enumerate(self._kinds):
            if each is kind or (type(each) is type(kind) and each == kind):
                return dict(self._found[at])
        raise TypeError(f"{kind} was not told before")

    def components(self) -> dict[str, Any]:
        """Return every record, by name."""
        return {name: self._components[name] for name in sorted(self._components)}

    def _close(self, schemas: Any) -> None:
        """Refuse unknown fields in every record that is taken, as the reading of requests does."""
        seen: set[str] = set()
        waiting = [schemas]
        while waiting:
            each = waiting.pop()
            if isinstance(each, list | tuple):
                waiting += each
            elif isinstance(each, dict):
                waiting += each.values()
                name = str(each.get("$ref", "")).rpartition("/")[2]
                if name in self._components and name not in seen:
                    seen.add(name)
                    if self._components[name].get("type") == "object":
                        self._components[name].setdefault("additionalProperties", False)
                    waiting.append(self._components[name])


def _special(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string", "format": "password", "writeOnly": True}
    raise NotImplementedError


def written(table: Table | None = None) -> bytes:
    """Return the description as it lies in the repository: a line for each route and each component, so that a change can be read."""
    whole = document(table)
    lines = []
    for name, part in whole.items():
        if name not in ("paths", "components"):
            lines.append(f" {_line(name)}: {_line(part)}")
            continue
        inside = []
        for key, each in part.items():
            rows = ",\n".join(f"   {_line(what)}: {_line(value)}" for what, value in each.items())
            inside.append(f"  {_line(key)}: {{\n{rows}\n  }}")
        lines.append(f" {_line(name)}: {{\n" + ",\n".join(inside) + "\n }")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _line(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def overview(table: Table | None = None) -> str:
    """Return every route as a line: method, path, operation, permission, what is special."""
    rows = []
    for path, methods in document(table)["paths"].items():
        for method, entry in methods.items():
            marks = [name[2:] for name in ("x-step-up",) if name in entry]
            marks += ["run" for status in entry["responses"] if status == "202"]
            marks += ["no login"] if entry.get("security") == [] else []
            rows.append((method.upper(), path, entry["operationId"], entry.get("x-permission", "-"), ", ".join(marks)))
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() + "\n"
        for row in rows
    )


def main() -> int:
    """Write the file in the repository, compare it with `--check`, or write every route as a line with `--overview`."""
    if "--overview" in sys.argv[1:]:
        sys.stdout.write(overview())
        return 0
    made = written()
    if "--check" in sys.argv[1:]:
        same = FILE.exists() and FILE.read_bytes() == made
        if not same:
            sys.stderr.write(f"{FILE} is not what the operations say: run `python -m dblens.api.openapi`\n")
        return 0 if same else 1
    FILE.write_bytes(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
