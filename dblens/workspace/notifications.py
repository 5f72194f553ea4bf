"""The door to one's own notifications: what ended, what was not read yet, and of what one wants to be told."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dblens.errors import InvalidInput, NotFound
from dblens.store import notifications, organizations, settings
from dblens.store.notifications import Notification
from dblens.store.rows import LONGEST_PAGE, Page
from dblens.workspace.deliver import preferences
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.setting_kinds import PREFERENCES, Ends, Preferences, checked


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """How many notifications were not read."""

    unread: int


class Notifications(Door):
    """Read what one was told in the present organization, and choose of what to be told."""

    @operation("notification.list", on="organization", cost="light", shown=("unread", "limit", "after"))
    def list(self, *, unread: bool = False, limit: int = 50, after: str | None = None) -> Page[Notification]:
        """Return a page of one's own notifications, the newest first, or only those that were not read. Raises InvalidInput."""
        org_id, user_id = self._own()
        with self.context.store.read() as tx:
            return notifications.list_notifications(tx, org_id, user_id, unread=unread, limit=limit, after=after)

    @operation("notification.count", permission="notification.list", on="organization", cost="light")
    def count(self) -> Counted:
        """Return how many of one's own notifications were not read."""
        org_id, user_id = self._own()
        with self.context.store.read() as tx:
            return Counted(unread=notifications.count_unread(tx, org_id, user_id))

    @operation(
        "notification.mark",
        permission="notification.read",
        on="organization",
        mutates=True,
        cost="light",
        shown=("ids",),
    )
    def mark(self, ids: Sequence[str] | None = None) -> Counted:
        """Mark one's own notifications as read, those with the ids or all; return how many are unread then.

        Raises InvalidInput, NotFound for an id that is not one's own: then none is marked.
        """
        org_id, user_id = self._own()
        if ids is not None and (isinstance(ids, str) or len(ids) > LONGEST_PAGE):
            raise InvalidInput("ids is no list of at most 200 ids", hint="mark them in parts, or all without ids")
        with self.context.store.write() as tx:
            for each in ids or ():
                notifications.get_notification(tx, org_id, user_id, each)
            marked = notifications.mark_read(tx, org_id, user_id, ids, now=self.context.clock())
            left = notifications.count_unread(tx, org_id, user_id)
        tell(marked=marked)
        return Counted(unread=left)

    @operation("notification.preferences", permission="notification.list", on="organization", cost="light")
    def preferences(self) -> Preferences:
        """Return of which ends of runs one is told: as one chose, else as the organization did."""
        org_id, user_id = self._own()
        with self.context.store.read() as tx:
            return preferences(tx, org_id, user_id)

    @operation(
        "notification.prefer",
        permission="notification.read",
        on="organization",
        mutates=True,
        cost="light",
        shown=("ends", "mail", "others", "reset"),
    )
    def prefer(
        self,
        *,
        ends: Ends | None = None,
        mail: bool | None = None,
        others: bool | None = None,
        reset: bool = False,
    ) -> Preferences:
        """Choose of which ends of runs to be told (all, failed, none), whether by mail too, and whether of others' on own connections.

        What is not given stays; `reset` goes back to what the organization set first. Raises InvalidInput, NotFound.
        """
        org_id, user_id = self._own()
        given = {
            name: value for name, value in (("ends", ends), ("mail", mail), ("others", others)) if value is not None
        }
        key = PREFERENCES + user_id
        with self.context.store.write() as tx:
            organizations.get_member(tx, org_id, user_id)
            if reset and key in settings.find_settings(tx, org_id, [key]):
                settings.delete_setting(tx, org_id, key)
            before = preferences(tx, org_id, user_id)
            made = checked(Preferences, msgspec.structs.asdict(before) | given)
            if given:
                settings.put_setting(tx, org_id, key, msgspec.to_builtins(made), now=self.context.clock())
        return made

    def _own(self) -> tuple[str, str]:
        principal = self.context.principal
        if principal.org_id is None:
            raise NotFound("no organization is chosen", hint="`dblens org use NAME`")
        return principal.org_id, principal.user_id
