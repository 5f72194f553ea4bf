"""The key of hash masks: the caller's own, or the organization's, made at the first use so that its masks never change. No door.

Two migrations of one organization give a value the same mask, so that joins between what they moved still work. The key is sealed like
every other secret and never leaves the process.
"""

from __future__ import annotations

import secrets as random

import msgspec

from dblens.errors import NotFound, VaultError
from dblens.migrate.model import Plan
from dblens.migrate.options import Options, Rule
from dblens.redaction import Secret
from dblens.store import secrets
from dblens.transfer.mask import Mask, key_id
from dblens.workspace.context import Context

FIELD = "mask_key"


def keyed(context: Context, options: Options) -> Options:
    """Return options in which every hash mask names a key: the organization's where none is named."""
    if not any(_open(rule) for rule in options.rules):
        return options
    name = key_id(_made(context))
    rules = (_named(rule, name) if _open(rule) else rule for rule in options.rules)
    return msgspec.structs.replace(options, rules=tuple(rules))


def _open(rule: Rule) -> bool:
    return rule.mask is not None and rule.mask.kind == "hash" and rule.mask.key_id is None


def _named(rule: Rule, name: str) -> Rule:
    return msgspec.structs.replace(rule, mask=Mask(kind="hash", key_id=name))


def key(context: Context, plan: Plan | None, given: Secret | None) -> bytes | None:
    """Return the key for a plan: what was given, else the organization's where there is one."""
    if given is not None:
        return given.reveal().encode()
    if plan is not None and not any(mask.key_id for table in plan.tables for mask in table.masks.values()):
        return None
    return _found(context)


def _found(context: Context) -> bytes | None:
    house, org_id = context.house, context.principal.org_id
    if house is None or org_id is None:
        return None
    with context.store.read() as tx:
        try:
            found = secrets.get(tx, house.keyring, org_id, org_id, FIELD)
        except NotFound:
            return None
    if not isinstance(found, Secret):
        raise VaultError("the organization's mask key is a reference to a secret elsewhere", hint="delete it")
    return found.reveal().encode()


def _made(context: Context) -> bytes:
    house, org_id = context.house, context.principal.org_id
    if house is None or org_id is None:
        raise NotFound("no organization is chosen, so there is no mask key")
    found = _found(context)
    if found is not None:
        return found
    with context.store.write() as tx:  # one at a time, so that of two first uses one makes it
        try:
            secrets.get(tx, house.keyring, org_id, org_id, FIELD)
        except NotFound:
            secrets.put(tx, house.keyring, org_id, org_id, FIELD, Secret(random.token_urlsafe(32)), now=context.clock())
    made = _found(context)
    assert made is not None
    return made
