"""manage.py run: real commands on their ports."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from allocations import running
from allocations.models import PortAllocation
from portal.environment import VARIABLES
from tests import make
from tests.node import NODE, program

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
PORT = make.FIRST


@pytest.fixture(autouse=True)
def _shop(transactional_db: None) -> None:
    make.port_range("shop", PORT, 20)


def started(*words: str, service: str = "shop/web") -> subprocess.Popen[str]:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.served",
        "SERVED_DATABASE": connection.settings_dict["NAME"],
    }
    return subprocess.Popen(
        [sys.executable, "manage.py", "run", service, *words],
        cwd=settings.BASE_DIR,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*words: str, service: str = "shop/web") -> tuple[int, str, str]:
    process = started(*words, service=service)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def answers(port: int = PORT) -> bool:
    for _ in range(150):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
            return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            time.sleep(0.1)
    return False


def test_the_environment_and_the_exit_status() -> None:
    told = 'echo "$PORT $HOST $PORTAL_PROJECT $PORTAL_SERVICE $0 $1"; exit 7'
    status, out, err = ended("--type", "web", "--", "sh", "-c", told, "{port}", "http://{host}:{port}/")
    assert (status, out) == (7, f"{PORT} 127.0.0.1 shop web {PORT} http://127.0.0.1:{PORT}/\n")
    assert err == f"shop/web runs on {PORT}/tcp.\n"
    assert PortAllocation.objects.get().service_type == "web"


def test_portals_own_settings_are_not_the_commands(checkout: Path) -> None:
    """What stands in Portal's .env is for Portal alone; what the shell says is for the command too."""
    it = connection.settings_dict
    database = f"postgres://{it['USER']}:{it['PASSWORD']}@/{it['NAME']}?host={it['HOST']}&port={it['PORT']}"
    (checkout / ".env").write_text(f"DATABASE_URL={database}\nPORTAL_SECRET_KEY={'chance' * 10}\n")
    mine = {name: value for name, value in os.environ.items() if name not in {*VARIABLES, "DJANGO_SETTINGS_MODULE"}}
    done = subprocess.run(
        [sys.executable, "manage.py", "run", "shop/web", "--", "env"],
        cwd=checkout,
        env=mine | {"FLAVOUR": "mint"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    given = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert (given["PORT"], given["FLAVOUR"]) == (str(PORT), "mint"), done.stderr
    assert not {"DATABASE_URL", "PORTAL_SECRET_KEY", "DJANGO_SETTINGS_MODULE"} & set(given)


def test_no_shell_looks_at_the_arguments() -> None:
    assert ended("--", "echo", "$(id)", "a; b", "--wait", "--")[1] == "$(id) a; b --wait --\n"


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("--", "no-such-program"), 127, "There is no program no-such-program."),
        (("--", "/etc/passwd"), 126, "/etc/passwd cannot be run: Permission denied."),
        (("--",), 1, "Write it as: run PROJECT/SERVICE -- COMMAND"),
        ((), 1, "Write it as: run PROJECT/SERVICE -- COMMAND"),
    ],
)
def test_what_cannot_run(words: tuple[str, ...], status: int, told: str) -> None:
    found, out, err = ended(*words)
    assert (found, out) == (status, "")
    assert told in err
    assert "Traceback" not in err


def test_an_unknown_project_runs_nothing() -> None:
    status, out, err = ended("--", "echo", "ran", service="shpo/web")
    assert (status, out) == (1, "")
    assert "Did you mean shop?" in err


def test_a_signal_before_the_command_begins_is_kept_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes when the process is there and nobody knows its number yet."""
    begin = running._started

    def interrupted(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        process = begin(command, environment)
        os.kill(os.getpid(), signal.SIGUSR1)
        return process

    monkeypatch.setattr(running, "_started", interrupted)
    assert running.run(["sleep", "20"], os.environ, PORT, "tcp", warn=print) == 128 + signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_all_that_was_started(number: int) -> None:
    """The shell's child is a grandchild of `run`; nothing of the group is left."""
    process = started("--", "sh", "-c", "sh -c 'sleep 300' & echo $!; wait")
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 128 + number
    time.sleep(0.2)
    alive = Path(f"/proc/{grandchild}/stat")
    assert not alive.exists() or alive.read_text().split()[2] == "Z"


def test_ctrl_c_is_the_commands() -> None:
    program = "import sys, time\ntry: print('up', flush=True), time.sleep(60)\nexcept KeyboardInterrupt: sys.exit(5)"
    process = started("--", sys.executable, "-c", program)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 5


def test_a_command_that_listens_is_not_warned_of() -> None:
    process = started("--wait", "5", "--", sys.executable, "-m", "http.server", "{port}")
    assert answers()
    time.sleep(5.5)
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert "does not listen" not in err


def test_a_command_that_does_not_listen_is() -> None:
    _, _, err = ended("--wait", "1", "--", "sleep", "3")
    assert f"It does not listen on {PORT} after 1 s." in err


