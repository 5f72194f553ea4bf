"""Progress on stderr, drawn only when a person looks at it: rows/s and the time left, from the events of `dblens.events`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dblens.cli.output import note, safe
from dblens.events import Event, Progress, Report, StepDone, StepStarted, Warned


@contextmanager
def reporting(*, quiet: bool = False) -> Iterator[Report]:
    """Hand out a `report` callable for the time of a long operation. Warnings are always written; bars only on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield _plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    console = Console(stderr=True)
    bars = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def report(event: Event) -> None:
        match event:
            case Progress():
                if event.task not in tasks:
                    tasks[event.task] = bars.add_task(safe(event.task), total=event.total, counts="", rate="")
                task = tasks[event.task]
                bars.update(task, completed=event.done, total=event.total, counts=_counts(event))
                speed = bars.tasks[bars.task_ids.index(task)].speed
                bars.update(task, rate=f"{speed:,.0f} {event.unit}/s" if speed else "")
            case StepStarted():
                bars.console.print(Text(f"▸ {safe(event.step)} {safe(event.detail)}".rstrip(), style="dim"))
            case StepDone():
                for task in tasks.values():
                    bars.remove_task(task)
                tasks.clear()
                bars.console.print(Text(f"✔ {safe(event.step)} {event.seconds:.1f} s {safe(event.detail)}".rstrip()))
            case Warned():
                bars.console.print(Text(f"warning: {safe(event.message)}", style="yellow"))

    with bars:
        yield report


def _counts(event: Progress) -> str:
    return f"{event.done:,} of {event.total:,} {event.unit}" if event.total else f"{event.done:,} {event.unit}"


def _plain(event: Event) -> None:
    if isinstance(event, Warned):
        note(f"warning: {event.message}")
