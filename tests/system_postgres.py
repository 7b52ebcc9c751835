"""A throw-away PostgreSQL of the system (Debian's package), beside the embedded one."""

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
    """Return the directory of initdb and pg_ctl of the newest PostgreSQL installed, None without any."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


@contextmanager
def system_postgres(bin_dir: Path) -> Iterator[str]:
    """Run a new server of `bin_dir` in a temporary directory; give its DATABASE_URL, and leave nothing behind."""
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="portal-pg-", dir="/tmp"))  # short: a socket path has 107 bytes

    def run(program: str, *arguments: str) -> None:
        with (folder / "output").open("w+b") as output:  # a server would keep a pipe open
            done = subprocess.run(
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
        assert done.returncode == 0, (folder / "output").read_text()

    try:
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)
        run("initdb", "-D", "data", "-U", "portal", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        options = {"listen_addresses": "", "unix_socket_directories": str(folder), "max_connections": "200"}
        words = shlex.join(word for name, value in options.items() for word in ("-c", f"{name}={value}"))
        run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", words)
        try:
            run("createdb", "-h", str(folder), "-U", "portal", "portal")
            yield f"postgresql://portal@{quote(str(folder), safe='')}/portal"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", "data")
    finally:
        shutil.rmtree(folder)
