"""manage.py run, with real commands on real ports."""

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

from allocations import runner
from allocations.models import PortAllocation
from portal.environment import VARIABLES
from tests import make
from tests.node import NODE, program

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
PORT = make.FIRST


@pytest.fixture(autouse=True)
def _ctrl_c_is_not_ignored() -> Iterator[None]:
    """Let commands see Ctrl-C although the shell that runs the tests in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _shop(transactional_db: None) -> None:
    make.port_range("shop", PORT, 20)


def start(*words: str, service: str = "shop/web") -> subprocess.Popen[str]:
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


def run_to_end(*words: str, service: str = "shop/web") -> tuple[int, str, str]:
    process = start(*words, service=service)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def answers(port: int = PORT) -> bool:
    """Wait up to 15 seconds for an HTTP server on the port."""
    for _ in range(150):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
            return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            time.sleep(0.1)
    return False


def test_environment_arguments_and_exit_status() -> None:
    script = 'echo "$PORT $HOST $PORTAL_PROJECT $PORTAL_SERVICE $0 $1"; exit 7'
    status, out, err = run_to_end("--type", "web", "--", "sh", "-c", script, "{port}", "http://{host}:{port}/")
    assert (status, out) == (7, f"{PORT} 127.0.0.1 shop web {PORT} http://127.0.0.1:{PORT}/\n")
    assert err == f"shop/web runs on {PORT}/tcp.\n"
    assert PortAllocation.objects.get().service_type == "web"


def test_settings_of_portal_are_not_passed_on(checkout: Path) -> None:
    """The variables in the .env file of Portal are for Portal only; those of the shell are for the command as well."""
    db = connection.settings_dict
    database = f"postgres://{db['USER']}:{db['PASSWORD']}@/{db['NAME']}?host={db['HOST']}&port={db['PORT']}"
    (checkout / ".env").write_text(f"DATABASE_URL={database}\nPORTAL_SECRET_KEY={'secret' * 10}\n")
    environment = {
        name: value for name, value in os.environ.items() if name not in {*VARIABLES, "DJANGO_SETTINGS_MODULE"}
    }
    done = subprocess.run(
        [sys.executable, "manage.py", "run", "shop/web", "--", "env"],
        cwd=checkout,
        env=environment | {"FRUIT": "apple"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert (variables["PORT"], variables["FRUIT"]) == (str(PORT), "apple"), done.stderr
    assert not {"DATABASE_URL", "PORTAL_SECRET_KEY", "DJANGO_SETTINGS_MODULE"} & set(variables)


def test_arguments_are_not_interpreted_by_a_shell() -> None:
    assert run_to_end("--", "echo", "$(id)", "a; b", "--wait", "--")[1] == "$(id) a; b --wait --\n"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--", "no-such-program"), 127, "no-such-program was not found. Check its name, or give its full path."),
        (("--", "/etc/passwd"), 126, "/etc/passwd cannot be run: Permission denied."),
        (("--",), 1, "Write it as: run PROJECT/SERVICE -- COMMAND"),
        ((), 1, "Write it as: run PROJECT/SERVICE -- COMMAND"),
    ],
)
def test_command_that_cannot_be_run(words: tuple[str, ...], status: int, message: str) -> None:
    returned, out, err = run_to_end(*words)
    assert (returned, out) == (status, "")
    assert message in err
    assert "Traceback" not in err


def test_unknown_project_runs_nothing() -> None:
    status, out, err = run_to_end("--", "echo", "ran", service="shpo/web")
    assert (status, out) == (1, "")
    assert "Did you mean shop?" in err


def test_signal_during_the_start_is_forwarded_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal arrives when the process exists but its pid is not yet known."""
    start_process = runner._start

    def interrupted_start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        process = start_process(command, environment)
        os.kill(os.getpid(), signal.SIGUSR1)
        return process

    monkeypatch.setattr(runner, "_start", interrupted_start)
    assert runner.run(["sleep", "20"], os.environ, PORT, "tcp", warn=print) == 128 + signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_all_descendants(number: int) -> None:
    """The child of the shell is a grandchild of `run`, and must be ended as well."""
    process = start("--", "sh", "-c", "sh -c 'sleep 300' & echo $!; wait")
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 128 + number
    time.sleep(0.2)
    stat = Path(f"/proc/{grandchild}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_command_handles_ctrl_c() -> None:
    program = "import sys, time\ntry: print('up', flush=True), time.sleep(60)\nexcept KeyboardInterrupt: sys.exit(5)"
    process = start("--", sys.executable, "-c", program)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 5


def test_no_warning_if_the_command_listens() -> None:
    process = start("--wait", "5", "--", sys.executable, "-m", "http.server", "{port}")
    assert answers()
    time.sleep(5.5)
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert "is not listening" not in err


def test_warning_if_the_command_does_not_listen() -> None:
    _, _, err = run_to_end("--wait", "1", "--", "sleep", "3")
    assert f"The command is not listening on {PORT} after 1 s." in err


def test_warning_if_the_command_listens_on_another_port() -> None:
    other = PORT + 15
    program = f"import socket, time; s = socket.create_server(('127.0.0.1', {other})); time.sleep(3)"
    _, _, err = run_to_end("--", sys.executable, "-c", program)  # it does not wait for 30 s
    assert f"The command is listening on {other} instead of {PORT}" in err


def test_no_warning_if_another_port_is_opened_first() -> None:
    """As Node does with --inspect."""
    program = (
        f"import socket, time; a = socket.create_server(('127.0.0.1', {PORT + 15})); time.sleep(0.5); "
        f"b = socket.create_server(('127.0.0.1', {PORT})); time.sleep(2.5)"
    )
    assert "listening on" not in run_to_end("--", sys.executable, "-c", program)[2]


def test_earlier_listener_does_not_count_as_the_command() -> None:
    make.manager().allocate("shop", "web")
    with socket.create_server(("127.0.0.1", PORT)):
        _, _, err = run_to_end("--wait", "1", "--", "sleep", "3")
    assert f"The command is not listening on {PORT} after 1 s." in err


class Terminal:
    """An interactive shell with job control on a terminal of its own."""

    def __init__(self) -> None:
        self.output = b""
        pid, self.end = pty.fork()
        if pid == 0:  # pragma: no cover
            os.environ.update(
                DJANGO_SETTINGS_MODULE="tests.served", SERVED_DATABASE=connection.settings_dict["NAME"], PS1="> "
            )
            os.chdir(settings.BASE_DIR)
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])  # noqa: S606
        self.pid = pid
        self.run = f"{sys.executable} manage.py run shop/web --"

    def enter(self, text: str) -> None:
        os.write(self.end, text.encode())

    def shows(self, text: str, seconds: float = 30) -> bool:
        """Wait for the text, forget the output up to its end, and return whether it appeared."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.output and time.monotonic() < deadline:
            if select.select([self.end], [], [], 0.2)[0]:
                self.output += os.read(self.end, 4096)
        found = text.encode() in self.output
        self.output = self.output.split(text.encode(), 1)[1] if found else self.output
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


def test_command_has_the_terminal(terminal: Terminal) -> None:
    """It can read the keyboard, be stopped with Ctrl-Z, be continued with `fg`, and be ended with Ctrl-C."""
    script = "print('re' + 'ady', flush=True); print('got', input(), flush=True); print('and', input(), flush=True)"
    terminal.enter(f'{terminal.run} {sys.executable} -c "{script}"; echo status $?\n')
    assert terminal.shows("ready"), terminal.output
    terminal.enter("one\n")
    assert terminal.shows("got one"), terminal.output
    terminal.enter("\x1a")
    assert terminal.shows("Stopped"), terminal.output
    terminal.enter("fg\n")
    assert terminal.shows("manage.py run"), terminal.output
    terminal.enter("two\n")
    assert terminal.shows("and two"), terminal.output
    terminal.enter(f"{terminal.run} sleep 60\n")
    assert terminal.shows("runs on"), terminal.output
    time.sleep(0.5)
    terminal.enter("\x03")
    terminal.enter("echo status $?\n")
    assert terminal.shows("status 130"), terminal.output


def test_command_in_the_background_does_not_take_the_terminal(terminal: Terminal) -> None:
    terminal.enter(f"{terminal.run} sh -c 'sleep 1; echo e''nded' &\n")
    assert terminal.shows("runs on"), terminal.output
    terminal.enter("echo a''live\n")
    assert terminal.shows("alive"), terminal.output
    assert terminal.shows("ended"), terminal.output
    terminal.enter("echo st''ill\n")
    assert terminal.shows("still"), terminal.output


def test_process_that_is_already_listening_is_named() -> None:
    make.manager().allocate("shop", "web")
    first = start("--", sys.executable, "-m", "http.server", "{port}")
    assert answers()
    _, _, err = run_to_end("--", "true")
    first.terminate()
    first.communicate(timeout=20)
    assert f"already listens on {PORT}: is the service running twice?" in err


def test_django_runserver(tmp_path: Path) -> None:
    """The command is another Django project, and must not get the settings of Portal."""
    subprocess.run([sys.executable, "-m", "django", "startproject", "site1", tmp_path], check=True)
    manage = str(tmp_path / "manage.py")
    process = start("--", sys.executable, manage, "runserver", "--noreload", "{host}:{port}")
    try:
        assert answers()
        process.terminate()
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert "using settings 'site1.settings'" in out


def test_vite(tmp_path: Path) -> None:
    """Unless told otherwise, Vite listens on 5173, or on the next free port."""
    words = ("--port", "{port}", "--strictPort", "--host", "{host}", "--logLevel", "error")
    process = start("--", NODE, program("vite/bin/vite.js"), str(tmp_path), *words)
    try:
        assert answers()
        process.terminate()
        process.communicate(timeout=20)
    finally:
        process.kill()


def test_node_server_that_reads_port() -> None:
    server = (
        "require('http').createServer((q, a) => a.end('up'))"
        ".listen(process.env.PORT, process.env.HOST, () => console.log('ready'))"
    )
    process = start("--", NODE, "-e", server)
    try:
        assert answers()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode in (128 + signal.SIGINT, 130)
    finally:
        process.kill()
