"""Rows of a child table as an array of their parent's documents.

They come in the source's order, so they are kept in a collection of their own first and read back ordered by document: memory holds the
arrays of a few documents at a time, whatever the table's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.operations import UpdateOne

from dblens.engines.base import Block, Chunk, Embedding, Field, Format, Place
from dblens.engines.mongodb import extjson, load
from dblens.engines.mongodb.rawbson import build
from dblens.errors import QueryFailed

if TYPE_CHECKING:
    from dblens.engines.mongodb.session import MongoSession

_CALL = 1000
_CALL_OCTETS = 4 * 1024 * 1024
_NOTHING = RawBSONDocument(build({}))


def embed(
    session: MongoSession,
    place: Place,
    fields: Sequence[Field],
    fmt: Format,
    blocks: Iterable[Block],
    chunk: Chunk,
    embedding: Embedding,
) -> int:
    """Load the rows beside the documents at `place`, then put them into their arrays; return the rows."""
    waiting = session.raw(embedding.waiting)
    positions, kept = _layout(fields, embedding)
    waiting.drop()
    beside = msgspec.structs.replace(chunk, table=embedding.waiting)
    rows = session.load(embedding.waiting, kept, fmt, _picked(blocks, positions), beside, fast=True)
    order = [("parent", 1), *((f"order.{i}", 1) for i in range(len(embedding.order))), ("_id", 1)]
    waiting.create_index(order, name="order")
    documents = session.raw(place)
    documents.update_many({}, {"$set": {embedding.field: []}})
    put = _put(waiting, order, documents, embedding)
    waiting.drop()
    session.forget_chunks(chunk.run, embedding.waiting)
    if put != rows:
        raise QueryFailed(
            f"{rows} rows were to be embedded as {embedding.field!r}, {put} were", hint="roll back and plan again"
        )
    return rows


def _layout(fields: Sequence[Field], embedding: Embedding) -> tuple[list[int], list[Field]]:
    """Return which values of a row are kept and where: `parent` as the document's `_id`, `order`, and the `item` itself."""
    at = {(f.target or f.column).name: i for i, f in enumerate(fields)}
    positions: list[int] = []
    kept: list[Field] = []

    def keep(position: int, path: tuple[str, ...]) -> None:
        column = fields[position].target or fields[position].column
        positions.append(position)
        placed = msgspec.structs.replace(column, path=path)
        kept.append(msgspec.structs.replace(fields[position], target=placed))

    for name in embedding.link:
        column = fields[at[name]].target or fields[at[name]].column
        keep(at[name], ("parent", *column.path[1:]))
    for i, name in enumerate(embedding.order):
        keep(at[name], ("order", str(i)))
    for i, field in enumerate(fields):
        column = field.target or field.column
        if column.name not in embedding.link:
            keep(i, column.path)
    return positions, kept


def _picked(blocks: Iterable[Block], positions: Sequence[int]) -> Iterator[Block]:
    for block in blocks:
        rows = [tuple([row[i] for i in positions]) for row in block.data]
        yield Block(data=rows, size=block.size, rows=block.rows)


class _Array:
    """The elements of one document's array."""

    def __init__(self, key: Any, shown: str) -> None:
        self.key, self.shown = key, shown
        self.items: list[RawBSONDocument] = []
        self.size = 5

    def add(self, item: RawBSONDocument, field: str) -> None:
        self.size += len(item.raw) + len(str(len(self.items))) + 2
        self.items.append(item)
        # Not only once it is whole: an array that never fits must not fill memory first.
        if self.size > load.MOST_OCTETS:
            raise self.too_large(field)

    def too_large(self, field: str) -> QueryFailed:
        return QueryFailed(
            f"the document {self.shown} would outgrow the {load.MOST_OCTETS} octets that MongoDB holds with its rows of {field!r} embedded",
            hint="leave that table a collection of its own, or exclude its large columns with a rule",
        )


def _arrays(waiting: Collection[Any], order: list[tuple[str, int]], field: str) -> Iterator[_Array]:
    last: _Array | None = None
    for row in waiting.find().sort(order).hint("order"):
        shown = extjson.encode(row["parent"])
        if last is None or last.shown != shown:
            if last is not None:
                yield last
            last = _Array(row["parent"], shown)
        last.add(row.get("item", _NOTHING), field)
    if last is not None:
        yield last


def _put(
    waiting: Collection[Any], order: list[tuple[str, int]], documents: Collection[Any], embedding: Embedding
) -> int:
    """Walk arrays and documents side by side, both in the server's order of `_id`, and write each array; return the elements."""
    field, done, size = embedding.field, 0, 0
    batch: list[UpdateOne] = []
    owners = iter(documents.find().sort("_id", 1))
    for array in _arrays(waiting, order, field):
        octets = next((len(d.raw) for d in owners if extjson.encode(d["_id"]) == array.shown), None)
        if octets is None:
            raise QueryFailed(
                f"{len(array.items)} rows of {field!r} belong to {array.shown}, which no document of {embedding.parent} has as _id",
                hint="the source changed since it was looked at, or its key holds different spellings equal: plan again",
            )
        if octets + array.size > load.MOST_OCTETS:
            raise array.too_large(field)
        batch.append(UpdateOne({"_id": array.key}, {"$set": {field: array.items}}))
        size += array.size
        done += len(array.items)
        if len(batch) >= _CALL or size >= _CALL_OCTETS:
            documents.bulk_write(batch, ordered=False)
            batch, size = [], 0
    if batch:
        documents.bulk_write(batch, ordered=False)
    return done
