"""Tables out of arrays, and arrays out of tables: what a plan has to find out about them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from dblens.engines.base import ARRAY, ARRAY_NOTE, ARRAY_OF, Arrays, Engine, Place, Source, Target
from dblens.errors import InvalidInput
from dblens.migrate.align import Nesting, with_parent
from dblens.migrate.convert import Converted
from dblens.migrate.model import Loss
from dblens.migrate.options import Options, split_path
from dblens.schema.model import Schema, Table
from dblens.schema.types import Document


def array_tables(
    options: Options, reader: Target, target: Engine, schema: Schema, chosen: Sequence[Table]
) -> list[Table]:
    """Return the tables of arrays that `children` asks for. Raises InvalidInput for what is no array of a chosen collection."""
    if not options.children:
        return []
    texts = dict.fromkeys(options.children)
    if not isinstance(reader, Arrays) or target.facts.documents:
        raise InvalidInput(
            f"{next(iter(texts))!r} cannot become a child table from {reader.engine.title} to {target.title}",
            hint="--child-table takes arrays of documents into tables; leave it out here",
        )
    taken = {(t.namespace, t.name) for t in schema.tables}
    found = []
    for text in texts:
        heads = [(f"{p}{t.name}.", t) for t in chosen for p in ("", f"{t.namespace}.")]
        head, owner = max(((h, t) for h, t in heads if text.startswith(h)), key=lambda x: len(x[0]), default=("", None))
        if owner is None:
            raise InvalidInput(
                f"no collection of the migration has an array {text!r}",
                hint="write --child-table collection.path, for example orders.items; names are case-sensitive",
            )
        path = split_path(text[len(head) :])
        name = "_".join((owner.name, *path))
        while (owner.namespace, name) in taken:
            name += "_"
        taken.add((owner.namespace, name))
        found.append(reader.array_table(owner, path, name))
    return found


def as_array(c: Converted, by_source: dict[Place, Converted]) -> None:
    """Say where an array's rows come from, and take only those of documents that come along."""
    if ARRAY not in c.source.options:
        return
    label = f"{c.source.namespace}.{c.source.name}"
    owner = by_source.get((c.source.namespace, c.source.options[ARRAY_OF]))
    if owner is None:
        return  # it is blocked, and so is the plan
    whole = [f.column.name for f in owner.fields if isinstance(f.column.type, Document) and not f.column.path]
    kept = (
        f"{owner.source.name}.{whole[0]} keeps the whole documents"
        if whole
        else "the documents do not come along whole, so what is no element stays behind"
    )
    c.transforms.append(f"{label}: {c.source.options[ARRAY_NOTE]}; {kept}")
    if owner.where is None:
        return
    if c.where is not None and c.where != owner.where:
        raise InvalidInput(
            f"{label} cannot have a filter besides that of its documents", hint="filter the collection alone"
        )
    c.where = owner.where


def leave_orphans(c: Converted, parent: Converted, nesting: Nesting, reader: Source) -> Loss | None:
    """Leave rows behind whose parent does not come along, as a loss to accept."""
    has_parent = with_parent(nesting, reader.engine, parent.where)
    own = f"({c.where}) AND " if c.where else ""
    kept = f"{own}{has_parent}"
    count = reader.count(c.source, where=c.where) - reader.count(c.source, where=kept)
    if not count:
        return None
    label = f"{c.source.namespace}.{c.source.name}"
    names = c.source.primary_key.columns if c.source.primary_key else tuple(nesting.link)
    fields = [f for n in names for f in c.fields if f.column.name == n]
    # A NULL among the referring columns makes the condition unknown, which is neither true nor false.
    rows = reader.canonical_rows(c.source, fields, where=f"{own}CASE WHEN {has_parent} THEN 0 ELSE 1 END = 1")
    columns = ",".join(nesting.link)
    c.where = kept
    return Loss(
        id=f"{label}.{columns}:orphans",
        table=label,
        column=columns,
        kind="orphans",
        repair="drop",
        count=count,
        samples=tuple(
            tuple(None if v is None else v.decode("utf-8", "backslashreplace") for v in row) for row in islice(rows, 5)
        ),
        why=f"they refer to no row of {nesting.parent.name} that comes along, so there is no document to embed them in",
    )
