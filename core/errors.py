"""The one exception for bad input. A command prints it as one line and exits with status 2."""


class InputError(ValueError):
    """What was given, what is allowed, what to change: in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
