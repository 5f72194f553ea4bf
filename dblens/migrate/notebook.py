"""Run a migration as a notebook whose executed copy is the evidence, and check such a copy.

After the run every cell's source and outputs are hashed and kept with the manifest in the notebook's metadata under `dblens`. `check`
recomputes all of them and names what no longer fits. That finds accidents. Where a store key is at hand it signs what the notebook
says (`evidence.signed_form`), and `authorship` tells whether that is so: it answers for intent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from dblens.errors import ArchiveCorrupt, ArchiveMissing, DBLensError, InvalidInput, Unsupported
from dblens.migrate.evidence import PURPOSE, Authorship, Manifest, Sign, manifest_hash, signed_form
from dblens.signature import PublicKey, Signature, judge

MIME = "application/vnd.dblens.manifest+json"


def template(name: str = "migrations/migrate.ipynb") -> Path:
    """Return the path of a notebook that ships with DBLens. Raises ArchiveMissing."""
    places = [
        Path(__file__).resolve().parents[2] / "notebooks",
        Path(sysconfig.get_path("data")) / "share" / "dblens" / "notebooks",
    ]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise ArchiveMissing(f"the notebook {name} is not installed", hint="reinstall DBLens")


def run(
    parameters: dict[str, Any],
    output: Path,
    *,
    environment: dict[str, str] | None = None,
    sign: Sign | None = None,
) -> Manifest:
    """Execute the migration notebook with papermill and seal its output; return the manifest.

    `environment` are passwords by the names of their variables. The kernel does not inherit those, because every process of this user
    can read the environment of another: it finds them by `handed`, in files that are gone afterwards. `sign` signs the outcome.
    Raises Unsupported without papermill, InvalidInput when a folder is missing, and the migration's own error when a cell fails; the
    executed notebook is kept in either case.
    """
    try:
        import papermill
    except ImportError as error:
        raise Unsupported(
            "running notebooks", "papermill is not installed", hint="pip install 'dblens[notebook]'"
        ) from error
    if not output.parent.is_dir():
        raise InvalidInput(f"the folder {output.parent} does not exist", hint="create it, or choose another -o")
    try:
        with _handing_over(environment or {}):
            papermill.execute_notebook(
                str(template()),
                str(output),
                parameters=parameters,
                progress_bar=False,
                log_output=False,
                kernel_name="python3",
                extra_arguments=["--log-level=ERROR"],
            )
    except papermill.PapermillExecutionError as error:
        raise NotebookError(error.ename, error.evalue, str(output)) from None
    return seal(output, sign)


def handed(name: str) -> str | None:
    """Return a secret by the name of its variable: what `run` handed over, else the variable; None without a name."""
    path = os.environ.get(f"{name}_FILE") if name else None
    if path is not None:
        return Path(path).read_text("utf-8")
    return os.environ.get(name) if name else None


@contextlib.contextmanager
def _handing_over(secrets: dict[str, str]) -> Iterator[None]:
    """Let the kernel that starts meanwhile find secrets in a private folder, and none of them in its environment."""
    with tempfile.TemporaryDirectory(prefix="dblens-") as folder:  # mode 0700
        changed: dict[str, str | None] = {}
        for number, (name, text) in enumerate(secrets.items()):
            path = Path(folder) / str(number)
            path.touch(mode=0o600)
            path.write_text(text, "utf-8")
            changed |= {name: os.environ.pop(name, None), f"{name}_FILE": os.environ.get(f"{name}_FILE")}
            os.environ[f"{name}_FILE"] = str(path)
        try:
            yield
        finally:
            for name, before in changed.items():
                os.environ.pop(name, None)
                if before is not None:
                    os.environ[name] = before


class NotebookError(DBLensError):
    """A cell failed; the exit code is that of the error it raised."""

    def __init__(self, kind: str, message: str, output: str) -> None:
        import dblens.errors

        origin = getattr(dblens.errors, kind, DBLensError)
        super().__init__(
            f"the migration notebook stopped: {message.partition(chr(10))[0]}",
            hint=f"the executed notebook is {output}",
        )
        if isinstance(origin, type) and issubclass(origin, DBLensError):
            self.code, self.http, self.exit = origin.code, origin.http, origin.exit  # type: ignore[misc]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _load(path: Path) -> dict[str, Any]:
    try:
        notebook = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ArchiveMissing(f"there is no notebook {path}", hint="check the path") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArchiveCorrupt(f"{path} is not a notebook: {error}", hint="it must be an executed .ipynb file") from error
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ArchiveCorrupt(f"{path} is not a notebook", hint="it must be an executed .ipynb file")
    return notebook


def _cell_hashes(notebook: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "id": str(cell.get("id", i)),
            "source": _digest(_joined(cell.get("source", ""))),
            "outputs": _digest([_stable(o) for o in cell.get("outputs", [])]),
        }
        for i, cell in enumerate(notebook["cells"])
    ]


def _joined(text: object) -> object:
    return "".join(text) if isinstance(text, list) else text


def _stable(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output without what saving a notebook again may change (execution counts, how lines are split)."""
    kept = {k: v for k, v in output.items() if k not in ("execution_count", "metadata", "transient")}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {k: _joined(v) if k.startswith("text/") else v for k, v in kept["data"].items()}
    if "text" in kept:
        kept["text"] = _joined(kept["text"])
    return kept


