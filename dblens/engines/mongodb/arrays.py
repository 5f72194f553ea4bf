"""An array within documents as a table of its own: what its elements prove, and two ways to read them.

The copier's way decodes documents (`unwound`), the verifier's cuts their octets (`cut`): neither uses the other's code.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import bson
import msgspec

from dblens.engines.base import ARRAY, ARRAY_NOTE, ARRAY_OF
from dblens.engines.mongodb import rawbson, rawtext
from dblens.engines.mongodb.flatten import SCALARS, Prover, type_name, unique_names
from dblens.engines.mongodb.rawbson import OPTIONS, Pairs
from dblens.engines.mongodb.types import parse
from dblens.errors import InvalidInput, Unsupported
from dblens.schema.model import Column, ForeignKey, Key, Table
from dblens.schema.types import Document

MOST = 1000
"""Elements handed on at a time: a document of 16 MiB may hold millions of them."""


def path_of(table: Table) -> tuple[str, ...]:
    """Return the path of the array whose elements are the table's rows, `()` for a collection."""
    path = table.options.get(ARRAY)
    return tuple(json.loads(path)) if path else ()


def collection_of(table: Table) -> str:
    """Return the name of the collection that holds a table's documents."""
    return table.options.get(ARRAY_OF, table.name)


def table_of(collection: Table, path: tuple[str, ...], name: str) -> Table:
    """Return the table of an array, its columns still to be proven. Raises Unsupported where `_id` is not unique."""
    if collection.kind == "timeseries":
        raise Unsupported(
            f"a child table of {collection.name!r}", "documents of a time series have no unique _id to refer to"
        )
    return Table(
        namespace=collection.namespace,
        name=name,
        kind="collection",
        options={ARRAY: json.dumps(path), ARRAY_OF: collection.name},
        inferred=True,
    )


# ---------------------------------------------------------------------------------------------------------------- the copier's way


def _find(document: dict[str, Any] | Pairs, path: tuple[str, ...]) -> Any:
    value: Any = document
    for key in path:
        if not isinstance(value, (dict, Pairs)):
            return None
        value = rawbson.get(value, key)
    return value


def unwound(batches: Iterable[list[bytes]], path: tuple[str, ...]) -> Iterator[list[bytes]]:
    """Make a document of every element, by decoding."""
    out: list[bytes] = []
    for batch in batches:
        for raw in batch:
            document = rawbson.load_document(raw)
            items = _find(document, path)
            if not isinstance(items, list) or isinstance(items, Pairs):
                continue
            key = rawbson.get(document, "_id")
            for i, item in enumerate(items):
                out.append(rawbson.build({"_id": key, "idx": i, "item": item}))
                if len(out) >= MOST:
                    yield out
                    out = []
    if out:
        yield out


# -------------------------------------------------------------------------------------------------------------- the verifier's way


def _spot(raw: bytes, start: int, key: str) -> tuple[int, int, int] | None:
    """Return type, begin and end of a member, the last one of a repeated key."""
    found = None
    for name, kind, at, end in rawtext.elements(raw, start):
        if name == key:
            found = kind, at, end
    return found


def cut(batches: Iterable[list[bytes]], path: tuple[str, ...]) -> Iterator[list[bytes]]:
    """Make a document of every element, octets as they are."""
    pack = struct.Struct("<i").pack
    out: list[bytes] = []
    for batch in batches:
        for raw in batch:
            spot: tuple[int, int, int] | None = (0x03, 0, len(raw))
            for key in path:
                spot = _spot(raw, spot[1], key) if spot is not None and spot[0] == 0x03 else None
            if spot is None or spot[0] != 0x04:
                continue
            own = _spot(raw, 0, "_id")
            head = b"" if own is None else bytes((own[0],)) + b"_id\0" + raw[own[1] : own[2]]
            for i, (_, kind, at, end) in enumerate(rawtext.elements(raw, spot[1])):
                body = head + b"\x10idx\0" + pack(i) + bytes((kind,)) + b"item\0" + raw[at:end] + b"\0"
                out.append(pack(len(body) + 4) + body)
                if len(out) >= MOST:
                    yield out
                    out = []
    if out:
        yield out


