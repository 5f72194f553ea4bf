"""Safe ways to a database: what may be asked for, where it may lead, and sessions that go nowhere else.

`spec` says what a connection is, `guard` where it may go, `files` which SQLite files, `tunnel` how through SSH, `connect` opens a session,
`reach` tells why one cannot be opened, `pool` keeps a few open.
"""