def _manifest_in(notebook: dict[str, Any], path: Path) -> dict[str, Any]:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if MIME in data:
                found = data[MIME]
                return json.loads(found) if isinstance(found, str) else found  # type: ignore[no-any-return]
    raise ArchiveCorrupt(f"{path} holds no migration manifest", hint="was it executed to its end?")


def seal(path: Path, sign: Sign | None = None) -> Manifest:
    """Write manifest, hashes of all cells and a signature if there is who signs into an executed notebook; return the manifest."""
    notebook = _load(path)
    manifest = msgspec.convert(_manifest_in(notebook, path), Manifest)
    seal_ = {"manifest": msgspec.to_builtins(manifest), "cells": _cell_hashes(notebook)}
    if sign is not None:
        seal_["signature"] = msgspec.to_builtins(sign(signed_form(notebook, seal_["manifest"]), purpose=PURPOSE))
    notebook.setdefault("metadata", {})["dblens"] = {**seal_, "hash": _digest(seal_)}
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)
    return manifest


def check(path: Path) -> tuple[Manifest | None, list[str]]:
    """Recompute an evidence notebook; return its manifest and what was altered (nothing: intact).

    Raises ArchiveMissing and ArchiveCorrupt for a file that is no evidence at all.
    """
    notebook = _load(path)
    kept = notebook.get("metadata", {}).get("dblens")
    if not isinstance(kept, dict):
        raise ArchiveCorrupt(f"{path} has no seal", hint="make it with `dblens migrate notebook SRC DST -o out.ipynb`")
    found: list[str] = []
    if _digest({k: v for k, v in kept.items() if k != "hash"}) != kept.get("hash"):
        found.append("the seal in the notebook's metadata")
    manifest: Manifest | None = None
    try:
        manifest = msgspec.convert(kept.get("manifest"), Manifest)
    except msgspec.ValidationError as error:
        found.append(f"the manifest ({error})")
    if manifest is not None:
        if manifest_hash(manifest) != manifest.hash:
            found.append("the manifest's own fields")
        try:
            if _manifest_in(notebook, path) != kept.get("manifest"):
                found.append("the manifest shown in the last cell")
        except ArchiveCorrupt:
            found.append("the manifest shown in the last cell (it is gone)")
        found.extend(
            f"the verdict of {t.table}: digests differ although it says equal"
            for t in manifest.tables
            if t.equal and t.source_digest != t.target_digest
        )
    now, then = _cell_hashes(notebook), kept.get("cells")
    if not isinstance(then, list):
        then = []
    if len(now) != len(then):
        found.append(f"the number of cells ({len(then)} sealed, {len(now)} now)")
    for i, (a, b) in enumerate(zip(now, then, strict=False), start=1):
        sealed = b if isinstance(b, dict) else {}
        found.extend(f"cell {i}: its {part}" for part in ("source", "outputs") if a[part] != sealed.get(part))
    return manifest, found


def authorship(path: Path, keys: Iterable[PublicKey]) -> Authorship:
    """Tell who signed a notebook, given the public keys that are trusted. Raises ArchiveMissing, ArchiveCorrupt."""
    notebook = _load(path)
    kept = notebook.get("metadata", {}).get("dblens")
    if not isinstance(kept, dict) or "signature" not in kept:
        return Authorship(state="unsigned")
    try:
        signature = msgspec.convert(kept["signature"], Signature)
    except msgspec.ValidationError:
        return Authorship(state="wrong", why="it is no signature")
    found = judge(signed_form(notebook, kept.get("manifest")), signature, keys, purpose=PURPOSE)
    return Authorship(state=found.state, key_id=found.key_id, at=found.at, why=found.why)
