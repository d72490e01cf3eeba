"""What goes wrong, as the user should read it: the rule, what was found, where, what to do."""


class PhantumorError(Exception):
    """An operation failed; the message is complete. The command line prints it and exits with `exit_code`."""

    exit_code = 1


class InputError(PhantumorError):
    """The user's input (file, mask, config, dataset, checkpoint, flag) breaks a rule."""

    exit_code = 2
