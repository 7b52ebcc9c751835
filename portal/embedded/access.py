"""Who may connect to the embedded PostgreSQL, and as which role.

There are three roles. `postgres` is the superuser, who does nothing but maintenance. `portal_owner` owns the database,
and migrates it. `portal_app` serves: it has exactly the rights that Portal needs while it is running, see
allocations/sql/grants.py.

PostgreSQL asks the kernel for the account of a connection (peer authentication), and a map says which roles it may
have. If root runs Portal, the account that serves it may only be `portal_app`. If an ordinary account does, it may be
all three, because it owns the files anyway: then the roles stop SQL, but not code.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

SUPERUSER, OWNER, APPLICATION = "postgres", "portal_owner", "portal_app"
HBA = "local all all peer map=portal\n"
# A container may run as an id without a name, which peer authentication does not accept. The directory of the socket
# lets in no other account.
HBA_WITHOUT_NAME = "local all all trust\n"


def roles_and_database(database: str) -> str:
    """Return the statements that prepare a new cluster, one per line, for a server in single-user mode."""
    return "\n".join(
        [
            f"CREATE ROLE {OWNER} LOGIN;",
            f"CREATE ROLE {APPLICATION} LOGIN;",
            f"CREATE DATABASE {database} OWNER {OWNER};",
            "REVOKE ALL ON DATABASE postgres FROM PUBLIC;",
            "REVOKE ALL ON DATABASE template1 FROM PUBLIC;",
            "",
        ]
    )


def write(data: Path) -> None:
    """Write who may connect into the configuration of a cluster, as the account to which it belongs."""
    name = _name_of(os.geteuid())
    _replace(data / "pg_hba.conf", HBA if name else HBA_WITHOUT_NAME)
    _replace(data / "pg_ident.conf", _map(name, is_private=data.parent.stat().st_uid == os.geteuid()))


def is_prepared(data: Path) -> bool:
    """Return whether a cluster has these roles, which those of Portals up to 1f39b2f don't."""
    return f" {OWNER}\n" in (data / "pg_ident.conf").read_text()


def _map(name: str, *, is_private: bool) -> str:
    """Return the map of accounts to roles.

    Args:
        name: the account that runs PostgreSQL.
        is_private: whether that account runs Portal by itself. Otherwise, PORTAL_HOME belongs to root.
    """
    everything = (SUPERUSER, OWNER, APPLICATION)
    roles = {"root": everything, name: everything if is_private else (APPLICATION,)}
    return "".join(f'portal "{account}" {role}\n' for account, names in roles.items() if account for role in names)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)
