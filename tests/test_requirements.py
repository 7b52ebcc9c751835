"""Every package that `make` installs is pinned, with hashes."""

import re

import pytest
from django.conf import settings


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-uv.txt"])
def test_every_requirement_has_a_version_and_hashes(name: str) -> None:
    text = (settings.BASE_DIR / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9-]+(\[[a-z,-]+\])?==\S+ ", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
    assert "://" not in text


def test_make_installs_with_hashes_only() -> None:
    makefile = (settings.BASE_DIR / "Makefile").read_text()
    installations = re.findall(r"pip install .*", makefile)
    assert len(installations) == 3
    assert all("--require-hashes" in line for line in installations)
