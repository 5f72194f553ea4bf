"""The whole error tree.

    DBLensError(message, *, hint)                     code               http   exit
    ├─ InvalidInput                                   input.invalid      422    2
    ├─ NotAuthenticated                               auth.required      401    5
    ├─ PermissionDenied                               permission.denied  403    5
    │  └─ RateLimited(retry_after)                    rate.limited       429    5
    ├─ NotFound                                       not_found          404    4
    ├─ Conflict                                       conflict           409    4
    │  └─ ConfirmationNeeded(confirm, warnings)       confirm.needed     409    4
    ├─ Unsupported(feature, why)                      unsupported        501    6
    ├─ EngineError                                    engine.failed      502    3
    │  ├─ ConnectionFailed                            engine.connection  502    3
    │  ├─ QueryFailed                                 engine.query       400    3
    │  ├─ Cancelled                                   engine.cancelled   499    3
    │  └─ TimedOut                                    engine.timeout     504    3
    ├─ PlanError                                      plan.invalid       409    7
    │  ├─ StalePlan                                   plan.stale         409    7
    │  ├─ LossNotAccepted                             plan.loss          409    7
    │  └─ Irreversible                                plan.irreversible  409    7
    ├─ VerificationFailed(verdict)                    verify.failed      409    8
    ├─ ArchiveError                                   archive.invalid    422    9
    │  ├─ ArchiveMissing                              archive.missing    410    9
    │  ├─ ArchiveCorrupt                              archive.corrupt    422    9
    │  └─ ArchiveTooNew                               archive.too_new    422    9
    ├─ StoreError                                     store.failed       503    10
    ├─ VaultError                                     vault.failed       503    10
    └─ MailFailed                                     mail.failed        502    3

A message says what failed, with the value; the hint says what to do next. Neither ever holds a secret.
"""

from __future__ import annotations

from typing import ClassVar


class DBLensError(Exception):
    """Root of every error that DBLens raises on purpose."""

    code: ClassVar[str] = "error"
    http: ClassVar[int] = 500
    exit: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n\nhint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), dict(self.__dict__), self.args))


def _rebuild(kind: type[DBLensError], state: dict[str, object], args: tuple[object, ...]) -> DBLensError:
    """Rebuild an error from a pickle without calling its constructor, whose signature differs by class."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidInput(DBLensError):
    code, http, exit = "input.invalid", 422, 2


class NotAuthenticated(DBLensError):
    code, http, exit = "auth.required", 401, 5


class PermissionDenied(DBLensError):
    code, http, exit = "permission.denied", 403, 5


class RateLimited(PermissionDenied):
    code, http, exit = "rate.limited", 429, 5

    def __init__(self, message: str, *, retry_after: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or f"try again in {retry_after} s")
        self.retry_after = retry_after


class NotFound(DBLensError):
    code, http, exit = "not_found", 404, 4


class Conflict(DBLensError):
    code, http, exit = "conflict", 409, 4


class ConfirmationNeeded(Conflict):
    """The same call with `confirm` as it stands here is done; `warnings` say what to look at before."""

    code = "confirm.needed"

    def __init__(
        self, message: str, *, confirm: str = "", warnings: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint or "look at it, then ask again with the confirmation")
        self.confirm = confirm
        self.warnings = warnings


class Unsupported(DBLensError):
    code, http, exit = "unsupported", 501, 6

    def __init__(self, feature: str, why: str, *, hint: str | None = None) -> None:
        super().__init__(f"{feature} is not supported: {why}", hint=hint)
        self.feature = feature
        self.why = why


class EngineError(DBLensError):
    code, http, exit = "engine.failed", 502, 3


class ConnectionFailed(EngineError):
    code, http, exit = "engine.connection", 502, 3


class QueryFailed(EngineError):
    code, http, exit = "engine.query", 400, 3


class Cancelled(EngineError):
    code, http, exit = "engine.cancelled", 499, 3


class TimedOut(EngineError):
    code, http, exit = "engine.timeout", 504, 3


class PlanError(DBLensError):
    code, http, exit = "plan.invalid", 409, 7


class StalePlan(PlanError):
    code, http, exit = "plan.stale", 409, 7


class LossNotAccepted(PlanError):
    code, http, exit = "plan.loss", 409, 7


class Irreversible(PlanError):
    code, http, exit = "plan.irreversible", 409, 7


class VerificationFailed(DBLensError):
    code, http, exit = "verify.failed", 409, 8

    def __init__(self, message: str, *, verdict: object = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.verdict = verdict


class ArchiveError(DBLensError):
    code, http, exit = "archive.invalid", 422, 9


class ArchiveMissing(ArchiveError):
    code, http, exit = "archive.missing", 410, 9


class ArchiveCorrupt(ArchiveError):
    code, http, exit = "archive.corrupt", 422, 9


class ArchiveTooNew(ArchiveError):
    code, http, exit = "archive.too_new", 422, 9


class StoreError(DBLensError):
    code, http, exit = "store.failed", 503, 10


class VaultError(DBLensError):
    code, http, exit = "vault.failed", 503, 10


class MailFailed(DBLensError):
    code, http, exit = "mail.failed", 502, 3


def revived(code: str, message: str, hint: str | None) -> DBLensError:
    """Return the error that was told by its code, made without its constructor, whose parameters differ by class."""
    kind, left = DBLensError, [DBLensError]
    while left:
        each = left.pop()
        left += each.__subclasses__()
        if each.code == code and each.__module__ == __name__:
            kind = each
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.message, error.hint = message, hint
    for name, value in (
        ("verdict", None),
        ("retry_after", 1),
        ("feature", ""),
        ("why", ""),
        ("confirm", ""),
        ("warnings", ()),
    ):
        if name in kind.__init__.__code__.co_varnames:
            setattr(error, name, value)
    return error
