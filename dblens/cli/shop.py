"""The demo's shop: a small realistic database, generated inside SQLite itself, the same every time."""

from __future__ import annotations

from pathlib import Path

from dblens.engines import connect
from dblens.engines.base import Url

_STATEMENTS = (
    """create table country (
        code text primary key check (length(code) = 2), name text not null)""",
    """create table customer (
        id integer primary key autoincrement, name text not null, email text not null unique,
        country text not null references country (code), born date, vip boolean not null default 0,
        credit decimal(12,2) not null default 0, created_at datetime not null)""",
    """create table category (
        id integer primary key, name text not null, parent_id integer references category (id))""",
    """create table product (
        id integer primary key autoincrement, category_id integer not null references category (id), name text not null,
        price decimal(10,2) not null check (price >= 0), weight real, attributes json, picture blob)""",
    """create table "order" (
        id integer primary key autoincrement, customer_id integer not null references customer (id) on delete cascade,
        status text not null default 'new', placed_at datetime not null, note text)""",
    """create table order_line (
        order_id integer not null references "order" (id) on delete cascade, line integer not null,
        product_id integer not null references product (id), quantity integer not null, price decimal(10,2) not null,
        primary key (order_id, line))""",
    """create table page_view (at datetime not null, path text not null, milliseconds real)""",
    'create index order_by_customer on "order" (customer_id, placed_at desc)',
    "create index product_by_category on product (category_id)",
    """create view revenue as select c.country, sum(l.quantity * l.price) as total from order_line l
        join "order" o on o.id = l.order_id join customer c on c.id = o.customer_id group by c.country""",
    """create trigger order_status_checked before update of status on "order"
        when new.status not in ('new', 'paid', 'sent', 'returned')
        begin select raise(abort, 'unknown status'); end""",
)

_COUNTRIES = "insert into country values ('DE','Deutschland'),('FR','France'),('JP','日本'),('BR','Brasil'),('IS','Ísland'),('GR','Ελλάδα')"
_CATEGORIES = """insert into category values (1,'Everything',null),(2,'Books',1),(3,'Music',1),(4,'Cheese & wine',1),
    (5,'Comics',2),(6,'Vinyl',3)"""

_ROWS = (
    # Text that breaks naive loaders is part of it: tabs, newlines, quotes, backslashes, emoji, 'NULL' and ''.
    """insert into customer (name, email, country, born, vip, credit, created_at)
    with recursive n(i) as (select 1 union all select i + 1 from n where i < {customers})
    select case i % 7 when 0 then 'Zoë O''Neill' when 1 then '山田 花子' when 2 then 'José "Pepe" Núñez' when 3 then 'Anna\\Maria'
             when 4 then 'NULL' when 5 then 'Müller' || char(9) || 'Søn' else 'Ólafur 🧊' end || ' ' || i,
           'customer' || i || '@example.org', substr('DEFRJPBRISGR', 1 + 2 * (i % 6), 2),
           case when i % 11 then date('1950-01-01', '+' || (i * 37 % 20000) || ' days') end, i % 13 = 0,
           printf('%d.%02d', i * 7919 % 5000, i * 31 % 100),
           strftime('%Y-%m-%d %H:%M:%f', '2024-01-01', '+' || (i * 613) || ' seconds') from n""",
    """insert into product (category_id, name, price, weight, attributes, picture)
    with recursive n(i) as (select 1 union all select i + 1 from n where i < {products})
    select 2 + i % 5, 'Product ' || i || case when i % 5 = 0 then char(10) || 'second line' else '' end,
           printf('%d.%02d', 1 + i * 17 % 300, i * 7 % 100), case when i % 4 then i / 7.0 end,
           json_object('colour', substr('redblugre', 1 + 3 * (i % 3), 3), 'size', i % 40, 'tags', json_array('a' || i, 'ä')),
           case when i % 3 = 0 then cast(zeroblob(4) || i as blob) end from n""",
    """insert into "order" (customer_id, status, placed_at, note)
    with recursive n(i) as (select 1 union all select i + 1 from n where i < {orders})
    select 1 + i * 7 % {customers}, case i % 4 when 0 then 'new' when 1 then 'paid' when 2 then 'sent' else 'returned' end,
           strftime('%Y-%m-%d %H:%M:%f', '2025-01-01', '+' || (i * 97.25) || ' seconds'),
           case i % 9 when 0 then '' when 1 then 'ring twice' || char(10) || '"back door"' when 2 then 'C:\\temp\\new' end from n""",
    """insert into order_line
    with recursive n(i) as (select 1 union all select i + 1 from n where i < {orders}),
         k(j) as (values (1), (2), (3))
    select i, j, 1 + (i * 3 + j * 11) % {products}, 1 + (i + j) % 5, printf('%d.%02d', 1 + (i * j) % 300, (i + j) % 100) from n, k
    where j <= 1 + i % 3""",
    """insert into page_view
    with recursive n(i) as (select 1 union all select i + 1 from n where i < {views})
    select strftime('%Y-%m-%d %H:%M:%f', '2025-06-01', '+' || (i * 1.5) || ' seconds'), '/product/' || (i * 13 % {products}),
           (i % 997) / 3.0 from n""",
)


def build_shop(path: Path, *, scale: int = 1) -> int:
    """Create the shop in a new SQLite file and return its number of rows (about 70,000 at scale 1)."""
    sizes = {"customers": 2_000 * scale, "products": 500 * scale, "orders": 12_000 * scale, "views": 30_000 * scale}
    session = connect(Url(scheme="sqlite", database=str(path)), create=True)
    try:
        for statement in (*_STATEMENTS, _COUNTRIES, _CATEGORIES):
            session.execute(statement)
        for statement in _ROWS:
            text = statement
            for name, size in sizes.items():
                text = text.replace("{" + name + "}", str(size))
            session.execute(text)
        return sum(session.count(table) for table in session.inspect().tables)
    finally:
        session.close()
