"""Stop the embedded PostgreSQL server of PORTAL_HOME (`make stop`). The next connection starts it again.

With the argument `clean-old`, delete the old cluster that move.py has left behind instead (`make clean-old`). For
systemd, `run` turns this process into the server, and `wait` waits until it accepts connections.
"""

import os
import sys
from pathlib import Path

from portal.embedded import move
from portal.embedded.server import CannotStart, Server

if sys.argv[1:] in (["run"], ["wait"]):  # without the settings, which the account of PostgreSQL may not read
    server = Server(Path(os.environ["PORTAL_HOME"]))
    try:
        (server.run if sys.argv[1] == "run" else server.wait)()
    except CannotStart as error:
        sys.exit(str(error))
    sys.exit()

from portal import settings

if sys.argv[1:] == ["clean-old"]:
    old = move.clean(settings.PORTAL_HOME)
    print(f"Deleted {old}." if old else f"There is no old cluster in {settings.PORTAL_HOME}.")  # noqa: T201
    sys.exit()
server = Server(settings.PORTAL_HOME)
was_running = server.is_ready()
server.stop()
if was_running:
    print(f"Stopped the PostgreSQL server of {settings.PORTAL_HOME}.")  # noqa: T201
else:
    print(f"The PostgreSQL server of {settings.PORTAL_HOME} is not running.")  # noqa: T201
