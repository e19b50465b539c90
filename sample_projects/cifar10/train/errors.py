"""What the user can put right."""


class TrainingError(Exception):
    """Training cannot go on; the message is one sentence that says why and what to do."""
