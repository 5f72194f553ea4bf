"""Plans and verdicts as HTML tables for notebooks. Everything from a database is escaped; colours follow the reader's theme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from dblens.events import Event, Progress, StepDone, StepStarted, Warned
from dblens.migrate.apply import Outcome
from dblens.migrate.model import Plan

_STYLE = (
    "border-collapse:collapse;font-size:13px;font-family:var(--jp-content-font-family,sans-serif);"
    "color:var(--jp-content-font-color1,inherit)"
)
_CELL = "text-align:left;padding:3px 10px;border-bottom:1px solid var(--jp-border-color2,#8884);vertical-align:top"


class Html(str):
    """HTML text that a notebook shows as such."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "none") -> Html:
    """Return an HTML table; `empty` stands instead of no rows."""
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(_text(cell))}</td>' for cell in row) + "</tr>" for row in rows
    )
    if not body:
        return Html(f"<p><b>{escape(title)}</b>: {escape(empty)}</p>")
    heads = "".join(f'<th style="{_CELL}">{escape(h)}</th>' for h in head)
    return Html(
        f'<p><b>{escape(title)}</b></p><table style="{_STYLE}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    )


def _text(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return str(value)


def plan_table(plan: Plan) -> Html:
    """Return the tables of a plan: rows, route, target type changes."""
    rows = [
        (t.name, t.shown, t.rows, len(t.fields), f"{t.mode} ({t.format})", "; ".join(t.transforms[:4]))
        for t in plan.tables
    ]
    title = f"{plan.source.identity} → {plan.target.identity}"
    return table(title, ("source", "target", "rows", "columns", "route", "transforms"), rows)


def loss_table(plan: Plan) -> Html:
    """Return the loss ledger: what the target cannot hold, how often, and what happens to it."""
    rows = [
        (loss.id, loss.count, loss.repair, "; ".join(",".join(v or "NULL" for v in s) for s in loss.samples), loss.why)
        for loss in plan.losses
    ]
    return table("Loss ledger", ("loss", "values", "becomes", "sample keys", "why"), rows, empty="no value is lost")


def exclusion_table(plan: Plan) -> Html:
    """Return what does not come along, with its source text."""
    rows = [(e.kind, e.name, e.reason, e.source or "") for e in plan.exclusions]
    return table("Not migrated", ("kind", "name", "reason", "source text"), rows, empty="everything comes along")


def verdict_table(outcome: Outcome) -> Html:
    """Return the verdict of every table."""
    rows = [
        (
            v.table,
            v.source_rows,
            v.target_rows,
            "equal" if v.equal else f"{v.differing} differ",
            v.source_digest,
            v.seconds,
        )
        for v in outcome.verdicts
    ]
    word = "every row equal" if outcome.equal else "NOT EQUAL"
    return table(
        f"Verdict: {word}, {outcome.rows:,} rows",
        ("table", "source rows", "target rows", "result", "digest", "s"),
        rows,
    )


class NotebookProgress:
    """Shows events in one line of a notebook that is rewritten in place."""

    def __init__(self) -> None:
        from IPython.display import display

        self._steps: list[str] = []
        self._last = 0.0
        self._handle: Any = display(Html(""), display_id=True)  # type: ignore[no-untyped-call]

    def __call__(self, event: Event) -> None:
        import time

        line = ""
        match event:
            case StepStarted(step=step):
                line = f"{step} …"
            case StepDone(step=step, seconds=seconds):
                self._steps.append(f"{step} {seconds:.2f} s")
            case Warned(message=message):
                self._steps.append(f"note: {message}")
            case Progress(task=task, done=done, total=total, unit=unit):
                if time.monotonic() - self._last < 0.2:
                    return
                self._last = time.monotonic()
                line = f"{task}: {done:,}{f' of {total:,}' if total else ''} {unit}"
        self._handle.update(Html("<pre>" + escape("\n".join([*self._steps, line])) + "</pre>"))
