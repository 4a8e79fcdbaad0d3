"""Errors that a user can fix: one clear line that names the thing and the fix."""

import re

_IN_TEXT = re.compile(r"^zephyr_ray\.errors\.\w+: (.+)$", re.MULTILINE)


class UserError(Exception):
    """Wrong input. The command prints the message as one line and exits with status 2."""


def raised_by_user(error: Exception) -> UserError | None:
    """The `UserError` that a Ray task or actor raised, or None; Ray's own error contains only its text."""
    found = _IN_TEXT.search(str(error))
    return UserError(found[1]) if found else None


class GuardError(UserError):
    """A training invariant is violated (wrong reference, no gradient ...); continuing would give wrong results."""
