"""Settings from the environment and the .env file.

An invalid value ends a command with status 2 and one line on standard error.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from portal import checks
from portal.database import parse_url
from portal.environment import VARIABLES

KEY = "abcdefghij" * 5
SERVER = {"DATABASE_URL": "postgresql://u:secret@db.example.org:5433/ports", "PORTAL_SECRET_KEY": KEY}
SHOW = """
import json, sys
from portal import settings
print(json.dumps({name: getattr(settings, name) for name in sys.argv[1:]}, default=str))
"""


def run(*arguments: str, cwd: Path = settings.BASE_DIR, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the checkout `cwd`, with the given variables of Portal and no others."""
    # The browser tests set DJANGO_ALLOW_ASYNC_UNSAFE in their own process.
    hidden = {*VARIABLES, "DJANGO_ALLOW_ASYNC_UNSAFE"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"DJANGO_SETTINGS_MODULE": "portal.settings", **variables}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def load_settings(checkout: Path, *names: str, **variables: str) -> dict[str, object]:
    """Return the settings of the given names, with the given variables."""
    done = run("-c", SHOW, *names, cwd=checkout, **{"PORTAL_HOME": str(checkout / "home"), **variables})
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_defaults(checkout: Path) -> None:
    names = ["PORTAL_HOST", "PORTAL_PORT", "PORTAL_WORKERS", "PORTAL_CHECK_RETENTION_DAYS", "PORTAL_TRUSTED_PROXIES"]
    names += ["PORTAL_ANONYMOUS_READ", "PORTAL_ADMIN_PASSWORD", "PORTAL_ALERT_URLS", "ALLOWED_HOSTS", "HTTPS", "DEBUG"]
    assert load_settings(checkout, *names) == {
        "PORTAL_HOST": "127.0.0.1",
        "PORTAL_PORT": 3000,
        "PORTAL_WORKERS": 2,
        "PORTAL_CHECK_RETENTION_DAYS": 30,
        "PORTAL_TRUSTED_PROXIES": [],
        "PORTAL_ANONYMOUS_READ": False,
        "PORTAL_ADMIN_PASSWORD": "",
        "PORTAL_ALERT_URLS": [],
        "ALLOWED_HOSTS": ["localhost", "127.0.0.1", "[::1]"],
        "HTTPS": False,
        "DEBUG": False,
    }


