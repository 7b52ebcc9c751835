"""One side of the comparison: serve a filled Portal of the checkout in the current directory until standard input ends.

It prints one line of JSON, which says where Portal is and how to log in. compare.py starts it in each checkout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from django.core.management import call_command

from .api import served
from .fill import fill
from .harness import portal_in, sql

FULL, BUSY = "full", "bench"  # below the ports of the fleet


def main(home: Path, port: int, projects: int, held: int) -> None:
    """Serve until the end of the input.

    Args:
        home: the PORTAL_HOME of the new Portal.
        port: where to serve.
        projects: the number of projects to fill.
        held: the number of ports that they hold together.
    """
    with portal_in(home):
        call_command("collectstatic", interactive=False, verbosity=0)
        fill(projects, held, 0)
        secret, cookie = set_up()
        with served(port):
            print(json.dumps({"port": port, "home": str(home), "secret": secret, "cookie": cookie}), flush=True)
            sys.stdin.read()


def set_up() -> tuple[str, str]:
    """Add a full range and a project that the clients use, and return a token and the cookie of an admin."""
    from django.contrib.auth.models import User
    from django.test import Client

    from allocations.ports import PortManager, projects, tokens

    ports = PortManager(actor="bench")
    projects.add(ports.context, FULL, size=1000, start_port=1024)
    projects.add(ports.context, BUSY, size=1900, start_port=2100)
    sql(
        "INSERT INTO port_allocations (project_id, port_range_id, port_number, service_name) "
        "SELECT project_id, id, port, 'service-' || port FROM port_ranges, generate_series(start_port, end_port) port "
        "WHERE project_id = (SELECT id FROM projects WHERE name = %s)",
        FULL,
    )
    ports.get_or_allocate(BUSY, "known")
    client = Client()
    client.force_login(User.objects.create_superuser("bench", password="bench"))
    return tokens.create(ports.context, "bench", role="admin")[1], client.cookies.output(attrs=[], header="").strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
