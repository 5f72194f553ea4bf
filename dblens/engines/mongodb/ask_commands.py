"""Which commands of the server a statement means. Nothing is sent from here, and nothing is let through that has no line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

from dblens.engines.mongodb import ask_writes
from dblens.engines.mongodb.ask_guard import WRITE_STAGES, no_javascript, settled
from dblens.engines.mongodb.shell import Call, Spoken
from dblens.engines.mongodb.shell_tokens import wrong
from dblens.engines.mongodb.shell_values import BLANK
from dblens.errors import InvalidInput, PermissionDenied, Unsupported

Shape = Literal["cursor", "count", "values", "names", "databases", "reply", "modified", "write"]
"""What comes back: documents of a cursor; one number; values; names; one document; the document that was changed; counts of a write."""
VERBOSITIES: Final = ("queryPlanner", "executionStats", "allPlansExecution")


class Asked(NamedTuple):
    """What a statement asks for. `reads`: it changes nothing. `explain`: the plan instead, so verbosely."""

    verb: str
    shape: Shape
    commands: tuple[dict[str, Any], ...]
    reads: bool
    collection: str | None = None
    admin: bool = False
    explain: str = ""
    ordered: bool = True
    ids: tuple[Any, ...] = ()
    plain: bool = False
    """Its rows are documents as they are stored."""


class Args:
    """The arguments of a call, taken with the type that they must have."""

    def __init__(self, spoken: Spoken, call: Call) -> None:
        self.spoken, self.call = spoken, call

    def wrong(self, what: str, at: int | None = None, hint: str | None = None) -> InvalidInput:
        """Return an error at an argument, or at the call."""
        spots = self.call.spots
        place = spots[at] if at is not None and at < len(spots) else self.call.at
        return wrong(self.spoken.text, place, f"{self.call.name}: {what}", hint)

    def most(self, n: int) -> None:
        """Raise InvalidInput for more arguments than `n`."""
        if len(self.call.args) > n:
            raise self.wrong(f"it takes at most {n} values", n)

    def has(self, n: int) -> bool:
        """Tell whether there is an argument `n` that is not null."""
        return n < len(self.call.args) and self.call.args[n] is not None

    def blank(self, n: int) -> bool:
        """Tell whether an argument is a parameter of a text that is only looked at."""
        return n < len(self.call.args) and self.call.args[n] is BLANK

    def value(self, n: int, *, expression: bool = False) -> Any:
        """Return an argument, its parameters in their places."""
        if n >= len(self.call.args):
            raise self.wrong(f"value {n + 1} is missing")
        return settled(self.call.args[n], expression=expression)

    def document(self, n: int, default: dict[str, Any] | None = None, *, expression: bool = False) -> dict[str, Any]:
        """Return a document. Raises InvalidInput for anything else."""
        if default is not None and not self.has(n):
            return default
        found = {} if self.blank(n) else self.value(n, expression=expression)
        if not isinstance(found, dict):
            raise self.wrong("a document {…} is expected", n)
        return found

    def array(self, n: int, *, expression: bool = False) -> list[Any]:
        """Return an array. Raises InvalidInput for anything else."""
        found = [] if self.blank(n) else self.value(n, expression=expression)
        if not isinstance(found, list):
            raise self.wrong("an array […] is expected", n)
        return found

    def text(self, n: int) -> str:
        """Return a text. Raises InvalidInput for anything else."""
        found = "" if self.blank(n) else self.value(n)
        if not isinstance(found, str):
            raise self.wrong("a string is expected", n)
        return found

    def count(self, n: int) -> int:
        """Return a whole number that is not negative. Raises InvalidInput for anything else."""
        found = 0 if self.blank(n) else self.value(n)
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 2**63:
            raise self.wrong("a whole number, not negative, is expected", n)
        return int(found)

    def options(self, n: int, known: Mapping[str, str], *, expression: tuple[str, ...] = ("let",)) -> dict[str, Any]:
        """Return a document of options under their names in the command. Raises InvalidInput for one that is not known."""
        if not self.has(n):
            return {}
        found = self.call.args[n]
        if not isinstance(found, dict):
            raise self.wrong("a document of options {…} is expected", n)
        unknown = [name for name in found if name not in known]
        if unknown:
            raise self.wrong(f"the option {unknown[0][:40]!r} is not known here", n, f"one of {', '.join(known)}")
        return {known[name]: settled(value, expression=name in expression) for name, value in found.items()}


def _named(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_FIND: Final = _named(
    "projection", "sort", "limit", "skip", "hint", "collation", "comment", "maxTimeMS", "batchSize", "min", "max", "returnKey",
    "showRecordId", "allowDiskUse", "let",
)  # fmt: skip
_AGGREGATE: Final = _named("collation", "hint", "comment", "maxTimeMS", "allowDiskUse", "let", "batchSize", "explain")
_COUNT: Final = _named("limit", "skip", "hint", "collation", "comment", "maxTimeMS")
_DOCUMENTS: Final = frozenset({"sort", "collation", "min", "max"})
_NUMBERS: Final = {"limit": "limit", "skip": "skip", "maxTimeMS": "maxTimeMS", "batchSize": "batchSize"}
_SILENT: Final = frozenset({"toArray", "pretty"})
_FLAGS: Final = frozenset({"allowDiskUse", "returnKey", "showRecordId"})


def asked(spoken: Spoken, database: str) -> Asked:
    """Return what a statement asks for. Raises InvalidInput with the place, PermissionDenied and Unsupported for what is never done."""
    if spoken.shown in ("dbs", "databases"):
        return Asked("show dbs", "databases", ({"listDatabases": 1, "nameOnly": True},), reads=True, admin=True)
    if spoken.shown:
        return Asked("show collections", "names", ({"listCollections": 1, "nameOnly": True},), reads=True)
    calls = list(spoken.calls)
    verbosity = ""
    if calls[0].name == "explain" and len(calls) > 1:
        verbosity = _verbosity(Args(spoken, calls.pop(0)))
    if len(calls) > 1 and calls[-1].name == "explain":
        verbosity = _verbosity(Args(spoken, calls.pop()))
    first, more = calls[0], calls[1:]
    args = Args(spoken, first)
    if spoken.collection is None:
        known = _DATABASE.get(first.name)
        if known is None:
            raise _unknown(args, "the database", _DATABASE)
        found = known(args, database)
    else:
        maker = _COLLECTION.get(first.name)
        if maker is None:
            raise _unknown(args, "a collection", _COLLECTION)
        found = maker(args, spoken.collection, database)
    for call in more:
        found = _modified(found, Args(spoken, call))
    if not verbosity and "explain" not in found.commands[0]:
        return found
    return explained(found, verbosity or "queryPlanner")


def explained(found: Asked, verbosity: str) -> Asked:
    """Return the question for a statement's plan. Raises Unsupported for what only writes, PermissionDenied for stages that write."""
    if found.verb.startswith("explain"):
        return found
    command = dict(found.commands[0])
    command.pop("explain", None)
    if next(iter(command)) not in ("find", "aggregate", "count", "distinct"):
        raise Unsupported(f"a plan of {found.verb}", "DBLens asks for plans of find, aggregate, count and distinct")
    command.pop("batchSize", None)
    outer = {"explain": command, "verbosity": verbosity}
    return Asked("explain", "reply", (outer,), reads=found.reads, collection=found.collection, explain=verbosity)


