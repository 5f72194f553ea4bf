"""The choke point: every public method of a door is an operation, and every call of one goes through `_call`.

    audit "started" (what changes something)  →  authorize, denials are audited  →  call  →  audit the outcome with its duration

What only reads is one row, written in batches. An operation that needs another calls it as anybody else does: it is authorized and
audited too, with the run id of the one that called it. A door must not call an operation, nor end, within a transaction that writes to
the store: on SQLite the audit would wait for it in vain.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from dblens.errors import DBLensError, InvalidInput, NotFound, PermissionDenied, StoreError
from dblens.events import Report
from dblens.workspace.context import Access, Call, Context, Held, NotBegun
from dblens.workspace.describe import described, secretive
from dblens.workspace.permissions import is_name
from dblens.workspace.policy import Decision, Grant, decide, effective, refusal
from dblens.workspace.registry import TABLE, Cost, Level, On, Operation, Table
from dblens.workspace.tale import Tale

if TYPE_CHECKING:
    from dblens.store.audit import Entry
    from dblens.workspace.journal import Journal

__all__ = ["Access", "Call", "Context", "Door", "Held", "acting", "current", "operation", "tell"]

F = TypeVar("F", bound=Callable[..., Any])

_HARMLESS = frozenset(dir(object)) | {
    "__init__",
    "__module__",
    "__dict__",
    "__weakref__",
    "__annotations__",
    "__static_attributes__",
    "__firstlineno__",
    "__slots__",
    "__type_params__",
}


_current: ContextVar[Call | None] = ContextVar("dblens_call", default=None)


def current() -> Call | None:
    """Return the operation at work here. A thread does not inherit it: start one with `contextvars.copy_context().run`."""
    return _current.get()


def tell(*, target: str | None = None, **facts: object) -> None:
    """Add to the audit's outcome of the operation at work: the id that was made, how many rows. Never a secret."""
    call = _current.get()
    if call is not None:
        call.target = target if target is not None else call.target
        call.facts.update(facts)


class Door:
    """A noun's public methods, all of them operations: anything else refuses to be defined."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name in dir(cls):
            if name in _HARMLESS or (name.startswith("_") and not name.startswith("__")):
                continue
            value = inspect.getattr_static(cls, name)
            if not isinstance(getattr(value, "__operation__", None), Operation):
                raise TypeError(f"{cls.__name__}.{name} is public and no operation")


# -------------------------------------------------------------------------------------------------------------------- decoration


def operation(
    name: str,
    *,
    on: On | None = None,
    level: Level = "use",
    connections: Mapping[str, Level] | None = None,
    locate: Callable[[Any, Mapping[str, Any]], Sequence[tuple[object, Level]]] | None = None,
    permission: str | None = None,
    mutates: bool = False,
    step_up: bool = False,
    long: bool = False,
    lock: str | int | None = None,
    local: bool = False,
    cost: Cost = "normal",
    shown: Sequence[str] = (),
    target: str | None = None,
    table: Table = TABLE,
) -> Callable[[F], F]:
    """Make a door's method an operation.

    `on="organization"`: of the principal's, or of the one in a parameter `organization`. `on="connection"`: the parameter `connection`,
    or those in `connections` with the level each needs, or what `locate(door, arguments)` returns; the method gets ids. `shown` are
    the parameters (also `spec.name`) whose values the audit keeps; others are named only. Raises TypeError for what cannot be guarded.

    `long`: a run of its own in the store, with `report=` beside its parameters (the method finds it in its context); in the service it
    goes on behind the answer. `lock`: the connection on which one run at a time may work, by its parameter or its place in what
    `locate` returns. `local`: only for the person at this machine, never over the network.
    """

    def decorate(function: F) -> F:
        made = described(function, name, shown)
        ways = dict(connections or {})
        if on == "connection" and not ways and locate is None:
            ways = {"connection": level}
        names = {parameter.name for parameter in made["parameters"]}
        for wanted in (*ways, *([target.partition(".")[0]] if target else [])):
            if wanted not in names:
                raise TypeError(f"{name}: there is no parameter {wanted!r}")
        if (ways or locate) and on != "connection":
            raise TypeError(f'{name}: it names connections, so on="connection"')
        if lock is not None and (not long or (isinstance(lock, str) and lock not in ways)):
            raise TypeError(f"{name}: a lock is on a connection that a long operation names")
        if long and "report" in names:
            raise TypeError(f"{name}: a long operation finds `report` in its context")
        if not is_name(permission or name):
            raise TypeError(
                f"{name}: {permission or name!r} is no permission (`noun.verb`, a noun of permissions.NOUNS)"
            )
        if target is not None and secretive(target):
            raise TypeError(f"{name}: the audit must not show {target!r}")
        about = Operation(
            name=name,
            permission=permission or name,
            on=on,
            connections=ways,
            level=level,
            mutates=mutates,
            step_up=step_up,
            long=long,
            lock=lock,
            local=local,
            cost=cost,
            target=target,
            shown=tuple(shown),
            locate=locate,
            **made,
        )
        table.add(about)

        @functools.wraps(function)
        def guarded(door: Any, /, *args: Any, **kwargs: Any) -> Any:
            return _call(about, function, door, args, kwargs)

        del guarded.__wrapped__  # the way round the gate
        guarded.__signature__ = _reporting(about.signature) if long else about.signature  # type: ignore[attr-defined]
        guarded.__operation__ = about  # type: ignore[attr-defined]
        return typing.cast(F, guarded)

    return decorate


# -------------------------------------------------------------------------------------------------------------------------- call


def _reporting(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature with `report`, which every long operation takes beside its own parameters."""
    more = inspect.Parameter("report", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Report | None)
    return signature.replace(parameters=[*signature.parameters.values(), more])


