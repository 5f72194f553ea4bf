"""What a person decides about a migration: which tables, into what, by which rules."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from dblens.engines.base import ConflictRule
from dblens.errors import InvalidInput
from dblens.transfer.mask import Mask


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule for what `match` names: `table`, `table.column`, or patterns of them (`*`, `cust*`, `*.email`).

    Table rules: `rename`, `filter` (a condition in the source's language), `exclude`. Column rules: `type` (a native spelling of the
    target), `rename`, `expression` (source's language), `constant`, `mask`, `exclude`. A table may be given with its namespace,
    `public.orders`; a column then has three parts.
    """

    match: str
    type: str | None = None
    rename: str | None = None
    filter: str | None = None
    expression: str | None = None
    constant: str | None = None
    mask: Mask | None = None
    exclude: bool = False


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Options of a migration. All of them are part of the plan's hash."""

    tables: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    content: Literal["all", "schema", "data"] = "all"
    existing: Literal["refuse", "append", "replace"] = "refuse"
    conflict: ConflictRule = "error"
    namespaces: tuple[str, ...] = ()
    into: str | None = None
    rules: tuple[Rule, ...] = ()
    create_target: bool = False
    mode: Literal["auto", "fast", "ledger"] = "auto"
    jobs: int = 1
    chunk_rows: int = 100_000
    children: tuple[str, ...] = ()
    """Arrays of documents that become tables of their own, each as `collection.path`; `\\.` is a dot within a name."""
    embed: tuple[str, ...] = ()
    """Child tables that become arrays of their parent's documents, each as `child` or `child:parent`."""


def matches(pattern: str, namespace: str, table: str) -> bool:
    """Tell whether a table pattern names a table, with or without its namespace."""
    return fnmatchcase(table, pattern) or fnmatchcase(f"{namespace}.{table}", pattern)


class RuleBook:
    """The rules with a memory: a rule that matched nothing by the end is an error."""

    def __init__(self, options: Options) -> None:
        self._rules = options.rules
        self._used: set[int] = set()

    def for_table(self, namespace: str, table: str) -> list[Rule]:
        """Return the table rules for a table, in order."""
        found = []
        for i, rule in enumerate(self._rules):
            if (
                not _is_column_rule(rule)
                and "." not in rule.match.removeprefix(f"{namespace}.")
                and matches(rule.match, namespace, table)
            ):
                self._used.add(i)
                found.append(rule)
        return found

    def for_column(self, namespace: str, table: str, column: str) -> list[Rule]:
        """Return the column rules for a column, in order."""
        found = []
        for i, rule in enumerate(self._rules):
            if "." in rule.match and any(
                fnmatchcase(name, rule.match) for name in (f"{table}.{column}", f"{namespace}.{table}.{column}")
            ):
                self._used.add(i)
                found.append(rule)
        return found

    def check(self) -> None:
        """Raise InvalidInput for the first rule that matched nothing."""
        for i, rule in enumerate(self._rules):
            if i not in self._used:
                raise InvalidInput(
                    f"the rule for {rule.match!r} matches no table or column",
                    hint="names are case-sensitive; write table.column, or a pattern such as *.email",
                )


def _is_column_rule(rule: Rule) -> bool:
    return any((rule.type, rule.expression, rule.constant is not None, rule.mask))


def split_path(text: str) -> tuple[str, ...]:
    r"""Return the keys of a path written with dots between them; `\.` is a dot within a key. Raises InvalidInput for an empty key."""
    keys = tuple(key.replace("\0", ".") for key in text.replace("\\.", "\0").split("."))
    if not all(keys):
        raise InvalidInput(
            f"not a path: {text!r}", hint="write keys with dots between them, for example shipping.lines"
        )
    return keys


def parse_rule(text: str, key_id: str | None, *, keyed: bool = False) -> Rule:
    """Parse a rule from the command line: `MATCH:ACTION[=VALUE]`.

    Actions: type=…, rename=…, filter=…, expression=…, constant=…, mask=hash|redact|partial|null, exclude. `keyed`: who plans has a key
    for hash masks that name none. Raises InvalidInput.
    """
    match, colon, rest = text.partition(":")
    action, equals, value = rest.partition("=")
    hint = "write MATCH:ACTION=VALUE, for example customer.email:mask=hash or orders:filter=year>2020"
    if not match or not colon:
        raise InvalidInput(f"not a rule: {text!r}", hint=hint)
    if action == "exclude" and not equals:
        return Rule(match=match, exclude=True)
    if action == "mask":
        if value not in ("hash", "redact", "partial", "null"):
            raise InvalidInput(f"unknown mask: {value!r}", hint="one of hash, redact, partial, null")
        if value == "hash" and key_id is None and not keyed:
            raise InvalidInput(f"the mask of {match!r} needs a key", hint="name a variable with --mask-key-env NAME")
        return Rule(
            match=match, mask=msgspec.convert({"kind": value, "key_id": key_id if value == "hash" else None}, Mask)
        )
    if action not in ("type", "rename", "filter", "expression", "constant") or not equals:
        raise InvalidInput(f"unknown rule action: {action!r} in {text!r}", hint=hint)
    return msgspec.convert({"match": match, action: value}, Rule)
