"""Compile all templates of Portal, to find errors before a page is opened."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import django
from django.conf import settings
from django.template import TemplateSyntaxError
from django.template.loader import get_template


def main() -> int:
    """Print every template that doesn't compile, with the error, and return their number."""
    django.setup()
    errors = 0
    for folder in map(Path, settings.TEMPLATES[0]["DIRS"]):
        for path in sorted(folder.rglob("*.*")):
            try:
                get_template(str(path.relative_to(folder)))
            except TemplateSyntaxError as error:
                print(f"{path}: {error}", file=sys.stderr)
                errors += 1
    return errors


if __name__ == "__main__":
    sys.exit(min(main(), 1))
