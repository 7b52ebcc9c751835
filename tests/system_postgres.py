"""Temporary PostgreSQL servers of the system package, in addition to the embedded one."""

import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote


def programs() -> Path | None:
    """Return the directory of the programs of the newest PostgreSQL that is installed, or None."""
    directories = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(directories, key=lambda path: int(path.parent.name), default=None)


@contextmanager
def system_postgres(bin_dir: Path) -> Iterator[str]:
    """Run a new server in a temporary directory, provide its DATABASE_URL, and remove everything afterwards.

    Args:
        bin_dir: the directory of the programs, see programs().
    """
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    # In /tmp, because the path of a socket is limited to 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="portal-pg-", dir="/tmp"))

    def run(program: str, *arguments: str) -> None:
        with (folder / "output").open("w+b") as output:  # a server would keep a pipe open
            completed = subprocess.run(
                [bin_dir / program, *arguments],
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": os.defpath, "LC_ALL": "C"},
            )
        assert completed.returncode == 0, (folder / "output").read_text()

    try:
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)
        run("initdb", "-D", "data", "-U", "portal", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        options = {"listen_addresses": "", "unix_socket_directories": str(folder), "max_connections": "200"}
        postgres_options = shlex.join(word for name, value in options.items() for word in ("-c", f"{name}={value}"))
        run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", postgres_options)
        try:
            run("createdb", "-h", str(folder), "-U", "portal", "portal")
            yield f"postgresql://portal@{quote(str(folder), safe='')}/portal"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", "data")
    finally:
        shutil.rmtree(folder)
