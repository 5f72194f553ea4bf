"""How fast DBLens moves a table, against the target's own loader and against the tools people use. Prints ratios, asserts nothing.

    python -m tests.bench                                            # 250,000 rows, every pair, 3 rounds
    python -m tests.bench --rows 1000000 --pairs pg-pg,sl-pg --json
    python -m tests.bench memory --rows 10000000                     # how much the client grows

The machine is shared and noisy, so every contender of a pair runs once a round, one after the other, and the minimum of the rounds
counts; `load` is the machine's load average when the pair began. Servers are those of `tests/servers`, with a normal WAL level and
room for the data; source and target of one engine are two databases of one server.

The data set `orders` is that of the design notes: 12 columns (bigint key, three integers, numeric(12,2), double, timestamp(6), nullable date,
boolean, text with tabs, newlines, quotes, backslashes and characters of four octets, JSON, 16 random octets), about 225 octets a row.

| contender | what it does |
|---|---|
| floor | the target's own loader reading a prepared local file into a new table with its primary key: `psql` COPY binary after a CHECKPOINT; `mariadb` LOAD DATA LOCAL; `sqlite3 -ascii .import`, journal and sync off, the octets as hex text (`.import` knows no blobs and writes NULL as '') |
| psql \\| psql | COPY binary out of one `psql` into another |
| pg_dump \\| psql | the table with its key |
| mysqldump \\| mysql | MariaDB's own pair |
| pgloader | one table into a fresh database, its default casts |
| dblens | plan, stage, copy, build, verify, swap in one fresh process, by the door `dblens.open().migrations` |

`copy` is stage + copy + build, since DBLens makes keys after the rows and the others before; `total` is the wall time of the whole process with
its start-up; `client` is CPU seconds of the client processes, not of the servers.
"""
