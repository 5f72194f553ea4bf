"""26: markup in names, cells, notices and errors is text wherever a result is shown; 17: a name is a name in every statement that is made of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dblens import engines
from dblens.query.show import html
from tests.workspace.desk import Desk

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")
TAGS = {"style", "div", "p", "table", "thead", "tbody", "tr", "th", "td", "small", "bdi", "i", "span"}
ATTRIBUTES = {"class", "dir", "role", "tabindex", "aria-label"}
EVIL = (
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "</td></tr></table><svg/onload=alert(1)>", '" onmouseover="alert(1)', "' autofocus onfocus='alert(1)",
    "</style><script>alert(1)</script>", "<!--", "]]>", "javascript:alert(1)", "&lt;script&gt;", "\u202egnp.exe", "\x1b[31mred", "{{7*7}}", "${7*7}", "<a href=//evil>x</a>",
)  # fmt: skip


class Seen(HTMLParser):
    """What a browser would make of HTML: the tags, their attributes, the text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.comments, self.words = (
            set[str](),
            list[tuple[str, str | None]](),
            list[str](),
            list[str](),
        )

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def seen(made: str) -> Seen:
    parser = Seen()
    parser.feed(made)
    parser.close()
    assert parser.tags <= TAGS, parser.tags - TAGS
    assert {name for name, _ in parser.attributes} <= ATTRIBUTES
    assert parser.comments == []
    assert not any("alert" in (value or "") for _, value in parser.attributes)
    return parser


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.connection("src", rows=1)
    yield desk
    desk.close()


def test_names_cells_and_words_are_text(desk: Desk) -> None:
    quote = engines.get("sqlite").ddl.quote
    with closing(sqlite3.connect(desk.folder / "src.db")) as db:
        db.execute(f"create table {quote(EVIL[0])} ({', '.join(f'{quote(each)} text' for each in EVIL)})")
        db.execute(f"insert into {quote(EVIL[0])} values ({', '.join('?' for _ in EVIL)})", EVIL)
        db.commit()
    found = desk.as_("ann").query("src", f"select * from {quote(EVIL[0])}; select '<b>' as \"<i>\", x'3c623e' as b")
    for made in (found._repr_html_(), found[0]._repr_html_(), html(found), html(found[1])):
        assert made is not None
        words = "".join(seen(made).words)
        assert "\u202e" not in words
        assert "\x1b" not in words
    words = "".join(seen(html(found[0])).words)
    for each in EVIL:
        plain = each.replace("\u202e", "⟨U+202E⟩").replace("\x1b", "⟨U+001B⟩")
        assert words.count(plain) >= 2, each  # as a name and as a cell
    assert found[0].rows() == [EVIL]


CELLS = st.text(st.sampled_from(list("<>&\"'=/ abc\\;:!-\u202e\x00\x07\ud7ff")), max_size=30)


@given(CELLS, CELLS)
@settings(max_examples=150, deadline=None)
def test_no_text_becomes_markup(name: str, cell: str) -> None:
    from dblens.engines.arrow import Writer
    from dblens.engines.asking import Out
    from dblens.query.results import Result
    from dblens.query.run import StatementResult
    from dblens.query.stream import library
    from dblens.schema.types import Text
    from dblens.values.forms import Form

    column = Out(name=name, type=Text(), native=cell, form=Form.TEXT)
    batch = Writer((column,)).batch([(cell,)])
    about: Any = StatementResult(number=1, start=0, end=1, kind="read", columns=(column,), rows=1, notices=(cell, name))
    seen(html(Result(about, library().Table.from_batches([batch]))))


@pytest.mark.parametrize("engine", ["postgresql", "mysql", "sqlite"])
@example(name="a`b\"c'd]e")
@given(name=st.text(st.characters() | st.sampled_from("`\"'[];-/*%\\"), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_name_is_one_token(name: str, engine: str) -> None:
    """Whatever a name holds, what stands around it in a statement stays outside of it; or it is refused."""
    from dblens.errors import InvalidInput
    from dblens.query.lex import tokens

    made = engines.get(engine)
    try:
        quoted = made.ddl.quote(name)
    except InvalidInput:
        return
    assert made.lexis is not None
    text = f"select {quoted} from t"
    kinds = [(token.kind, text[token.start : token.end]) for token in tokens(text, made.lexis)]
    assert [kind for kind, _ in kinds] == ["word", "name", "word", "word"], kinds
    assert kinds[1][1] == quoted
    mark = quoted[0]
    assert quoted[1:-1].replace(mark * 2, mark) == name
