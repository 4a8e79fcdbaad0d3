"""The errors a user can mend: one clear line that names the thing and the fix."""


class UserError(Exception):
    """Wrong input. The command prints the message as one line and exits with status 2."""


class GuardError(UserError):
    """Training would go on, but wrongly (a reference of another model, no gradient ...): the job stops instead."""