def _call(
    about: Operation, function: Callable[..., Any], door: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    if about.long and "report" in kwargs:
        kwargs = dict(kwargs)
        report = kwargs.pop("report")
        door = door if report is None else _reporting_to(door, report)
    context: Context = door.context
    bound = about.signature.bind(door, *args, **kwargs)
    bound.apply_defaults()
    given = dict(list(bound.arguments.items())[1:])
    from dblens.store.records import new_id

    parent = _current.get()
    call = Call(
        id=new_id(),
        operation=about,
        parent=parent.id if parent is not None else None,
        run=parent.run if parent is not None else None,
        facts={},
    )
    found, wrong = _found(about, door, given)
    tale = Tale(context, call, given, [held.id for held, _, _ in found if held.id is not None])
    begun = time.perf_counter()

    if about.mutates:
        context.journal.write(tale.entry("started"))
    else:
        context.journal.reserve()
    try:
        error = wrong or _authorized(about, context, given, found)
    except BaseException:
        if not about.mutates:
            context.journal.release()
        raise
    if error is not None:
        if not about.mutates:
            context.journal.release()
        context.journal.write(tale.entry("denied", error, begun))
        raise error

    for held, parameter, place in found:
        _put(bound.arguments, held, parameter, place)

    own = next(iter(bound.arguments))

    def work(report: Report) -> Any:
        if report is not context.report:
            bound.arguments[own] = _reporting_to(bound.arguments[own], report)
        token = _current.set(call)
        failure: BaseException | None = None
        try:
            result = function(*bound.args, **bound.kwargs)
            _whole(about, result)
        except BaseException as raised:
            failure = raised
            raise
        finally:
            _current.reset(token)
            _ended(context.journal, tale.entry("ended" if about.mutates else "read", failure, begun), failure)
        return result

    house = context.house
    if not about.long or house is None:
        return work(context.report)

    def again() -> None:
        """Look once more whether the principal may: what waited in a queue begins with the rights of now, on what it named then."""
        now = copy.copy(door)
        now.context = msgspec.structs.replace(context, principal=house.renewed(context.principal))
        asked = {name: value for name, value in bound.arguments.items() if name != own}
        found, wrong = _found(about, now, asked)
        error = wrong or _authorized(about, now.context, asked, found)
        if error is not None:
            raise error
        bound.arguments[own] = now

    def unbegun(why: Exception) -> None:
        _ended(context.journal, tale.entry("ended" if about.mutates else "read", why, begun), why)

    call.run = call.id
    try:
        return house.run(
            context,
            call,
            work,
            parent=parent.run if parent is not None else None,
            connection=next((held.id for held, _, _ in found if held.id is not None), None),
            lock=_locked(about, found),
            arguments=tale.arguments(),
            again=again,
            unbegun=unbegun,
        )
    except NotBegun as stopped:
        unbegun(stopped.why)
        raise stopped.why from None


def _reporting_to(door: Any, report: Report) -> Any:
    """Return the door with another listener; the caller's stays as it is."""
    other = copy.copy(door)
    other.context = msgspec.structs.replace(door.context, report=report)
    return other


def _locked(about: Operation, found: Sequence[tuple[Held, str, Any]]) -> str | None:
    """Return the name of the lock. A raw address has none here: the target's own record of runs guards it."""
    if about.lock is None:
        return None
    if isinstance(about.lock, int):
        held = found[about.lock][0] if about.lock < len(found) else None
    else:
        held = next((held for held, parameter, _ in found if parameter == about.lock), None)
    return None if held is None or held.id is None else f"connection:{held.id}"


def _ended(journal: Journal, entry: Entry, failure: BaseException | None) -> None:
    """Write the outcome. What was done was done: when it cannot be written it is owed, and nothing else runs until it is."""
    if entry.phase == "read":
        journal.note(entry)
        return
    try:
        journal.write(entry)
    except StoreError as error:
        journal.owe(entry, error)
        if failure is not None:
            failure.add_note("and its outcome is not in the audit yet")


def _found(
    about: Operation, door: Any, given: Mapping[str, Any]
) -> tuple[list[tuple[Held, str, Any]], DBLensError | None]:
    """Return the connections that the arguments name, with the parameter and the level, or why one cannot be had."""
    context: Context = door.context
    found: list[tuple[Held, str, Any]] = []
    try:
        for parameter in about.connections:
            value = given[parameter]
            if value is None:
                continue
            many = isinstance(value, list | tuple)
            for at, reference in enumerate(value if many else [value]):
                found.append((context.access.connection(context.principal, reference), parameter, at if many else None))
        if about.locate is not None:
            for reference, level in about.locate(door, given):
                found.append((context.access.connection(context.principal, reference), "", level))
    except (NotFound, InvalidInput) as error:
        return found, error
    return found, None


def _put(arguments: dict[str, Any], held: Held, parameter: str, place: Any) -> None:
    """Give the method the id that was authorized, not the name: the name may be another's by the time it is used."""
    if not parameter or held.id is None:
        return
    if place is None:
        arguments[parameter] = held.id
    else:
        items = list(arguments[parameter])
        items[place] = held.id
        arguments[parameter] = type(arguments[parameter])(items)


def _authorized(
    about: Operation, context: Context, given: Mapping[str, Any], found: Sequence[tuple[Held, str, Any]]
) -> Exception | None:
    principal, now = context.principal, context.clock()
    if about.local and principal.kind != "local":
        return PermissionDenied(f"{about.name} is refused: it is for one's own machine only")

    def ask(org_id: str | None, grant: Grant = "none", level: Level | None = None) -> Decision:
        return decide(
            principal, about, org_id=org_id, connection_grant=grant, level=level, now=now, recent=context.recent
        )

    if about.on != "connection":
        org_id = given.get("organization") or principal.org_id
        decision = ask(org_id)
        return None if decision.allowed else refusal(decision, about, what=f"organization {org_id!r}")
    if not found:
        # No connection was named, or it is gone: the right to the operation itself is asked, with nothing granted beyond it.
        decision = ask(principal.org_id, "manage")
        return None if decision.allowed else refusal(decision, about, what="connection")
    for held, parameter, place in found:
        level = about.connections.get(parameter) if parameter else place
        grant: Grant = held.grant if held.id is None else effective(principal, held.id, held.grant)
        decision = ask(held.org_id, grant, level)
        if not decision.allowed:
            named = given.get(parameter)
            named = named[place] if isinstance(named, list | tuple) else named
            return refusal(
                decision, about, what=f"connection {named!r}" if isinstance(named, str) else "such connection"
            )
    return None


def _whole(about: Operation, result: Any) -> None:
    """Refuse what would run after its outcome was written. Raises TypeError."""
    if inspect.isgenerator(result) or inspect.isawaitable(result) or inspect.isasyncgen(result):
        if inspect.isgenerator(result) or inspect.iscoroutine(result):
            result.close()
        raise TypeError(f"{about.name} returned a {type(result).__name__}, which runs after its outcome was written")


@contextlib.contextmanager
def acting(call: Call | None) -> Iterator[None]:
    """Work in another thread as part of a call, so that operations called there know their parent."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)
