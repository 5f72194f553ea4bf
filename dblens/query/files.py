"""Saved queries as files that people read and version: `.sql` and `.mongodb`, with what is known of them in comments at the top."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, TypeAlias

import msgspec

from dblens.errors import InvalidInput

Language: TypeAlias = Literal["sql", "mongodb"]
ENDINGS: Final[dict[Language, str]] = {"sql": ".sql", "mongodb": ".mongodb"}
_MARKS: Final[dict[str, str]] = {"sql": "--", "mongodb": "//"}
_FIELD: Final = re.compile(r"(name|connection|description|param(?: [A-Za-z_]\w*)?)\s*[:=]\s?(.*)")


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A query as a file holds it."""

    name: str
    text: str
    language: Language = "sql"
    connection: str | None = None
    description: str = ""
    params: dict[str, Any] = {}


def write(query: Written) -> str:
    """Return the text of the file."""
    mark = _MARKS[query.language]
    lines = [f"name: {_line(query.name)}"]
    lines += [f"connection: {_line(query.connection)}"] if query.connection else []
    lines += [f"description: {_line(line)}" for line in query.description.splitlines()]
    lines += [f"param {name} = {msgspec.json.encode(value).decode()}" for name, value in query.params.items()]
    return "".join(f"{mark} {line}\n" for line in lines) + "\n" + query.text.rstrip() + "\n"


def read(data: str, *, file: str = "", language: Language | None = None) -> Written:
    """Return what a file holds; one without a name in it has the file's. Raises InvalidInput."""
    stem = file.rpartition("/")[2]
    if language is None:
        language = "mongodb" if stem.endswith((".mongodb", ".mongodb.js", ".js")) else "sql"
    mark, fields, params, description = _MARKS[language], dict[str, str](), dict[str, Any](), list[str]()
    lines = data.removeprefix("\ufeff").splitlines()
    at = 0
    while at < len(lines) and lines[at].startswith(mark):
        found = _FIELD.fullmatch(lines[at].removeprefix(mark).strip())
        if found is None:
            break
        key, value = found[1], found[2].strip()
        if key.startswith("param"):
            name = key.removeprefix("param").strip()
            try:
                params[name] = msgspec.json.decode(value)
            except msgspec.DecodeError:
                raise InvalidInput(
                    f"{file or 'the file'}: the parameter {name!r} is {value[:60]!r}", hint="JSON"
                ) from None
        elif key == "description":
            description.append(value)
        else:
            fields[key] = value
        at += 1
    text = "\n".join(lines[at:]).strip()
    if not text:
        raise InvalidInput(f"{file or 'the file'} holds no query", hint="its text follows the comments")
    name = fields.get("name") or re.sub(r"(\.mongodb\.js|\.[a-z]+)$", "", stem)
    return Written(
        name=name,
        text=text,
        language=language,
        connection=fields.get("connection") or None,
        description="\n".join(description),
        params=params,
    )


def file_name(name: str, language: Language) -> str:
    """Return a name for the file that stays in its folder whatever the query is called."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80] or "query"
    return plain + ENDINGS[language]


def _line(text: str) -> str:
    return " ".join(text.split())