def _verbosity(args: Args) -> str:
    args.most(1)
    if not args.has(0):
        return "queryPlanner"
    found = args.value(0)
    found = {True: "allPlansExecution", False: "queryPlanner"}.get(found, found) if isinstance(found, bool) else found
    if found not in VERBOSITIES:
        raise args.wrong("no verbosity of plans", 0, f"one of {', '.join(VERBOSITIES)}")
    return str(found)


def _unknown(args: Args, what: str, known: Mapping[str, object]) -> Exception:
    name = args.call.name
    if name in ("mapReduce", "eval", "group"):
        return no_javascript(name)
    if name in ("getSiblingDB", "getMongo"):
        return PermissionDenied(
            f"{name} leaves the database of this connection", hint="use the other database's connection"
        )
    if name in _ELSEWHERE:
        return PermissionDenied(
            f"{name} administers the server: DBLens does not run it from text", hint="use the server's own tools"
        )
    return args.wrong(f"no method of {what} that is known here", hint=f"one of {', '.join(known)}")


_ELSEWHERE: Final = frozenset(
    {
        "dropDatabase", "shutdownServer", "createUser", "dropUser", "dropAllUsers", "updateUser", "changeUserPassword", "grantRolesToUser",
        "revokeRolesFromUser", "createRole", "dropRole", "grantPrivilegesToRole", "killOp", "currentOp", "fsyncLock", "setProfilingLevel",
        "adminCommand", "auth", "logout", "watch", "setLogLevel", "shardCollection",
    }
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------------ reads


def _find(args: Args, name: str, _: str) -> Asked:
    args.most(3)
    command: dict[str, Any] = {"find": name, "filter": args.document(0, {})}
    if args.has(1):
        command["projection"] = args.document(1, expression=True)
    command |= args.options(2, _FIND, expression=("let", "projection"))
    return Asked("find", "cursor", (command,), reads=True, collection=name, plain="projection" not in command)


def _find_one(args: Args, name: str, database: str) -> Asked:
    found = _find(args, name, database)
    found.commands[0].update(limit=1, singleBatch=True)
    return found._replace(verb="findOne")


def _aggregate(args: Args, name: str | None, _: str) -> Asked:
    if args.call.args and isinstance(args.call.args[0], dict):  # db.c.aggregate({$match: …}, {$group: …})
        steps, options = [args.value(n, expression=True) for n in range(len(args.call.args))], {}
    else:
        args.most(2)
        steps, options = args.array(0, expression=True) if args.call.args else [], args.options(1, _AGGREGATE)
    batch = options.pop("batchSize", None)
    command = {
        "aggregate": name or 1,
        "pipeline": steps,
        "cursor": {} if batch is None else {"batchSize": batch},
        **options,
    }
    if not command.get("explain", True):
        del command["explain"]
    writes = any(isinstance(step, dict) and WRITE_STAGES & step.keys() for step in steps)
    return Asked("aggregate", "cursor", (command,), reads=not writes, collection=name)


def _count(args: Args, name: str, _: str) -> Asked:
    args.most(2)
    options = args.options(1, _COUNT)
    skip, limit = options.pop("skip", None), options.pop("limit", None)
    return _counted(name, args.document(0, {}), skip, limit, options)


def _counted(name: str, filter: dict[str, Any], skip: Any, limit: Any, options: dict[str, Any]) -> Asked:
    steps: list[Any] = [{"$match": filter}]
    steps += [] if not skip else [{"$skip": skip}]
    steps += [] if not limit else [{"$limit": limit}]
    steps.append({"$group": {"_id": None, "n": {"$sum": 1}}})
    command = {"aggregate": name, "pipeline": steps, "cursor": {}, **options}
    return Asked("countDocuments", "count", (command,), reads=True, collection=name)


def _estimated(args: Args, name: str, _: str) -> Asked:
    args.most(1)
    command = {"count": name, **args.options(0, _named("maxTimeMS", "comment"))}
    return Asked("estimatedDocumentCount", "count", (command,), reads=True, collection=name)


def _distinct(args: Args, name: str, _: str) -> Asked:
    args.most(3)
    options = args.options(2, _named("collation", "maxTimeMS", "hint", "comment"))
    command = {"distinct": name, "key": args.text(0), "query": args.document(1, {}), **options}
    return Asked("distinct", "values", (command,), reads=True, collection=name)


def _indexes(args: Args, name: str, _: str) -> Asked:
    args.most(0)
    return Asked("getIndexes", "cursor", ({"listIndexes": name},), reads=True, collection=name)


def _stats(args: Args, name: str, _: str) -> Asked:
    args.most(1)
    scale = args.value(0) if args.has(0) else 1
    scale = scale.get("scale", 1) if isinstance(scale, dict) else scale
    return Asked("stats", "reply", ({"collStats": name, "scale": scale},), reads=True, collection=name)


def _database_stats(args: Args, _: str) -> Asked:
    args.most(1)
    return Asked("stats", "reply", ({"dbStats": 1, "scale": args.count(0) if args.has(0) else 1},), reads=True)


def _collection_infos(args: Args, _: str) -> Asked:
    args.most(1)
    return Asked("getCollectionInfos", "cursor", ({"listCollections": 1, "filter": args.document(0, {})},), reads=True)


def _names(args: Args, _: str) -> Asked:
    args.most(0)
    return Asked("getCollectionNames", "names", ({"listCollections": 1, "nameOnly": True},), reads=True)


def _modified(found: Asked, args: Args) -> Asked:
    """Return the question with what a cursor's method adds to it."""
    name = args.call.name
    command = found.commands[0]
    if found.shape != "cursor" or found.verb not in ("find", "aggregate"):
        if name in _SILENT:
            return found
        raise args.wrong(f"{found.verb} has no such method")
    if name in _SILENT:
        args.most(0)
        return found
    if found.verb == "find" and name in ("count", "size"):
        kept = {k: v for k, v in command.items() if k in ("hint", "collation", "maxTimeMS", "comment")}
        return _counted(str(found.collection), command["filter"], command.get("skip"), command.get("limit"), kept)
    value: Any
    if name in _NUMBERS and (found.verb == "find" or name in ("maxTimeMS", "batchSize")):
        args.most(1)
        value = args.count(0)
        if found.verb == "aggregate" and name == "batchSize":
            command["cursor"] = {"batchSize": value}
            return found
    elif name in ("projection", "project") and found.verb == "find":
        name, value = "projection", args.document(0, expression=True)
        found = found._replace(plain=False)
    elif name in _DOCUMENTS and (found.verb == "find" or name == "collation"):
        args.most(1)
        value = args.document(0)
    elif name in ("hint", "comment"):
        args.most(1)
        value = args.value(0)
    elif name in _FLAGS and (found.verb == "find" or name == "allowDiskUse"):
        value = bool(args.value(0)) if args.has(0) else True
    else:
        raise args.wrong(f"no method of {found.verb} that is known here")
    command[name] = value
    return found


# ------------------------------------------------------------------------------------------------------------------- runCommand

_READ_COMMANDS: Final[dict[str, tuple[Shape, tuple[str, ...]]]] = {
    "find": ("cursor", tuple(name for name in [*_FIND, "filter", "singleBatch"])),
    "aggregate": ("cursor", ("pipeline", "cursor", "maxTimeMS", "collation", "hint", "comment", "let", "allowDiskUse")),
    "count": ("reply", ("query", "limit", "skip", "hint", "collation", "maxTimeMS", "comment")),
    "distinct": ("reply", ("key", "query", "collation", "hint", "maxTimeMS", "comment")),
    "listCollections": ("cursor", ("filter", "nameOnly", "authorizedCollections", "cursor")),
    "listIndexes": ("cursor", ("cursor",)),
    "collStats": ("reply", ("scale",)),
    "dbStats": ("reply", ("scale",)),
    "explain": ("reply", ("verbosity",)),
    "ping": ("reply", ()),
    "hello": ("reply", ()),
    "buildInfo": ("reply", ()),
    "connectionStatus": ("reply", ("showPrivileges",)),
}
_WRITE_COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "insert": ("documents", "ordered"),
    "update": ("updates", "ordered", "let"),
    "delete": ("deletes", "ordered", "let"),
    "findAndModify": (
        "query",
        "sort",
        "remove",
        "update",
        "new",
        "fields",
        "upsert",
        "collation",
        "arrayFilters",
        "hint",
        "let",
    ),
    "create": (*ask_writes.CREATE, "viewOn", "pipeline"),
    "createIndexes": ("indexes",),
    "dropIndexes": ("index",),
    "drop": (),
    "collMod": (
        "index",
        "validator",
        "validationLevel",
        "validationAction",
        "expireAfterSeconds",
        "viewOn",
        "pipeline",
    ),
}
_EXPRESSION_KEYS: Final = frozenset({"pipeline", "projection", "fields", "let"})


