"""The program: ``softstart``, and ``python -m softstart``, which launchers of several processes call."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it; an interrupt meanwhile ends the program without a traceback."""
    for which in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(which) != signal.SIG_IGN:
            signal.signal(which, _end)
    from softstart.cli.app import main

    main()


def _end(signum: int, frame: object) -> NoReturn:
    os.write(2, b"error: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
