"""What a text holds: its statements, what each seems to do, and where its parameters stand. Advice, and no defence: the server decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from dblens.engines.base import Engine
from dblens.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from dblens.engines.asking import Lexis
    from dblens.query.split import Piece

Action = Literal["read", "write", "ddl", "transaction", "session", "unknown"]
_GRAVEST_FIRST: Final[tuple[Action, ...]] = ("unknown", "ddl", "write", "session", "transaction")
LONGEST: Final = 2_000_000
"""Characters of a text."""


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A statement of a text: its place in it in characters, the line it begins on, its parameters, what it seems to do."""

    number: int
    text: str
    start: int
    end: int
    line: int
    column: int
    action: Action
    warnings: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()

    @property
    def reads(self) -> bool:
        """Return whether it is known to read only."""
        return self.action == "read"

    def bound(self, engine: Engine, values: Mapping[str, object]) -> tuple[str, Sequence[object]]:
        """Return the text as the engine takes it, and what stands in its places. Raises InvalidInput."""
        from dblens.query import params

        if engine.lexis is None:
            return self.text, ()
        return params.bound(self.text, engine.lexis, {n: values[n] for n in self.names if n in values})


def prepared(engine: Engine, text: str) -> tuple[Statement, ...]:
    """Return the statements of a text. Raises InvalidInput for what is no text or too long, Unsupported."""
    if not isinstance(text, str):
        raise InvalidInput(f"a query is a text, not a {type(text).__name__}")
    if len(text) > LONGEST:
        raise InvalidInput(f"the text has {len(text)} characters", hint=f"at most {LONGEST}")
    if "\0" in text:
        raise InvalidInput("the text holds a NUL character", hint="leave it out")
    lexis = engine.lexis
    if lexis is None:
        raise Unsupported("queries", f"{engine.title} does not answer them")
    from dblens.query import classify, params

    found = []
    for number, piece in enumerate(_pieces(engine, lexis, text), 1):
        kind = classify.classify(piece.text, lexis)
        action: Action = kind.action
        if engine.reads is not None:  # it knows its own language better
            action = "read" if engine.reads(piece.text) else "unknown" if action == "read" else action
        found.append(
            Statement(
                number=number,
                text=piece.text,
                start=piece.start,
                end=piece.end,
                line=piece.line,
                column=piece.column,
                action=action,
                warnings=tuple((each.code, each.text) for each in kind.warnings),
                names=tuple(params.names(piece.text, lexis)),
            )
        )
    return tuple(found)


def _pieces(engine: Engine, lexis: Lexis, text: str) -> Sequence[Piece]:
    from dblens.query.lex import place
    from dblens.query.split import Piece, split

    if engine.splits is None:
        return split(text, lexis)
    return [Piece(text[start:end], start, end, *place(text, start)) for start, end in engine.splits(text)]


def need(statements: Sequence[Statement]) -> Action:
    """Return the gravest thing that the statements do: unknown counts as ddl, because it may be."""
    for action in _GRAVEST_FIRST:
        if any(each.action == action for each in statements):
            return action
    return "read"
