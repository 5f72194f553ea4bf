"""Answers: documents from a server's cursor as exact text, a few at a time; and what a write did."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from bson import Int64

from dblens.engines.asking import Limits, Out
from dblens.engines.mongodb import extjson
from dblens.errors import Conflict, DBLensError, InvalidInput, QueryFailed
from dblens.schema.types import Document, Integer, Text
from dblens.values.forms import Form

if TYPE_CHECKING:
    from dblens.engines.mongodb.ask import Statement

FIRST: Final = 100
"""Documents of the first batch: the first rows are there soon."""
_MOST_IDS: Final = 100


def document_out(name: str = "document", *, namespace: str | None = None, table: str | None = None) -> Out:
    """Return the column that holds documents, or any BSON value."""
    return Out(name=name, type=Document(), native="document", form=Form.DOCUMENT, namespace=namespace, table=table)


def number_out(name: str) -> Out:
    """Return a column of 64-bit whole numbers."""
    return Out(name=name, type=Integer(64), native="long", form=Form.INT)


def text_out(name: str) -> Out:
    """Return a column of text."""
    return Out(name=name, type=Text(), native="string", form=Form.TEXT)


class Rows:
    """An answer. What it reads from is a cursor of the server, or rows that are there already."""

    def __init__(
        self,
        statement: Statement,
        columns: tuple[Out, ...],
        limits: Limits,
        *,
        rows: Sequence[tuple[Any, ...]] = (),
        cursor: Any = None,
        affected: int | None = None,
        notices: tuple[str, ...] = (),
    ) -> None:
        self._statement, self._limits, self._rows, self._cursor = statement, limits, rows, cursor
        self.columns, self.affected, self.notices = columns, affected, notices
        self._made = 0

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield rows as they come; see `Answer.batches`."""
        try:
            if self._cursor is None:
                yield from self._there()
            else:
                yield from self._stream()
        finally:
            self.close()

    def _there(self) -> Iterator[list[tuple[Any, ...]]]:
        batch: list[tuple[Any, ...]] = []
        octets = 0
        for row in self._rows:
            size = sum(len(cell) for cell in row if isinstance(cell, str))
            self._fits(row[0] if isinstance(row[0], str) else "")
            if batch and (len(batch) >= self._limits.rows or octets + size > self._limits.octets):
                yield batch
                batch, octets = [], 0
            batch.append(row)
            octets += size
        if batch:
            yield batch

    def _stream(self) -> Iterator[list[tuple[Any, ...]]]:
        step = min(FIRST, self._limits.rows)
        while True:
            batch, octets, ended = self._some(step)
            if batch:
                yield batch
            if ended:
                return
            # As many documents as make about a quarter of the octets: a document's text is longer than its BSON, and both are in memory.
            fit = self._limits.octets * len(batch) // max(1, 4 * octets)
            step = max(1, min(self._limits.rows, fit, step * 8))
            self._cursor.batch_size(max(2, step))

    def _some(self, step: int) -> tuple[list[tuple[str]], int, bool]:
        batch: list[tuple[str]] = []
        octets = 0
        with self._statement.at_work():
            for document in self._cursor:
                text = extjson.encode_raw(bytes(document.raw))
                self._fits(text)
                batch.append((text,))
                octets += len(text)
                if len(batch) >= step or octets >= self._limits.octets:
                    return batch, octets, False
        return batch, octets, True

    def _fits(self, text: str) -> None:
        self._made += 1
        size = len(text) if len(text) * 4 <= self._limits.cell else len(text.encode("utf-8"))
        if size > self._limits.cell:
            raise InvalidInput(
                f"the cell in column {self.columns[0].name!r}, row {self._made}, has {size} octets: more than {self._limits.cell}",
                hint="leave the large field out with a projection",
            )

    def close(self) -> None:
        """Close the cursor on the server; nothing happens the second time."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            with contextlib.suppress(DBLensError), self._statement.closing():
                cursor.close()
        self._statement.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Counts:
    """What the commands of a write did, added up."""

    def __init__(self) -> None:
        self.affected: int | None = None
        self.notices: list[str] = []
        self.failed: list[tuple[int, Mapping[str, Any]]] = []

    def add(self, command: Mapping[str, Any], reply: Mapping[str, Any], before: int) -> None:
        """Add a command's reply; `before`: how many lines of the statement were sent before it."""
        name = next(iter(command))
        if name in ("insert", "delete"):
            self._more(int(reply.get("n", 0)))
        elif name == "update":
            upserted = reply.get("upserted") or []
            self._more(int(reply.get("nModified", 0)) + len(upserted))
            self.notices.append(
                f"matched {int(reply.get('n', 0)) - len(upserted)}, modified {int(reply.get('nModified', 0))}"
            )
            if upserted:
                self.notices.append(f"upsertedIds: {_ids([each.get('_id') for each in upserted])}")
        elif name == "findAndModify":
            self._more(int((reply.get("lastErrorObject") or {}).get("n", 0)))
        elif name == "createIndexes":
            self.notices.append("indexes: " + ", ".join(str(each["name"]) for each in command["indexes"]))
            if reply.get("numIndexesBefore") == reply.get("numIndexesAfter"):
                self.notices.append(str(reply.get("note", "they were there already")))
        self.failed += [(before + int(each.get("index", 0)), each) for each in reply.get("writeErrors") or ()]
        concern = reply.get("writeConcernError")
        if isinstance(concern, Mapping):
            self.notices.append(f"not confirmed by as many members as asked: {str(concern.get('errmsg', ''))[:300]}")

    def _more(self, n: int) -> None:
        self.affected = (self.affected or 0) + n

    def inserted(self, ids: Sequence[Any]) -> None:
        """Tell the ids of what was inserted."""
        lost = {index for index, _ in self.failed}
        kept = [each for n, each in enumerate(ids) if n not in lost]
        if kept:
            self.notices.append(f"insertedIds: {_ids(kept)}")

    def check(self, doing: str) -> None:
        """Raise Conflict or QueryFailed when the server refused lines, saying what was written nevertheless."""
        if not self.failed:
            return
        index, first = self.failed[0]
        done = f"; {self.affected or 0} written before it stay" if self.affected else ""
        more = f" and {len(self.failed) - 1} more" if len(self.failed) > 1 else ""
        if first.get("code") == 11000:
            key = first.get("keyValue")
            what = extjson.encode(key) if isinstance(key, dict) else str(first.get("errmsg", ""))[:300]
            raise Conflict(
                f"{doing}: line {index + 1}{more}: the key {what} is there twice{done}",
                hint="a unique index refuses it",
            )
        raise QueryFailed(
            f"{doing}: line {index + 1}{more}: {str(first.get('errmsg', ''))[:300]}{done}", hint="the server refused it"
        )


def _ids(ids: Sequence[Any]) -> str:
    shown = "[" + ",".join(extjson.encode(each) for each in ids[:_MOST_IDS]) + "]"
    return shown if len(ids) <= _MOST_IDS else f"{shown} and {len(ids) - _MOST_IDS} more"


def shown(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reply without what the driver and the cluster tell each other."""
    hidden = ("operationTime", "ok", "topologyVersion")
    return {key: value for key, value in reply.items() if not key.startswith("$") and key not in hidden}


def long(number: Any) -> Int64:
    """Return a cursor's id as the server takes it."""
    return Int64(int(number))