def _run_command(args: Args, _: str) -> Asked:
    args.most(1)
    given = args.call.args[0] if args.call.args else None
    if isinstance(given, str):
        given = {given: 1}
    if not isinstance(given, dict) or not given:
        raise args.wrong("a command document {…} is expected", 0)
    command = {key: _settled_field(key, value) for key, value in given.items()}
    return _command(args, command)


def _settled_field(key: str, value: Any) -> Any:
    if key == "updates" and isinstance(value, list):
        return [
            {name: settled(each, expression=name == "u" and isinstance(each, list)) for name, each in line.items()}
            if isinstance(line, dict)
            else line
            for line in value
        ]
    if key == "explain" and isinstance(value, dict):
        return {name: _settled_field(name, each) for name, each in value.items()}
    return settled(value, expression=key in _EXPRESSION_KEYS or (key == "update" and isinstance(value, list)))


def _command(args: Args, command: dict[str, Any]) -> Asked:
    name = next(iter(command))
    shape: Shape = "write"
    if name in _READ_COMMANDS:
        shape, known = _READ_COMMANDS[name]
    elif name in _WRITE_COMMANDS:
        known = _WRITE_COMMANDS[name]
        shape = "modified" if name == "findAndModify" else "write"
    elif name.lower() in ("mapreduce", "eval", "$eval", "group"):
        raise no_javascript(name)
    else:
        raise PermissionDenied(
            f"the command {name[:60]!r} is not on the list of what is run from text",
            hint=f"one of {', '.join([*_READ_COMMANDS, *_WRITE_COMMANDS])}",
        )
    unknown = [key for key in command if key != name and key not in known]
    if unknown:
        raise args.wrong(
            f"{name} has no field {unknown[0][:40]!r} here", 0, f"one of {', '.join(known)}" if known else None
        )
    target = command[name]
    if name == "explain":
        if not isinstance(target, dict) or not target or next(iter(target)) == "explain":
            raise args.wrong("explain takes a command {…}", 0)
        inner = _command(args, target)
        verbosity = command.get("verbosity", "queryPlanner")
        if verbosity not in VERBOSITIES:
            raise args.wrong("no verbosity of plans", 0, f"one of {', '.join(VERBOSITIES)}")
        return explained(inner, verbosity)
    collection = target if isinstance(target, str) else None
    if collection is None and (shape == "write" or name in ("find", "count", "distinct", "listIndexes", "collStats")):
        raise args.wrong(f"{name} takes a collection's name", 0)
    writes = name in _WRITE_COMMANDS
    steps = command.get("pipeline")
    if name == "aggregate":
        command.setdefault("cursor", {})
        writes = isinstance(steps, list) and any(
            isinstance(step, dict) and WRITE_STAGES & step.keys() for step in steps
        )
    if name == "insert":
        documents, ids = ask_writes.identified(command.get("documents"))
        command["documents"] = documents
        return Asked(name, "write", (command,), reads=False, collection=collection, ids=ids)
    return Asked(name, shape, (command,), reads=not writes, collection=collection)


