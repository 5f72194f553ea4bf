"""The methods that write, as the server's commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bson import ObjectId

from dblens.engines.mongodb.ask_guard import settled
from dblens.errors import InvalidInput

if TYPE_CHECKING:
    from dblens.engines.mongodb.ask_commands import Args

CREATE: Final = (
    "capped", "size", "max", "validator", "validationLevel", "validationAction", "collation", "timeseries", "expireAfterSeconds", "clusteredIndex",
    "indexOptionDefaults", "changeStreamPreAndPostImages",
)  # fmt: skip
_UPDATE: Final = {name: name for name in ("upsert", "collation", "arrayFilters", "hint")}
_INDEX: Final = {
    name: name
    for name in (
        "name", "unique", "sparse", "expireAfterSeconds", "partialFilterExpression", "collation", "hidden", "weights", "default_language",
        "language_override", "textIndexVersion", "2dsphereIndexVersion", "bits", "min", "max", "wildcardProjection", "background",
    )
}  # fmt: skip


class Made(NamedTuple):
    """Commands, in the order in which they are sent; `ids` of what is inserted."""

    commands: list[dict[str, Any]]
    ids: list[Any]
    ordered: bool = True


def identified(documents: Any) -> tuple[list[dict[str, Any]], tuple[Any, ...]]:
    """Return documents with an `_id` each, first, and those. Raises InvalidInput for what is no list of documents."""
    if not isinstance(documents, list) or not documents or not all(isinstance(each, dict) for each in documents):
        raise InvalidInput("what is inserted is no list of documents", hint="such as [{a: 1}, {a: 2}]")
    made = [each if "_id" in each else {"_id": ObjectId(), **each} for each in documents]
    return made, tuple(each["_id"] for each in made)


def _insert(name: str, documents: list[Any], *, ordered: bool = True) -> Made:
    made, ids = identified(documents)
    return Made([{"insert": name, "documents": made, "ordered": ordered}], list(ids), ordered)


def _ordered(args: Args, n: int) -> bool:
    return bool(args.options(n, {"ordered": "ordered"}).get("ordered", True))


def _insert_one(args: Args, name: str) -> Made:
    args.most(1)
    return _insert(name, [args.document(0)])


def _insert_many(args: Args, name: str) -> Made:
    args.most(2)
    return _insert(name, args.array(0), ordered=_ordered(args, 1))


def _change(args: Args, value: Any, n: int, *, replacement: bool) -> Any:
    """Return an update. Raises InvalidInput: a document without operators would replace the stored one whole."""
    if isinstance(value, list) and not replacement:
        return value
    if not isinstance(value, dict):
        raise args.wrong("a document {…} is expected", n)
    operators = [key.startswith("$") for key in value]
    if replacement and any(operators):
        raise args.wrong("a replacement has no operators", n, "use updateOne")
    if not replacement and not all(operators or [False]):
        raise args.wrong("an update has operators only", n, "such as {$set: {…}}; replaceOne takes a whole document")
    return value


def _updating(args: Args, n: int, *, replacement: bool) -> Any:
    pipeline = n < len(args.call.args) and isinstance(args.call.args[n], list)
    return _change(args, args.value(n, expression=pipeline), n, replacement=replacement)


def _update(*, multi: bool, replacement: bool = False) -> Callable[[Args, str], Made]:
    def made(args: Args, name: str) -> Made:
        args.most(3)
        step = {
            "q": args.document(0),
            "u": _updating(args, 1, replacement=replacement),
            "multi": multi,
            **args.options(2, _UPDATE),
        }
        return Made([{"update": name, "updates": [step]}], [])

    return made


def _delete(*, limit: int) -> Callable[[Args, str], Made]:
    def made(args: Args, name: str) -> Made:
        args.most(2)
        options = args.options(1, {"collation": "collation", "hint": "hint"})
        return Made([{"delete": name, "deletes": [{"q": args.document(0), "limit": limit, **options}]}], [])

    return made


def _and_modify(*, remove: bool = False, replacement: bool = False) -> Callable[[Args, str], Made]:
    known = {
        "projection": "fields",
        "sort": "sort",
        "collation": "collation",
        "hint": "hint",
        "maxTimeMS": "maxTimeMS",
        "let": "let",
    }
    if not remove:
        known |= {
            "upsert": "upsert",
            "arrayFilters": "arrayFilters",
            "returnDocument": "new",
            "returnNewDocument": "new",
        }

    def made(args: Args, name: str) -> Made:
        args.most(2 if remove else 3)
        command: dict[str, Any] = {"findAndModify": name, "query": args.document(0, {})}
        command |= {"remove": True} if remove else {"update": _updating(args, 1, replacement=replacement)}
        options = args.options(1 if remove else 2, known, expression=("let", "projection"))
        if "new" in options:
            options["new"] = options["new"] in (True, "after")
        return Made([command | options], [])

    return made


_BULK: Final = {
    "insertOne": ("document",),
    "updateOne": ("filter", "update", *_UPDATE),
    "updateMany": ("filter", "update", *_UPDATE),
    "replaceOne": ("filter", "replacement", *_UPDATE),
    "deleteOne": ("filter", "collation", "hint"),
    "deleteMany": ("filter", "collation", "hint"),
}


def _bulk(args: Args, name: str) -> Made:
    args.most(2)
    ordered = _ordered(args, 1)
    commands: list[dict[str, Any]] = []
    ids: list[Any] = []
    given = args.call.args[0] if args.call.args else None
    if not isinstance(given, list):
        raise args.wrong("an array of steps […] is expected", 0)
    for step in given:
        verb = next(iter(step), "") if isinstance(step, dict) and len(step) == 1 else ""
        if verb not in _BULK:
            raise args.wrong("each step is a document with one key", 0, f"one of {', '.join(_BULK)}")
        inner = step[verb]
        if not isinstance(inner, dict) or set(inner) - set(_BULK[verb]):
            raise args.wrong(f"{verb} takes a document of {', '.join(_BULK[verb])}", 0)
        plain = {
            key: settled(value, expression=key == "update" and isinstance(value, list)) for key, value in inner.items()
        }
        kind, list_name, line = _bulk_line(args, verb, plain, ids)
        if not commands or kind not in commands[-1]:
            commands.append({kind: name, list_name: [], "ordered": ordered})
        commands[-1][list_name].append(line)
    if not commands:
        raise args.wrong("there are no steps", 0)
    return Made(commands, ids, ordered)


def _bulk_line(args: Args, verb: str, inner: dict[str, Any], ids: list[Any]) -> tuple[str, str, dict[str, Any]]:
    if verb == "insertOne":
        documents, made = identified([inner.get("document")])
        ids += made
        return "insert", "documents", documents[0]
    found = inner.get("filter")
    if not isinstance(found, dict):
        raise args.wrong(f"{verb} lacks a filter {{…}}", 0)
    rest = {key: value for key, value in inner.items() if key in (*_UPDATE, "hint", "collation")}
    if verb.startswith("delete"):
        return "delete", "deletes", {"q": found, "limit": int(verb == "deleteOne"), **rest}
    replacement = verb == "replaceOne"
    change = _change(args, inner.get("replacement" if replacement else "update"), 0, replacement=replacement)
    return "update", "updates", {"q": found, "u": change, "multi": verb == "updateMany", **rest}


def _create_index(args: Args, name: str) -> Made:
    args.most(2)
    return Made([{"createIndexes": name, "indexes": [_index(args, args.document(0), args.options(1, _INDEX))]}], [])


def _create_indexes(args: Args, name: str) -> Made:
    args.most(2)
    options = args.options(1, _INDEX)
    keys = args.array(0)
    if not keys or not all(isinstance(each, dict) for each in keys):
        raise args.wrong("an array of keys [{…}] is expected", 0)
    return Made([{"createIndexes": name, "indexes": [_index(args, each, options) for each in keys]}], [])


def _index(args: Args, key: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    if not key:
        raise args.wrong("an index needs a key", 0, "such as {a: 1}")
    return {"key": key, "name": "_".join(f"{field}_{way}" for field, way in key.items()), **options}


def _drop_index(args: Args, name: str) -> Made:
    args.most(1)
    index = args.value(0)
    if index == "*" or not isinstance(index, str | dict):
        raise args.wrong("an index's name or key is expected", 0, "dropIndexes() drops all")
    return Made([{"dropIndexes": name, "index": index}], [])


def _drop_indexes(args: Args, name: str) -> Made:
    args.most(1)
    return Made([{"dropIndexes": name, "index": args.value(0) if args.has(0) else "*"}], [])


def _drop(args: Args, name: str) -> Made:
    args.most(0)
    return Made([{"drop": name}], [])


METHODS: Final[dict[str, Callable[[Args, str], Made]]] = {
    "insertOne": _insert_one,
    "insertMany": _insert_many,
    "updateOne": _update(multi=False),
    "updateMany": _update(multi=True),
    "replaceOne": _update(multi=False, replacement=True),
    "deleteOne": _delete(limit=1),
    "deleteMany": _delete(limit=0),
    "findOneAndUpdate": _and_modify(),
    "findOneAndReplace": _and_modify(replacement=True),
    "findOneAndDelete": _and_modify(remove=True),
    "bulkWrite": _bulk,
    "createIndex": _create_index,
    "createIndexes": _create_indexes,
    "dropIndex": _drop_index,
    "dropIndexes": _drop_indexes,
    "drop": _drop,
}
