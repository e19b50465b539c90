"""What the user can put right."""


class DataError(Exception):
    """The data cannot be had; the message is one sentence that says why and what to do."""
