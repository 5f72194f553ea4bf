"""`%%dblens` in a real kernel: what cells show, what is offered, what an interrupt stops on the server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing

import nbformat
import psycopg
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.jupyter.conftest import Kernel, Person, until
from tests.servers import PASSWORD
from tests.servers.mysql import MySQL
from tests.servers.postgres import Postgres


def test_a_session_of_work(kernel: Kernel) -> None:
    assert "shop  sqlite  dev" in kernel.text("%dblens")
    (shown,) = kernel.run("%%dblens shop\nselect * from customers order by id")
    assert "<b>Bob" not in shown["data"]["text/html"]
    assert "&lt;b&gt;Bob&lt;/b&gt;" in shown["data"]["text/html"]
    assert "3 rows × 3 columns" in shown["data"]["text/plain"]
    assert kernel.text("_.scalar() if len(_.rows()) == 1 else len(_.rows())") == "3", "the result is `_`"

    assert "orders_df: Result(29 rows" in kernel.text("%%dblens shop --to df orders_df\nselect * from orders")
    assert kernel.text("int(orders_df.id.max()), orders_df.shape") == "(9007199254740993, (29, 4))"
    assert kernel.text("%%dblens shop --to arrow a --quiet\nselect 1 as n") == ""
    assert "polars" in kernel.text("%%dblens shop --to polars p --quiet\nselect 1 as n") + kernel.text(
        "type(p).__module__"
    )

    kernel.run("city, least = 'Bern', 20.0")
    text = "select name from customers where city = :city"
    assert "Ann" in kernel.text(f"%%dblens shop --params\n{text}")
    assert "Ann" in kernel.text(f"%%dblens shop --params city\n{text}")
    assert "Ann" in kernel.text(f"%%dblens shop -p city=Bern\n{text}")
    assert "no value for :city" in kernel.text(f"%%dblens shop\n{text}"), "never filled in unasked"
    assert "no variable 'town'" in kernel.text("%%dblens shop --params\nselect :town")

    kernel.run("%%dblens shop --as big\nselect * from orders where total >= :least")
    assert "no value for :least" in kernel.text("%%dblens shop --as big\nselect * from orders where total >= :least")
    kernel.run("%%dblens shop --as big --no-run\nselect * from orders where total > 30")
    kernel.run(
        "%%dblens shop --as named --no-run\nselect b.id, c.name from big b join customers c on c.id = b.customer_id"
    )
    assert kernel.text("%%dblens shop\nselect count(*) as n from named").split()[2] == "8"
    assert "only a SELECT can be kept" in kernel.text("%%dblens shop --as gone\ndelete from orders")
    assert "in a circle" in kernel.text("%%dblens shop --as big\nselect * from named")

    shown = kernel.text("%%dblens shop\nselect nope from orders")
    assert shown.strip() == "QueryFailed: no such column: nope", "no frames of ours"
    assert "There are more rows" in kernel.text("%%dblens shop --limit 2\nselect * from orders")
    assert "the connection of cells" not in kernel.text("%dblens use shop")
    assert "1 row × 1 column" in kernel.text("%%dblens\nselect 1")
    assert "a'b" in kernel.text("%dblens shop select 'a''b' as t")
    assert "hint: one of df" in kernel.text("%%dblens shop --to excel x\nselect 1")
    assert "no connection" in kernel.text("%%dblens nowhere\nselect 1")
    assert "--to KIND NAME" in kernel.text("%dblens --help")
    assert kernel.text("%%dblens shop --quiet\nselect customer_id, total from orders\n") == ""
    kernel.run("%%dblens shop --to results r --quiet\nselect customer_id, sum(total) as t from orders group by 1")
    assert "bar" in kernel.text("r.plot('bar').data[0].type")


def test_writes_and_read_only(kernel: Kernel) -> None:
    assert "2 rows affected" in kernel.text("%%dblens shop\nupdate customers set city = city where id < 3")
    assert "read-only" in kernel.text("%%dblens shop --read-only\nupdate customers set city = 'x'").lower()
    assert "Bern" in kernel.text("%%dblens shop\nselect city from customers where id = 1")


def test_each_query_says_from_which_notebook_and_cell(person: Person) -> None:
    """By nbclient, as Jupyter runs notebooks; the history of the connection has it."""
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("%load_ext dblens.jupyter"),
            nbformat.v4.new_code_cell("%%dblens shop\nselect 'provenance' as word"),
        ]
    )
    client = NotebookClient(notebook, timeout=60, kernel_name="python3")
    env = {**person.env, "JPY_SESSION_NAME": "/team/report.ipynb"}
    with client.setup_kernel(env=env, cwd=str(person.folder)):
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
    assert "provenance" in notebook.cells[1].outputs[0]["data"]["text/html"]
    nbformat.validate(notebook)
    done = subprocess.run(
        [sys.executable, "-m", "dblens", "history", "--json"],
        env=person.env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = next(each for each in json.loads(done.stdout)["items"] if "provenance" in each["text"])
    assert (found["client"], found["notebook"]) == ("magic", "/team/report.ipynb")
    assert found["cell"]


def test_an_error_fails_the_notebook(person: Person) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("%load_ext dblens.jupyter"),
            nbformat.v4.new_code_cell("%%dblens shop\nselect x y z"),
        ]
    )
    with pytest.raises(CellExecutionError, match="QueryFailed"):
        NotebookClient(notebook, timeout=60, kernel_name="python3").execute(env=person.env, cwd=str(person.folder))


# ------------------------------------------------------------------------------------------------------------------- completion


def test_completion_in_the_kernel(kernel: Kernel) -> None:
    assert kernel.offered("%%dblens sh|") == (["shop"], "sh")
    assert kernel.offered("%%dblens shop --to |")[0] == ["df", "arrow", "polars", "results"]
    found, replaced = kernel.offered("%%dblens shop\nselect o.| from orders o join customers c on c.id = o.customer_id")
    assert (found, replaced) == (["id", "customer_id", "placed", "total"], "")
    assert kernel.offered("%%dblens shop\nselect o.cu| from orders o") == (["customer_id"], "cu")
    assert kernel.offered("%%dblens shop\nselect * from orders o join customers as c on c.|")[0] == [
        "id",
        "name",
        "city",
    ]
    assert kernel.offered("%%dblens shop\nselect * from |")[0] == ["customers", '"odd name"', "orders"]
    assert kernel.offered('%%dblens shop\nselect t.| from "odd name" t')[0] == ['"Mixed Case"']
    assert kernel.offered("%%dblens shop\nselect 'o.|")[0] == [], "not within a string"
    assert kernel.offered("%%dblens nowhere\nselect o.| from orders o")[0] == []
    kernel.run("%%dblens shop --as recent --no-run\nselect * from orders")
    assert kernel.offered("%%dblens shop\nselect * from rec|")[0] == ["recent"]
    kernel.run("number = 1")
    assert "number" in kernel.offered("numb|")[0], "other cells are Python's"


# -------------------------------------------------------------------------------------------------------------------- interrupt


def test_an_interrupt_of_the_cell_stops_the_query_on_postgresql(person: Person, kernel: Kernel, pg15: Postgres) -> None:
    person.connect("pg", pg15.url(), PASSWORD)
    with closing(psycopg.connect(pg15.url(), autocommit=True)) as judge:

        def asleep() -> bool:
            found = judge.execute(
                "select count(*) from pg_stat_activity where query like '%pg_sleep(77%' and state = 'active' and pid <> pg_backend_pid()"
            ).fetchone()
            return found is not None and found[0] > 0

        _interrupted(kernel, "%%dblens pg\nselect pg_sleep(77)", asleep)
    assert "1 row × 1 column" in kernel.text("%%dblens pg\nselect 1")


def test_an_interrupt_of_the_cell_stops_the_query_on_mariadb(
    person: Person, kernel: Kernel, mariadb: MySQL, new_database: Callable[..., str]
) -> None:
    person.connect("maria", new_database(mariadb), PASSWORD)
    with closing(mariadb.connect()) as judge:

        def asleep() -> bool:
            with judge.cursor() as cursor:
                cursor.execute(
                    "select count(*) from information_schema.processlist where info like '%sleep(77%' and id <> connection_id()"
                )
                return bool(cursor.fetchone()[0])

        _interrupted(kernel, "%%dblens maria\nselect sleep(77)", asleep)
    assert "1 row × 1 column" in kernel.text("%%dblens maria\nselect 1")


def _interrupted(kernel: Kernel, code: str, asleep: object) -> None:
    message = kernel.begin(code)
    until(asleep, 20)  # type: ignore[arg-type]
    kernel.manager.interrupt_kernel()
    begun = time.monotonic()
    until(lambda: not asleep(), 1.0)  # type: ignore[operator]
    shown = kernel.end(message, 10)
    assert any(
        "KeyboardInterrupt" in "".join(each.get("traceback", ()))
        or each.get("ename") in ("KeyboardInterrupt", "Cancelled")
        for each in shown
    ), shown
    assert time.monotonic() - begun < 5
    assert PASSWORD not in json.dumps(shown)
