"""What a text of a document database's shell seems to do, by the names of the methods it calls and the operators it holds. Advice."""

from __future__ import annotations

from typing import Final

from dblens.engines.asking import Lexis
from dblens.query.advice import Warning_
from dblens.query.classify import Action, Kind
from dblens.query.lex import tokens

_READS = frozenset(
    {
        "find", "findOne", "aggregate", "countDocuments", "count", "estimatedDocumentCount", "distinct", "getIndexes", "explain", "sort", "limit", "skip",
        "project", "projection", "hint", "batchSize", "maxTimeMS", "collation", "comment", "toArray", "pretty", "size", "min", "max", "returnKey",
        "allowDiskUse", "readConcern", "readPref", "getCollection", "getCollectionNames", "getCollectionInfos", "stats", "dataSize", "totalSize",
        "storageSize", "totalIndexSize", "serverStatus", "hostInfo", "version", "isCapped", "itcount", "let", "getName", "listCollections",
    }
)  # fmt: skip
_DDL = frozenset(
    {"drop", "dropDatabase", "dropIndex", "dropIndexes", "createIndex", "createIndexes", "createCollection", "createView", "renameCollection"}
)  # fmt: skip
_WRITES = frozenset(
    {
        "insert", "insertOne", "insertMany", "update", "updateOne", "updateMany", "replaceOne", "deleteOne", "deleteMany", "remove", "save", "bulkWrite",
        "findOneAndUpdate", "findOneAndReplace", "findOneAndDelete", "findAndModify",
    }
)  # fmt: skip
_OPERATORS: Final[dict[str, Action]] = {
    "$out": "write", "$merge": "write", "$where": "unknown", "$function": "unknown", "$accumulator": "unknown", "mapReduce": "unknown",
}  # fmt: skip


def classify_script(statement: str, lexis: Lexis) -> Kind:
    """Classify one statement of a shell. A method or a word that is not known makes it `unknown`."""
    found = [token for token in tokens(statement, lexis) if token.kind not in ("comment", "end")]
    said = [statement[token.start : token.end] for token in found]
    if not said:
        return Kind("unknown")
    if said[0] in ("show", "use"):
        return Kind("read" if said[0] == "show" else "session", (said[0],))
    if said[0] != "db":
        return Kind("unknown")
    action, verbs, depth = "read", [], 0
    tables = [said[2]] if len(said) > 4 and said[1] == "." and said[3] != "(" else []
    for n, word in enumerate(said):
        depth += (word in ("(", "[", "{")) - (word in (")", "]", "}"))
        called = n + 1 < len(said) and said[n + 1] == "(" and n > 0 and said[n - 1] == "."
        if depth == 0 and called:
            verbs.append(word)
            kind = "read" if word in _READS else "ddl" if word in _DDL else "write" if word in _WRITES else "unknown"
            action = _worse(action, kind)
        bare = word.strip("'\"`")
        dollar = word if word != "$" else word + (said[n + 1] if n + 1 < len(said) else "")
        for operator in {bare, dollar} & set(_OPERATORS):
            action = _worse(action, _OPERATORS[operator])
        if "\\" in word and found[n].kind == "string":  # "\u0024out" is an operator too
            action = _worse(action, "unknown")
    if not verbs:
        action = "unknown"
    return Kind(action, tuple(dict.fromkeys(verbs)), tuple(tables), _warned(verbs, said, tables))  # type: ignore[arg-type]


def _worse(a: str, b: str) -> str:
    order = ("read", "write", "ddl", "unknown")
    return max(a, b, key=order.index)


def _warned(verbs: list[str], said: list[str], tables: list[str]) -> tuple[Warning_, ...]:
    name = tables[0] if tables else "the database"
    warnings = []
    for verb in verbs:
        at = said.index(verb)
        everything = said[at + 1 : at + 4] in (["(", "{", "}"], ["(", ")"])
        if verb in ("deleteMany", "remove") and everything:
            warnings.append(
                Warning_("delete_without_where", f"{verb} without a filter removes every document of {name}")
            )
        elif verb in ("updateMany", "update") and everything:
            warnings.append(
                Warning_("update_without_where", f"{verb} without a filter changes every document of {name}")
            )
        elif verb in ("drop", "dropDatabase", "dropIndex", "dropIndexes"):
            warnings.append(Warning_("drop", f"{verb} removes {name} or a part of it; there is no undo"))
    return tuple(warnings)
