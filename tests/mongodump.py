"""Put folders that the real mongodump wrote into a test database: `<collection>.bson` and `<collection>.metadata.json`."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from bson import json_util
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient


def documents(octets: bytes) -> Iterator[bytes]:
    """Cut a .bson file into documents."""
    at = 0
    while at < len(octets):
        end = at + int.from_bytes(octets[at : at + 4], "little")
        assert at + 5 <= end <= len(octets), "broken BSON"
        yield octets[at:end]
        at = end


def _read(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _direction(value: Any) -> Any:
    """Old servers took anything as a direction (true, "", 0); new ones want 1 or -1."""
    if isinstance(value, str) and value:
        return value
    return -1 if isinstance(value, (int, float)) and value < 0 else 1


def restore(folder: Path, url: str) -> dict[str, int]:
    """Restore a database folder; return the documents by collection. Collections that are there already are replaced."""
    client: MongoClient[dict[str, Any]] = MongoClient(url)
    database = client[unquote_plus(urlsplit(url).path.lstrip("/"))]
    counts: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        stem = path.name.removesuffix(".gz")
        if not stem.endswith(".bson") or stem == "oplog.bson":
            continue
        name = unquote_plus(stem.removesuffix(".bson"))
        database.drop_collection(name)
        metadata = _metadata(folder, path.name.replace(".bson", ".metadata.json"))
        database.create_collection(name, **metadata.get("options", {}))
        raws = [RawBSONDocument(raw) for raw in documents(_read(path))]
        if raws:
            database.get_collection(name).insert_many(raws)  # type: ignore[arg-type]
        for spec in metadata.get("indexes", ()):
            if spec["name"] != "_id_":
                keys = [(field, _direction(value)) for field, value in spec["key"].items()]
                options = {
                    k: v
                    for k, v in spec.items()
                    if k in ("unique", "sparse", "partialFilterExpression", "expireAfterSeconds")
                }
                database[name].create_index(keys, name=spec["name"], **options)
        counts[name] = len(raws)
    client.close()
    return counts


def _metadata(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.exists():
        return {}
    parsed = json_util.loads(_read(path).decode())
    assert isinstance(parsed, dict)
    return parsed