# ----------------------------------------------------------------------------------------------------------------------- writes


def _write(make: Callable[[Args, str], ask_writes.Made]) -> Callable[[Args, str, str], Asked]:
    def made(args: Args, name: str, _: str) -> Asked:
        found = make(args, name)
        shape: Shape = "modified" if "findAndModify" in found.commands[0] else "write"
        return Asked(
            args.call.name,
            shape,
            tuple(found.commands),
            reads=False,
            collection=name,
            ordered=found.ordered,
            ids=tuple(found.ids),
        )

    return made


def _rename(args: Args, name: str, database: str) -> Asked:
    args.most(2)
    command = {"renameCollection": f"{database}.{name}", "to": f"{database}.{args.text(0)}"}
    if args.has(1):
        command["dropTarget"] = bool(args.value(1))  # type: ignore[assignment]
    return Asked("renameCollection", "write", (command,), reads=False, collection=name, admin=True)


def _create(args: Args, _: str) -> Asked:
    args.most(2)
    command = {"create": args.text(0), **args.options(1, _named(*ask_writes.CREATE))}
    return Asked("createCollection", "write", (command,), reads=False)


def _create_view(args: Args, _: str) -> Asked:
    args.most(4)
    command = {
        "create": args.text(0),
        "viewOn": args.text(1),
        "pipeline": args.array(2, expression=True),
        **args.options(3, _named("collation")),
    }
    return Asked("createView", "write", (command,), reads=False)


_COLLECTION: Final[dict[str, Callable[[Args, str, str], Asked]]] = {
    "find": _find, "findOne": _find_one, "aggregate": _aggregate, "countDocuments": _count, "count": _count,
    "estimatedDocumentCount": _estimated, "distinct": _distinct, "getIndexes": _indexes, "stats": _stats,
    **{name: _write(make) for name, make in ask_writes.METHODS.items()},
    "renameCollection": _rename,
}  # fmt: skip
_DATABASE: Final[dict[str, Callable[[Args, str], Asked]]] = {
    "aggregate": lambda args, database: _aggregate(args, None, database),
    "stats": _database_stats, "getCollectionNames": _names, "getCollectionInfos": _collection_infos, "runCommand": _run_command,
    "createCollection": _create, "createView": _create_view,
    "version": lambda _args, _database: Asked("version", "reply", ({"buildInfo": 1},), reads=True),
}  # fmt: skip