@pytest.mark.parametrize(
    ("variable", "value", "setting", "expected"),
    [
        ("PORTAL_HOST", "0.0.0.0", "PORTAL_HOST", "0.0.0.0"),
        ("PORTAL_HOST", "[::1]", "PORTAL_HOST", "::1"),
        ("PORTAL_PORT", " 3001 ", "PORTAL_PORT", 3001),
        ("PORTAL_WORKERS", "4", "PORTAL_WORKERS", 4),
        ("PORTAL_ANONYMOUS_READ", "yes", "PORTAL_ANONYMOUS_READ", True),
        ("PORTAL_ANONYMOUS_READ", "0", "PORTAL_ANONYMOUS_READ", False),
        ("PORTAL_ADMIN_PASSWORD", "tea, please", "PORTAL_ADMIN_PASSWORD", "tea, please"),
        ("PORTAL_CHECK_RETENTION_DAYS", "7", "PORTAL_CHECK_RETENTION_DAYS", 7),
        ("PORTAL_ALERT_URLS", "json://a/b,c mailto://d", "PORTAL_ALERT_URLS", ["json://a/b,c", "mailto://d"]),
        ("PORTAL_TRUSTED_PROXIES", "10.0.0.0/8, ::1", "PORTAL_TRUSTED_PROXIES", ["10.0.0.0/8", "::1/128"]),
        ("PORTAL_SECRET_KEY", KEY, "SECRET_KEY", KEY),
        ("PORTAL_HOST", "127.0.0.5", "ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]", "127.0.0.5"]),
        (
            "PORTAL_ALLOWED_HOSTS",
            "Portal.example.org fd00::1",
            "ALLOWED_HOSTS",
            ["localhost", "127.0.0.1", "[::1]", "portal.example.org", "[fd00::1]"],
        ),
        ("PORTAL_ALLOWED_HOSTS", "portal.localhost,127.0.0.9", "HTTPS", False),
        ("PORTAL_ALLOWED_HOSTS", "3com.example", "HTTPS", True),
    ],
)
def test_values(checkout: Path, variable: str, value: str, setting: str, expected: object) -> None:
    assert load_settings(checkout, setting, **{variable: value}) == {setting: expected}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORTAL_PORT", "0"),
        ("PORTAL_PORT", "65536"),
        ("PORTAL_PORT", "3_000"),
        ("PORTAL_PORT", "٣٠٠٠"),
        ("PORTAL_PORT", "9" * 5000),
        ("PORTAL_WORKERS", "many"),
        ("PORTAL_CHECK_RETENTION_DAYS", "30d"),
        ("PORTAL_ANONYMOUS_READ", "maybe"),
        ("PORTAL_HOST", "http://localhost"),
        ("PORTAL_ALLOWED_HOSTS", "*"),
        ("PORTAL_ALLOWED_HOSTS", "example.org:443"),
        ("PORTAL_TRUSTED_PROXIES", "proxy.example.org"),
        ("PORTAL_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("PORTAL_ALERT_URLS", "secret"),
        ("PORTAL_SECRET_KEY", "secret"),
        ("DATABASE_URL", "sqlite:///secret"),
        ("DATABASE_URL", "secret"),
        ("DATABASE_URL", "postgresql://secret@db.example.org"),
        ("DATABASE_URL", "postgresql://secret@db.example.org:port/name"),
    ],
)
def test_invalid_value_is_reported_in_one_line(checkout: Path, variable: str, value: str) -> None:
    for command in ("check", "allocate", "up"):
        done = run("manage.py", command, cwd=checkout, **{"PORTAL_HOME": str(checkout / "home"), variable: value})

        assert done.returncode == 2
        assert done.stderr.startswith(f"{variable} ")
        assert "it must" in done.stderr
        assert done.stderr.count("\n") == 1
        assert "secret" not in done.stderr  # values that may be secret are not repeated
        assert done.stdout == ""


def test_gunicorn_reports_invalid_values_as_well(checkout: Path) -> None:
    done = run("-m", "gunicorn", "-c", "portal/gunicorn.conf.py", cwd=checkout, PORTAL_PORT="http")

    assert done.returncode != 0
    assert "PORTAL_PORT ('http') is invalid" in done.stderr
    assert "Traceback" not in done.stderr


def test_env_file(checkout: Path) -> None:
    (checkout / ".env").write_text(
        "# a comment\n\nPORTAL_PORT=3005\nexport PORTAL_WORKERS = '3'\nPORTAL_ADMIN_PASSWORD=\"a # b\"\n"
        "PORTAL_CHECK_RETENTION_DAYS=7\n"
    )
    names = ["PORTAL_PORT", "PORTAL_WORKERS", "PORTAL_ADMIN_PASSWORD", "PORTAL_CHECK_RETENTION_DAYS"]

    values = load_settings(checkout, *names, PORTAL_CHECK_RETENTION_DAYS="9")  # the environment takes precedence

    assert list(values.values()) == [3005, 3, "a # b", 9]


def test_comments_in_the_env_file(checkout: Path) -> None:
    (checkout / ".env").write_text(
        "PORTAL_PORT=3005  # the port to serve on\nPORTAL_HOST='127.0.0.1' # here\nPORTAL_ADMIN_PASSWORD=a#b\n"
    )
    values = load_settings(checkout, "PORTAL_PORT", "PORTAL_HOST", "PORTAL_ADMIN_PASSWORD")
    assert list(values.values()) == [3005, "127.0.0.1", "a#b"]


