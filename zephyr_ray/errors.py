"""The errors a user can mend: one clear line that names the thing and the fix."""

import re

_IN_TEXT = re.compile(r"^zephyr_ray\.errors\.\w+: (.+)$", re.MULTILINE)


class UserError(Exception):
    """Wrong input. The command prints the message as one line and exits with status 2."""


def raised_by_user(error: Exception) -> UserError | None:
    """The `UserError` that a Ray task or actor raised: Ray brings back only the text of what led to its own error."""
    found = _IN_TEXT.search(str(error))
    return UserError(found[1]) if found else None


class GuardError(UserError):
    """Training would go on, but wrongly (a reference of another model, no gradient ...): the job stops instead."""
