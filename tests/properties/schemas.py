"""Hypothesis strategies for whole schemas: small, consistent, with hostile names."""

from __future__ import annotations

from hypothesis import strategies as st

from dblens.schema import model as m
from dblens.schema import types as t

NAMES = ("a", "b", "Case", "case", 'quo"te', "x;--", "ü %s {}", "new\nline")
names = st.sampled_from(NAMES)
NATIVE = {
    "integer": t.Integer(bits=32),
    "bigint": t.Integer(),
    "text": t.Text(),
    "varchar(10)": t.Text(length=10),
    "numeric(10,2)": t.Decimal(precision=10, scale=2),
    "boolean": t.Boolean(),
    "mood": t.Enum(values=("sad", "ok"), name="public.mood"),
}
expressions = st.sampled_from(["a > 0", "(a > 0)", "'it''s' <> b", '"a"  >  0'])
comments = st.sampled_from([None, "note", "'quoted'"])
grants = st.lists(
    st.builds(m.Grant, grantee=st.sampled_from(["me", "you"]), privilege=st.sampled_from(["SELECT", "INSERT"])),
    max_size=2,
    unique_by=lambda g: (g.grantee, g.privilege),
).map(tuple)
maybe = st.booleans()


@st.composite
def columns(draw: st.DrawFn, name: str) -> m.Column:
    native = draw(st.sampled_from(sorted(NATIVE)))
    defaults = st.sampled_from(
        [
            None,
            m.Default(native="1", kind="literal", value="1"),
            m.Default(native="now()", kind="now"),
            m.Default(native="f(1)"),
        ]
    )
    special = draw(st.sampled_from(["", "", "", "generated", "identity"]))
    return m.Column(
        name=name,
        type=NATIVE[native],
        native=native,
        nullable=draw(maybe),
        default=None if special else draw(defaults),
        generated=m.Generated(expression=draw(expressions), stored=draw(maybe)) if special == "generated" else None,
        identity=m.Identity(always=draw(maybe), next=draw(st.none() | st.integers(1, 9)))
        if special == "identity"
        else None,
        collation=draw(st.sampled_from([None, "C"])),
        comment=draw(comments),
    )


@st.composite
def tables(draw: st.DrawFn, namespace: str, name: str) -> m.Table:
    cols = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    some = st.lists(st.sampled_from(cols), min_size=1, max_size=2, unique=True).map(tuple)
    key_names = st.sampled_from([None, "k1", "k2"])
    keys = st.builds(m.Key, name=key_names, columns=some, deferrable=maybe)
    foreign = st.builds(
        m.ForeignKey,
        name=key_names,
        columns=some,
        table=names,
        referred=some,
        namespace=st.sampled_from([None, namespace]),
        on_delete=st.sampled_from(["no action", "cascade", "restrict"]),
    )
    parts = st.lists(
        st.builds(m.IndexPart, column=st.sampled_from(cols), descending=maybe), min_size=1, max_size=2
    ).map(tuple)
    indexes = st.builds(
        m.Index,
        name=names,
        parts=parts,
        unique=maybe,
        where=st.none() | expressions,
        options=st.sampled_from([{}, {"fillfactor": "70", "b": "1"}, {"b": "1", "fillfactor": "70"}]),
    )
    checks = st.builds(m.Check, name=key_names, expression=expressions)
    triggers = st.builds(
        m.Trigger, name=names, timing=st.just("before"), events=st.just(("insert",)), source=st.just("create trigger")
    )
    return m.Table(
        namespace=namespace,
        name=name,
        kind=draw(st.sampled_from(["table", "table", "partitioned"])),
        columns=tuple(draw(columns(c)) for c in cols),
        primary_key=draw(st.none() | keys),
        uniques=tuple(draw(st.lists(keys, max_size=2))),
        foreign_keys=tuple(draw(st.lists(foreign, max_size=2))),
        indexes=tuple(draw(st.lists(indexes, max_size=2, unique_by=lambda i: i.name))),
        checks=tuple(draw(st.lists(checks, max_size=2))),
        triggers=tuple(draw(st.lists(triggers, max_size=1))),
        comment=draw(comments),
        owner=draw(st.sampled_from([None, "me"])),
        grants=draw(grants),
        rows_estimate=draw(st.none() | st.integers(0, 9)),
        options=draw(st.sampled_from([{}, {"fillfactor": "70"}])),
        row_security=draw(maybe),
    )


@st.composite
def schemas(draw: st.DrawFn, engine: str = "postgresql", spaces: tuple[str, ...] = ("public", "other")) -> m.Schema:
    def named(limit: int) -> list[tuple[str, str]]:
        return draw(st.lists(st.tuples(st.sampled_from(spaces), names), max_size=limit, unique=True))

    found_tables = tuple(draw(tables(*place)) for place in sorted(named(3)))
    views = tuple(
        m.View(
            namespace=n,
            name=v,
            definition=draw(st.sampled_from(["select 1", "select 2"])),
            materialized=draw(maybe),
            depends_on=draw(st.sampled_from([(), ("a",), ("b", "public.a")])),
            grants=draw(grants),
        )
        for n, v in sorted(named(3))
    )
    sequences = tuple(
        m.Sequence(namespace=n, name=s, increment=draw(st.integers(1, 2)), next=draw(st.none() | st.integers(1, 5)))
        for n, s in sorted(named(2))
    )
    routines = tuple(
        m.Routine(
            namespace=n,
            name=r,
            kind=draw(st.sampled_from(["function", "procedure"])),
            source=draw(st.sampled_from(["x", "y"])),
        )
        for n, r in sorted(named(2))
    )
    types = tuple(
        m.NamedType(namespace=n, name=x, kind="enum", values=draw(st.sampled_from([("a",), ("a", "b"), ("b",)])))
        for n, x in sorted(named(2))
    )
    used = {thing.namespace for things in (found_tables, views, sequences, routines, types) for thing in things}
    return m.Schema(
        engine=engine,
        version="1",
        database="d",
        namespaces=tuple(sorted(used)),
        tables=found_tables,
        views=views,
        sequences=sequences,
        routines=routines,
        types=types,
        extensions=draw(st.sampled_from([(), (("hstore", "1.0"),), (("hstore", "1.1"), ("postgis", "3"))])),
    )