def test_the_production_settings_of_the_documentation_start_as_pasted(checkout: Path) -> None:
    page = (settings.BASE_DIR / "docs" / "operations.md").read_text()
    pasted = page.split("`/opt/portal/.env`, mode 0600:\n\n```ini\n", 1)[1].split("```", 1)[0]
    pasted += page.split("```ini\nDATABASE_URL", 1)[1].join(["DATABASE_URL", ""]).split("```", 1)[0]
    (checkout / ".env").write_text(pasted.replace("PORTAL_SECRET_KEY=…", f"PORTAL_SECRET_KEY={'random-key' * 6}"))

    done = run("manage.py", "check", "--deploy", "--fail-level", "WARNING", cwd=checkout)

    assert (done.returncode, done.stdout) == (0, "System check identified no issues (0 silenced).\n"), done.stderr
    assert load_settings(checkout, "SECRET_KEY") == {"SECRET_KEY": "random-key" * 6}


def test_invalid_line_in_the_env_file(checkout: Path) -> None:
    (checkout / ".env").write_text("PORTAL_PORT=3005\nPORTAL_ADMIN_PASSWORD: secret\n")

    done = run("manage.py", "check", cwd=checkout)

    assert done.returncode == 2
    assert done.stderr == f"{checkout}/.env, line 2 does not have the form NAME=value. Correct or remove it.\n"


def test_home_does_not_depend_on_the_current_directory(checkout: Path) -> None:
    here = run("-c", SHOW, "PORTAL_HOME", cwd=checkout, PORTAL_HOME="data", PYTHONPATH=str(checkout))
    elsewhere = run("-c", SHOW, "PORTAL_HOME", cwd=Path("/"), PORTAL_HOME="data", PYTHONPATH=str(checkout))

    assert here.stdout == elsewhere.stdout == json.dumps({"PORTAL_HOME": f"{checkout}/data"}) + "\n"


def test_home_that_is_not_writable(checkout: Path) -> None:
    done = run("manage.py", "check", cwd=checkout, PORTAL_HOME="/proc/portal")

    assert done.returncode == 2
    assert done.stderr.startswith("PORTAL_HOME is /proc/portal, but Portal cannot store its files there (")
    assert done.stderr.count("\n") == 1


def test_secret_key_is_generated_for_the_embedded_database(checkout: Path) -> None:
    first, second = load_settings(checkout, "SECRET_KEY"), load_settings(checkout, "SECRET_KEY")

    assert first == second
    assert len(str(first["SECRET_KEY"])) >= 50


def test_secret_key_is_required_with_database_url(checkout: Path) -> None:
    home = checkout / "home"

    done = run("manage.py", "check", cwd=checkout, PORTAL_HOME=str(home), DATABASE_URL=SERVER["DATABASE_URL"])

    assert done.returncode == 2
    assert done.stderr.startswith("PORTAL_SECRET_KEY is not set")
    assert done.stderr.count("\n") == 1
    assert not home.exists()


def test_database_url(checkout: Path) -> None:
    url = SERVER["DATABASE_URL"] + "?sslmode=require&connect_timeout=2&options=-c%20statement_timeout%3D5"

    values = load_settings(checkout, "DATABASES", "EMBEDDED_DATABASE", **{**SERVER, "DATABASE_URL": url})

    database = values["DATABASES"]["default"]  # type: ignore[index]
    assert not values["EMBEDDED_DATABASE"]
    assert [database[name] for name in ("HOST", "PORT", "NAME", "USER", "PASSWORD")] == [
        *("db.example.org", 5433, "ports", "u", "secret")
    ]
    assert database["OPTIONS"]["sslmode"] == "require"
    assert database["OPTIONS"]["connect_timeout"] == 2
    assert database["OPTIONS"]["tcp_user_timeout"] == 10_000
    assert database["OPTIONS"]["options"] == "-c statement_timeout=5"
    assert "options" not in load_settings(checkout, "DATABASES", **SERVER)["DATABASES"]["default"]["OPTIONS"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("places", "host", "port"),
    [
        ("db1:5433,db2:5434", "db1,db2", "5433,5434"),
        ("db1,db2:6432", "db1,db2", "5432,6432"),
        ("[::1]:5433,[2001:db8::1]", "::1,2001:db8::1", "5433,5432"),
        ("%2Frun%2Fone,%2Frun%2Ftwo:5433", "/run/one,/run/two", "5432,5433"),
    ],
)
def test_database_url_with_several_hosts(places: str, host: str, port: str) -> None:
    database = parse_url(f"postgresql://u:s%40ecret@{places}/ports?target_session_attrs=read-write")
    assert (database["HOST"], database["PORT"]) == (host, port)
    assert (database["USER"], database["PASSWORD"], database["NAME"]) == ("u", "s@ecret", "ports")
    assert database["OPTIONS"] == {"target_session_attrs": "read-write"}


