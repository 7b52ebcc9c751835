"""Reading without a login, with real connections of several accounts, and through a real nginx."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from portal import peers
from tests import make
from tests.serving import gunicorn
from tests.tools import skip_or_fail

SERVED, NGINX = make.FIRST + 900, make.FIRST + 901
LOGIN_ACCOUNT = peers.first_login_uid() + 77
NGINX_CONFIGURATION = """
daemon off; pid {home}/pid; error_log {home}/error.log; user www-data;
events {{ }}
http {{
    access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://localhost:{served}; }} }}
}}
"""


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("Only root can open connections as other accounts.")


def status_for(uid: int) -> int:
    """Send a request for the list of ports as an account, and return the status of the response."""
    request = r"GET /api/ports HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    script = f"exec 3<>/dev/tcp/127.0.0.1/{SERVED}; printf '{request}' >&3; cat <&3"
    completed = subprocess.run(
        ["bash", "-c", script], user=uid, extra_groups=[], cwd="/", capture_output=True, timeout=30, check=True
    )
    return int(completed.stdout.split()[1])


@contextmanager
def nginx(home: Path) -> Iterator[str]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        skip_or_fail("nginx is not installed. Run apt-get install -y --no-install-recommends nginx-light")
    home.chmod(0o755)
    configuration = home / "nginx.conf"
    configuration.write_text(NGINX_CONFIGURATION.format(home=home, port=NGINX, served=SERVED))
    with subprocess.Popen([program, "-c", str(configuration)], stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{NGINX}"
        finally:
            process.terminate()


def wait_until_connected(port: int) -> None:
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")


@pytest.mark.slow
@pytest.mark.usefixtures("as_root")
@pytest.mark.django_db(transaction=True)
def test_root_and_login_accounts_may_read_and_service_accounts_may_not() -> None:
    with gunicorn(SERVED, workers=1, anonymous_read=True):
        assert status_for(0) == 200
        assert status_for(LOGIN_ACCOUNT) == 200
        for service_account in (pwd.getpwnam("www-data").pw_uid, pwd.getpwnam("nobody").pw_uid, 61184, 999):
            assert status_for(service_account) == 401, service_account
    with gunicorn(SERVED, workers=1):
        assert status_for(0) == 401


@pytest.mark.slow
@pytest.mark.usefixtures("as_root")
@pytest.mark.django_db(transaction=True)
def test_the_world_behind_nginx_may_not_read(tmp_path: Path) -> None:
    """nginx sends Host: localhost and no forwarding header, as in the shortest configuration that works."""
    with gunicorn(SERVED, workers=1, anonymous_read=True), nginx(tmp_path) as address:
        wait_until_connected(NGINX)
        for path in ("/api/ports", "/api/projects", "/metrics"):
            assert httpx2.get(f"http://localhost:{SERVED}{path}").status_code == 200, path
            assert httpx2.get(address + path).status_code == 401, path


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_account_of_a_connection_is_known_while_it_is_open(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        with server.accept()[0] as accepted:
            ends = client.getsockname()[:2], accepted.getsockname()[:2]
            assert peers.uid_of_peer(*ends) == os.getuid()
            client.close()
            assert peers.uid_of_peer(*ends) is None


def test_the_account_of_a_mapped_connection_is_known() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0] as accepted:
            assert accepted.getpeername()[0].startswith("::ffff:")
            assert peers.uid_of_peer(accepted.getpeername()[:2], accepted.getsockname()[:2]) == os.getuid()


@pytest.mark.parametrize(
    "client", [("203.0.113.9", 4000), ("127.0.0.1", 1), ("", 0), ("testserver", 80), ("127.0.0.1", "None")]
)
def test_other_connections_have_no_account(client: peers.Address) -> None:
    assert peers.uid_of_peer(client, ("127.0.0.1", 3000)) is None


def test_a_listener_is_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert peers.uid_of_peer(server.getsockname(), ("127.0.0.1", 9)) is None


@pytest.mark.parametrize(
    ("text", "expected"), [("UID_MIN\t\t  500\n", 500), ("#UID_MIN 5\n UID_MIN 2000", 2000), ("SYS_UID_MIN 100", 1000)]
)
def test_uid_min_is_read(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "login.defs").write_text(text)
    assert peers.first_login_uid(tmp_path / "login.defs") == expected


def test_uid_min_has_a_default(tmp_path: Path) -> None:
    assert peers.first_login_uid(tmp_path / "none") == 1000
