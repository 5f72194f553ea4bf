"""One migration in its own process, so that it can be killed. Prints a line for each event; addresses come by environment."""

from __future__ import annotations

import json
import os
import sys

from dblens.events import Event, Progress, StepDone, StepStarted
from dblens.migrate import model
from dblens.migrate.apply import apply_plan, resume
from dblens.migrate.link import link
from dblens.migrate.undo import rollback


def say(event: Event) -> None:
    """Print one line an event: what the parent counts before it kills."""
    match event:
        case StepStarted(step=step):
            print(f"start {step}", flush=True)
        case StepDone(step=step):
            print(f"done {step}", flush=True)
        case Progress(task=task, done=done):
            print(f"progress {task} {done}", flush=True)
        case _:
            print("note", flush=True)


def main() -> None:
    """Apply, resume or roll back as DBLENS_FAULT_JOB says."""
    job = json.loads(os.environ["DBLENS_FAULT_JOB"])
    source, target = (link(job[side], allow_password=True) for side in ("source", "target"))
    if job["do"] == "apply":
        with open(job["plan"], "rb") as file:
            plan = model.read(file.read())
        outcome = apply_plan(plan, source, target, accept=["all"], report=say)
    elif job["do"] == "rollback":
        print(f"end {rollback(job['run'], target, report=say)}", flush=True)
        return
    else:
        outcome = resume(job["run"], source, target, mode=job["mode"], report=say)
    print(f"end {outcome.state} {outcome.equal}", flush=True)
    sys.exit(0 if outcome.equal else 1)


if __name__ == "__main__":
    main()