@pytest.mark.parametrize("places", ["db1:x,db2", "db1:1:2,db2", "[::1,db2", "db1:999999,db2"])
def test_wrong_hosts_in_database_url_are_refused(checkout: Path, places: str) -> None:
    url = f"postgresql://u:secret@{places}/ports"
    done = run("manage.py", "check", cwd=checkout, **{**SERVER, "DATABASE_URL": url})
    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "DATABASE_URL is invalid")
    assert "secret" not in done.stderr


@pytest.mark.parametrize("url", ["mysql://x", "postgresql://owner@db.example.org:5433/other", "nonsense"])
def test_owner_is_one_of_the_same_database(checkout: Path, url: str) -> None:
    done = run("manage.py", "check", cwd=checkout, **{**SERVER, "DATABASE_OWNER_URL": url})
    assert done.returncode == 2
    assert done.stderr.startswith("DATABASE_OWNER_URL is invalid: it must be that of the same database")


def test_unreachable_database_is_reported_in_one_line(checkout: Path) -> None:
    url = "postgresql://u:secret@127.0.0.1:1/ports"

    done = run("manage.py", "migrate", cwd=checkout, **{**SERVER, "DATABASE_URL": url})

    assert done.returncode == 2
    assert "Connection refused" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


@pytest.mark.both_servers
@pytest.mark.django_db
def test_database_has_time_limits() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        for name, value in {"statement_timeout": "30s", "lock_timeout": "10s"}.items():
            cursor.execute(f"SHOW {name}")
            assert cursor.fetchone() == (value,)
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("1min",)


def test_check_deploy_finds_no_issues_in_production(checkout: Path) -> None:
    production = {**SERVER, "PORTAL_ALLOWED_HOSTS": "portal.example.org", "PORTAL_TRUSTED_PROXIES": "127.0.0.1"}
    production["DATABASE_OWNER_URL"] = SERVER["DATABASE_URL"].replace("u:secret@", "owner:other@")

    done = run("manage.py", "check", "--deploy", "--fail-level", "WARNING", cwd=checkout, **production)

    assert done.returncode == 0, done.stderr
    assert "no issues (0 silenced)" in done.stdout + done.stderr


def test_check_deploy_warns_if_one_role_does_everything(checkout: Path) -> None:
    done = run("manage.py", "check", "--deploy", cwd=checkout, **SERVER)

    assert "portal.W001" in done.stderr
    assert "name the owner in DATABASE_OWNER_URL" in done.stderr


@pytest.mark.django_db
def test_check_deploy_warns_if_no_statement_is_ended() -> None:
    assert checks.check_limits(None) == []
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
    assert [warning.id for warning in checks.check_limits(None)] == ["portal.W002"]


def test_https_is_not_required_on_this_machine(checkout: Path) -> None:
    """Users must be able to log in at http://localhost:3000, where `make up` serves."""
    names = ["SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT", "SECURE_HSTS_SECONDS"]

    assert not any(load_settings(checkout, *names).values())
    assert all(load_settings(checkout, *names, PORTAL_ALLOWED_HOSTS="portal.example.org").values())


def test_two_portals_do_not_share_cookies(checkout: Path) -> None:
    names = ["SESSION_COOKIE_NAME", "CSRF_COOKIE_NAME"]

    first, second = load_settings(checkout, *names), load_settings(checkout, *names, PORTAL_PORT="3001")

    assert not set(first.values()) & set(second.values())
