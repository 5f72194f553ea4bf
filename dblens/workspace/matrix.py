"""The matrix of permissions as a page, made from the operation table and the roles: `python -m dblens.workspace.matrix`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from dblens.workspace.permissions import EVERYONE, SUPER_ADMIN, SYSTEM_ROLES, covers, known
from dblens.workspace.registry import Operation, load

_RULE = (
    "An operation is allowed when the role has its permission **and** the grant on each connection it touches is high enough "
    "**and** the token, if one is used, is scoped for the permission. What is not in this table is denied. Something of another "
    "organization, or a connection without any grant, is *not found*."
)
_MARKS = (
    "Grants are `view` < `use` < `manage`; the owner of a connection and every role with `organization.connections` (admin) "
    "manage it. **r** after an operation: it needs a login not older than 15 minutes, so no token can do it. **w**: it changes "
    "something, and is in the audit before and after."
)


def render(operations: Iterable[Operation] | None = None) -> str:
    """Return the page in Markdown."""
    table = list(load() if operations is None else operations)
    roles = list(SYSTEM_ROLES.values())
    lines = [
        "# Who may do what",
        "",
        "Made by `python -m dblens.workspace.matrix`; do not edit.",
        "",
        _RULE,
        "",
        _MARKS,
        "",
        "| role | rank | about |",
        "|---|---|---|",
        *(f"| {role.name} | {role.rank} | {role.about} |" for role in roles),
        "",
    ]
    heading = ["| operation | | permission | on a connection | " + " | ".join(role.name for role in roles) + " |"]
    heading.append("|---|---|---|---|" + ":-:|" * len(roles))
    for noun in sorted({operation.noun for operation in table}):
        lines += [f"## {noun}", "", *heading]
        for operation in table:
            if operation.noun == noun:
                cells = [_cell(operation, role.name, role.permissions) for role in roles]
                marks = ("w" if operation.mutates else "") + ("r" if operation.step_up else "")
                permission = "" if operation.permission == operation.name else f"`{operation.permission}`"
                lines.append(
                    f"| `{operation.name}` | {marks} | {permission} | {_needs(operation)} | " + " | ".join(cells) + " |"
                )
        lines.append("")
    coming = sorted(known() - {operation.permission for operation in table})
    if coming:
        lines += [
            "## Permissions that no operation asks for yet",
            "",
            "| permission | " + " | ".join(role.name for role in roles) + " |",
            "|---|" + ":-:|" * len(roles),
        ]
        for name in coming:
            cells = ["yes" if covers((*role.permissions, *EVERYONE), name) else "" for role in roles]
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(operation: Operation, role: str, permissions: Iterable[str]) -> str:
    if operation.on == "connection" and role == SUPER_ADMIN:
        return ""
    return "yes" if covers((*permissions, *EVERYONE), operation.permission) else ""


def _needs(operation: Operation) -> str:
    if operation.on != "connection":
        return ""
    if not operation.connections:
        return operation.level
    if len(set(operation.connections.values())) == 1 and len(operation.connections) == 1:
        return next(iter(operation.connections.values()))
    return ", ".join(f"{name}: {level}" for name, level in operation.connections.items())


if __name__ == "__main__":
    sys.stdout.write(render())