def test_a_command_that_listens_elsewhere_is() -> None:
    other = PORT + 15
    program = f"import socket, time; s = socket.create_server(('127.0.0.1', {other})); time.sleep(6)"
    _, _, err = ended("--wait", "4", "--", sys.executable, "-c", program)
    assert f"It listens on {other}, not on {PORT}" in err


def test_what_listened_before_is_not_the_command() -> None:
    make.manager().allocate("shop", "web")
    with socket.create_server(("127.0.0.1", PORT)):
        _, _, err = ended("--wait", "1", "--", "sleep", "3")
    assert f"It does not listen on {PORT} after 1 s." in err


class Terminal:
    """A shell with job control on a terminal of its own, as a person sits before it."""

    def __init__(self) -> None:
        self.shown = b""
        pid, self.end = pty.fork()
        if pid == 0:  # pragma: no cover
            os.environ.update(
                DJANGO_SETTINGS_MODULE="tests.served", SERVED_DATABASE=connection.settings_dict["NAME"], PS1="> "
            )
            os.chdir(settings.BASE_DIR)
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])  # noqa: S606
        self.pid = pid
        self.run = f"{sys.executable} manage.py run shop/web --"

    def types(self, text: str) -> None:
        os.write(self.end, text.encode())

    def shows(self, text: str, seconds: float = 30) -> bool:
        until = time.monotonic() + seconds
        while text.encode() not in self.shown and time.monotonic() < until:
            if select.select([self.end], [], [], 0.2)[0]:
                self.shown += os.read(self.end, 4096)
        found = text.encode() in self.shown
        self.shown = self.shown.split(text.encode(), 1)[1] if found else self.shown
        return found

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.end)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    shell = Terminal()
    yield shell
    shell.close()


def test_the_terminal_is_the_commands(terminal: Terminal) -> None:
    """It reads the keyboard, Ctrl-Z stops it and `fg` lets it go on, Ctrl-C ends it and the shell has its status."""
    talk = "print('re' + 'ady', flush=True); print('got', input(), flush=True); print('and', input(), flush=True)"
    terminal.types(f'{terminal.run} {sys.executable} -c "{talk}"; echo status $?\n')
    assert terminal.shows("ready"), terminal.shown
    terminal.types("one\n")
    assert terminal.shows("got one"), terminal.shown
    terminal.types("\x1a")
    assert terminal.shows("Stopped"), terminal.shown
    terminal.types("fg\n")
    assert terminal.shows("manage.py run"), terminal.shown
    terminal.types("two\n")
    assert terminal.shows("and two"), terminal.shown
    terminal.types(f"{terminal.run} sleep 60\n")
    assert terminal.shows("runs on"), terminal.shown
    time.sleep(0.5)
    terminal.types("\x03")
    terminal.types("echo status $?\n")
    assert terminal.shows("status 130"), terminal.shown


def test_in_the_background_it_takes_no_terminal(terminal: Terminal) -> None:
    terminal.types(f"{terminal.run} sh -c 'sleep 1; echo e''nded' &\n")
    assert terminal.shows("runs on"), terminal.shown
    terminal.types("echo a''live\n")
    assert terminal.shows("alive"), terminal.shown
    assert terminal.shows("ended"), terminal.shown
    terminal.types("echo st''ill\n")
    assert terminal.shows("still"), terminal.shown


def test_who_listens_already_is_named() -> None:
    make.manager().allocate("shop", "web")
    first = started("--", sys.executable, "-m", "http.server", "{port}")
    assert answers()
    _, _, err = ended("--", "true")
    first.terminate()
    first.communicate(timeout=20)
    assert f"listens on {PORT} already: does the service run twice?" in err


def test_djangos_own_server(tmp_path: Path) -> None:
    """A new project of its own: Portal is one too, and its settings are not the command's."""
    subprocess.run([sys.executable, "-m", "django", "startproject", "site1", tmp_path], check=True)
    manage = str(tmp_path / "manage.py")
    process = started("--", sys.executable, manage, "runserver", "--noreload", "{host}:{port}")
    try:
        assert answers()
        process.terminate()
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert "using settings 'site1.settings'" in out


def test_vite(tmp_path: Path) -> None:
    """It listens on 5173 if nobody tells it, and on the next port if that is taken."""
    words = ("--port", "{port}", "--strictPort", "--host", "{host}", "--logLevel", "error")
    process = started("--", NODE, program("vite/bin/vite.js"), str(tmp_path), *words)
    try:
        assert answers()
        process.terminate()
        process.communicate(timeout=20)
    finally:
        process.kill()


def test_a_node_server_that_reads_port() -> None:
    server = (
        "require('http').createServer((q, a) => a.end('up'))"
        ".listen(process.env.PORT, process.env.HOST, () => console.log('ready'))"
    )
    process = started("--", NODE, "-e", server)
    try:
        assert answers()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode in (128 + signal.SIGINT, 130)
    finally:
        process.kill()
