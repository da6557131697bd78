"""Why a request is turned down, in one line for who has made it."""


class Refusal(Exception):
    """The request is wrong (exit status 2) or cannot be met (1)."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status
