"""Compile every template of Portal, so that a misspelt tag is found before anybody opens the page."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import django
from django.conf import settings
from django.template import TemplateSyntaxError
from django.template.loader import get_template


def main() -> int:
    """Print each template that does not compile, with the reason; return how many there are."""
    django.setup()
    wrong = 0
    for folder in map(Path, settings.TEMPLATES[0]["DIRS"]):
        for path in sorted(folder.rglob("*.*")):
            try:
                get_template(str(path.relative_to(folder)))
            except TemplateSyntaxError as error:
                print(f"{path}: {error}", file=sys.stderr)
                wrong += 1
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(), 1))
