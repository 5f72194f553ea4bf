"""The languages of the engines, as their splitters know them."""

from __future__ import annotations

from dblens.engines.asking import Lexis

POSTGRES = Lexis(dialect="postgres", placeholder="numbered", dollar_quotes=True, nested_comments=True, bodies="atomic")
MYSQL = Lexis(
    dialect="mysql",
    placeholder="format",
    identifier_quotes="`",
    string_quotes="'\"",
    backslash_escapes=True,
    hash_comments=True,
    dashes_need_space=True,
    executed_comments=True,
    delimiter_command=True,
)
SQLITE = Lexis(dialect="sqlite", placeholder="question", identifier_quotes='"`', brackets=True, bodies="trigger")
SHELL = Lexis(dialect="", placeholder="question", identifier_quotes="", string_quotes="'\"`", backslash_escapes=True)
ALL = {"postgres": POSTGRES, "mysql": MYSQL, "sqlite": SQLITE, "shell": SHELL}
SQL = {name: lexis for name, lexis in ALL.items() if lexis.dialect}