# -------------------------------------------------------------------------------------------------------------- what elements prove


class ArrayProver:
    """Counts the types of an array's elements and of their fields over all documents, and decides which become columns."""

    def __init__(self, table: Table) -> None:
        self.table_ = table
        self.path = path_of(table)
        self.documents, self.arrays, self.items = 0, 0, 0
        self._keys = Prover()
        self._fields = Prover()
        self._plain = Prover()
        self._others: Counter[str] = Counter()
        self._through: tuple[str, ...] = ()

    def add(self, batch: bytes) -> None:
        """Count a batch of raw documents."""
        for document in bson.decode_all(batch, OPTIONS):
            self.documents += 1
            if "_id" in document:
                self._keys.add([{"_id": document["_id"]}])
            value: Any = document
            for depth, key in enumerate(self.path):
                if not isinstance(value, dict):
                    if isinstance(value, list):
                        self._through = self.path[:depth]
                    value = ...
                    break
                if key not in value:
                    value = ...
                    break
                value = value[key]
            if isinstance(value, list):
                self.arrays += 1
                self.items += len(value)
                self._fields.add([item for item in value if isinstance(item, dict)])
                self._plain.add([{"value": item} for item in value if not isinstance(item, dict)])
            else:
                self._others["missing" if value is ... else type_name(value)] += 1

    def table(self) -> Table:
        """Return the table as the data prove it. Raises InvalidInput when there is no array, or one on the way to it."""
        collection, shown = collection_of(self.table_), ".".join(self.path)
        if self._through:
            raise InvalidInput(
                f"the path {shown!r} of {collection!r} leads through the array {'.'.join(self._through)!r}",
                hint=f"make a child table of {collection}.{'.'.join(self._through)}: arrays within its elements stay JSON",
            )
        if not self.arrays:
            raise InvalidInput(
                f"no document of {collection!r} has an array at {shown!r}",
                hint="names are case-sensitive; `dblens schema show URL` lists fields; write \\. for a dot within a name",
            )
        key = self._keys.table(self.table_).columns[0]
        columns = [
            msgspec.structs.replace(key, name="parent_id", path=("_id",), nullable=False),
            Column(name="idx", type=parse("int"), native="int", nullable=False, path=("idx",), presence=1.0),
            *self._of_items(),
        ]
        return msgspec.structs.replace(
            self.table_,
            columns=tuple(unique_names(columns)),
            primary_key=Key(name=None, columns=("parent_id", "idx")),
            foreign_keys=(
                ForeignKey(name=None, columns=("parent_id",), table=collection, referred=(key.name,), validated=True),
            ),
            sampled=self.documents,
            rows_estimate=self.items,
            options={**self.table_.options, ARRAY_NOTE: self._note(collection, shown)},
        )

    def _of_items(self) -> list[Column]:
        plain = self._plain.natives().get("value")
        if not self._fields.documents:
            native = plain if plain in SCALARS else "document"
            return [_item("value", native, nullable=True)]
        promoted = [msgspec.structs.replace(c, path=("item", *c.path), nullable=True) for c in self._fields.promoted()]
        # Whole elements beside their fields: what has no column, and elements that are no documents, are in it.
        return [*promoted, _item("doc", "document", nullable=bool(self._plain.documents))]

    def _note(self, collection: str, shown: str) -> str:
        text = f"one row an element of the array {shown!r} of {collection}"
        if self._others:
            kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self._others.items()))
            text += f"; {sum(self._others.values())} documents have no array there ({kinds}) and give no rows"
        return text


def _item(name: str, native: str, *, nullable: bool) -> Column:
    type = Document() if native == "document" else parse(native)
    return Column(name=name, type=type, native=native, nullable=nullable, path=("item",))
