"""The errors AnyECG raises on purpose.

    AnyECGError
    |-- ReadError           a source file is not what it claims to be
    |-- SignalError         a record cannot be prepared or tokenised
    |-- WriteError          an output file cannot be written, or would be overwritten
    |-- CheckpointError     a checkpoint folder is missing, damaged or of another version
    `-- MissingDependency   an optional library is needed and not installed

A wrong argument is a plain ``ValueError`` that lists what is allowed.

Every message is one line in three parts: *where*: what was found, what was expected. What to do.
"""


class AnyECGError(Exception):
    """Base of every error that is about the data or the set-up, not about a bug."""


class ReadError(AnyECGError):
    """A source file is missing, damaged, unsafe, or lacks what must not be guessed."""


class SignalError(AnyECGError):
    """A record holds no usable signal for what was asked."""


class WriteError(AnyECGError):
    """An output file cannot be written, or is there already and was not to be replaced."""


class CheckpointError(AnyECGError):
    """A checkpoint folder is missing, damaged or of another format version."""


class MissingDependency(AnyECGError):
    """An optional library is needed and not installed."""
