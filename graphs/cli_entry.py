"""Where the `presence` command begins, so that Ctrl-C ends it quietly while it still loads."""

import sys


def main() -> None:
    """Loads the command and runs it; 130 is the exit code after Ctrl-C, as in a shell."""
    try:
        from graphs.cli import main as command  # noqa: PLC0415 - takes seconds

        command()
    except KeyboardInterrupt:
        sys.exit(130)
