"""Everything that can go wrong, in one tree.

PresenceError
├── InvalidInput            the request is malformed or a value is out of range
│   └── MediaUnavailable    an image or audio clip could not be fetched from its URL
├── NotAuthorized           no API key, or a wrong one
├── NotFound
│   ├── NoFace              the picture was read, and no face was found in it
│   ├── UnknownModel        no model of that name, or none of that capability
│   └── UnknownRecord       no registration of that id
├── ModelDisabled           the model of that name is not served
├── Conflict                the Idempotency-Key was used for another registration
├── LivenessUnavailable     liveness was asked of a model that has no liveness weights
├── TooLarge                body, picture or clip exceeds a limit
├── NotDecodable            the bytes are no picture (or clip) that can be read
├── NothingComputable       the model can compute nothing of what was asked
├── Busy                    a queue is full; carries how long to wait
├── StoreUnavailable        the store cannot be read or written now; nothing was lost
│   └── StoreFull           the disk of the store is full; nothing was written
├── StoreCorrupt            the store contradicts itself; the message says what to do
├── DeadlineExceeded        the answer would have come too late
└── ConfigurationError      a setting or a model file is wrong; raised before anything starts

An error crosses processes as a value: each is rebuilt from its message alone.
"""


class PresenceError(Exception):
    """Root of the tree. The message is written for the caller: no path, no traceback.

    param: the field of the request that is wrong, where the error is of one.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidInput(PresenceError):
    """The request is malformed or a value is out of its range."""


class MediaUnavailable(InvalidInput):
    """An image or audio clip could not be fetched from its URL."""


class NotAuthorized(PresenceError):
    """No API key, or a wrong one."""


class NotFound(PresenceError):
    """The thing that was asked for does not exist."""


class NoFace(NotFound):
    """The picture was read, and no face was found in it."""


class UnknownModel(NotFound):
    """No model of that name, or none of that capability."""


class UnknownRecord(NotFound):
    """No registration of that id."""


class ModelDisabled(PresenceError):
    """The model of that name is there, and its model file says that it is not served."""


class Conflict(PresenceError):
    """The Idempotency-Key was used for another registration."""


class LivenessUnavailable(PresenceError):
    """Liveness was asked of a model that has no liveness weights."""


class TooLarge(PresenceError):
    """Body, picture or clip exceeds a limit."""


class NotDecodable(PresenceError):
    """The bytes are no picture (or clip) that can be read."""


class NothingComputable(PresenceError):
    """The model can compute nothing of what was asked."""


class Busy(PresenceError):
    """A queue is full."""

    retry_after_s = 1


class StoreUnavailable(PresenceError):
    """The store cannot be read or written now; nothing was lost."""

    retry_after_s = 1


class StoreFull(StoreUnavailable):
    """The disk of the store is full; nothing was written."""


class StoreCorrupt(PresenceError):
    """The store contradicts itself; the message says what to do."""


class DeadlineExceeded(PresenceError):
    """The answer would have come too late."""


class ConfigurationError(PresenceError):
    """A setting or a model file is wrong: names the file, the key and the remedy."""
