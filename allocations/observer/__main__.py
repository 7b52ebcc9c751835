"""Run the observer: `python -m allocations.observer PORTAL_HOME ACCOUNT [PARENT]`, as root.

It ends when the process with the id PARENT, which started it, does.
"""

import pwd
import signal
import sys
from pathlib import Path

from .server import Observer


def main(arguments: list[str]) -> int:
    """Answer requests, and return the exit status."""
    home, name, parent = (*arguments, "0")[:3]
    account = pwd.getpwnam(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the web server, which may still ask
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    Observer(Path(home), account.pw_uid, account.pw_gid).serve_until_orphaned(int(parent))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
