"""The error of what works on the user's behalf: processes of ours and inference engines."""


class FailedError(RuntimeError):
    """A process or an engine that the work needs ended, refused, or did something else.

    Its message is one sentence for people. Input that is wrong is a ValueError or an OSError.
    """
