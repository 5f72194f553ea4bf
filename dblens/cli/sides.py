"""A side of a command as the doors take it: the name of a stored connection, or an address with the password found for it."""

from __future__ import annotations

from typing import Any

from dblens.cli import passwords


def side(text: str, which: str, given: passwords.Given = passwords.Given(), *, allow_in_url: bool = False) -> Any:
    """Return a name as it is, an address as a link. Raises InvalidInput for a password that belongs to no address."""
    from dblens.errors import InvalidInput
    from dblens.migrate.link import Link, is_address

    if is_address(text):
        return Link(*passwords.address(text, which, given, allow_in_url=allow_in_url))
    if given.env is not None or given.file is not None:
        raise InvalidInput(
            f"{text!r} is the name of a connection, which has its own password",
            hint=f"drop the {which} password, or give an address",
        )
    return text
