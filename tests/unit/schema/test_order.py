"""Load order: referred tables first, cycles kept together and named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dblens.schema.model import ForeignKey, Table
from dblens.schema.order import load_order, references, strongly_connected


def table(name: str, *refers: str, namespace: str = "n", **more: object) -> Table:
    keys = tuple(ForeignKey(name=None, columns=("x",), table=r, referred=("id",)) for r in refers)
    return Table(namespace=namespace, name=name, foreign_keys=keys, **more)  # type: ignore[arg-type]


def test_referred_tables_come_first() -> None:
    order = load_order([table("a", "b"), table("b", "c"), table("c")])
    assert [name for _, name in order.places] == ["c", "b", "a"]
    assert order.cycles == ()


def test_cycles_and_self_references_are_reported() -> None:
    order = load_order([table("x", "y"), table("y", "x"), table("self", "self"), table("leaf", "x")])
    assert set(order.cycles) == {(("n", "x"), ("n", "y")), (("n", "self"),)}
    assert order.places.index(("n", "leaf")) > order.places.index(("n", "y"))


def test_references_to_unknown_tables_are_missing_not_lost() -> None:
    key = ForeignKey(name=None, columns=("x",), table="far", referred=("id",), namespace="other")
    order = load_order([Table(namespace="n", name="a", foreign_keys=(key,))])
    assert order.missing == ((("n", "a"), ("other", "far")),)
    assert order.places == (("n", "a"),)


def test_partitions_follow_their_parent_even_with_a_dot_in_its_name() -> None:
    parts = [table("p", partition_of="z"), table("q", partition_of="n.z"), table("r", partition_of="z.dot")]
    order = load_order([*parts, table("z"), table("z.dot")])
    places = [name for _, name in order.places]
    assert places.index("z") < min(places.index("p"), places.index("q"))
    assert places.index("z.dot") < places.index("r")
    assert order.missing == ()


def test_a_chain_of_5000_tables_needs_no_recursion() -> None:
    order = load_order([table(f"t{i:04}", f"t{i + 1:04}") for i in range(5000)] + [table("t5000")])
    assert order.places[0] == ("n", "t5000")
    assert order.places[-1] == ("n", "t0000")


nodes = st.integers(0, 7)
graphs = st.dictionaries(nodes, st.lists(nodes, max_size=4), min_size=1).map(
    lambda g: {("n", str(k)): [("n", str(v)) for v in vs if v in g] for k, vs in g.items()}
)


@given(graphs)
def test_components_are_exactly_mutual_reachability(graph: dict[tuple[str, str], list[tuple[str, str]]]) -> None:
    def reach(start: tuple[str, str]) -> set[tuple[str, str]]:
        seen, todo = {start}, [start]
        while todo:
            for node in graph[todo.pop()]:
                if node not in seen:
                    seen.add(node)
                    todo.append(node)
        return seen

    components = strongly_connected(graph)
    assert sorted(n for group in components for n in group) == sorted(graph)
    position = {node: i for i, group in enumerate(components) for node in group}
    for a in graph:
        for b in graph:
            assert (position[a] == position[b]) == (a in reach(b) and b in reach(a))
        for b in graph[a]:
            assert position[b] <= position[a]


def test_references_are_named_once() -> None:
    assert references(table("a", "b", "b", "a")) == [("n", "b"), ("n", "a")]
