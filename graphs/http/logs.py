"""Where this process logs to: the file that Serve keeps for each replica."""

import logging


def write_logs() -> None:
    """Lines of presence's own loggers, from INFO on, go where Serve's go; it gives its file to no others."""
    ours = logging.getLogger("presence")
    ours.setLevel(logging.INFO)
    ours.handlers = list(logging.getLogger("ray.serve").handlers)
