"""manage.py dbshell: Django's command, with all options of DATABASE_URL."""

import os
from typing import Any

from django.core.management.commands import dbshell

from allocations.management.command import HelpfulCommand
from portal import backup


class Command(HelpfulCommand, dbshell.Command):
    help = "Open psql on the database of Portal."
    example = 'manage.py dbshell -- -c "SELECT name FROM projects"'

    def handle(self, **options: Any) -> None:
        os.environ.update(backup.environment())  # Django passes a few options only
        super().handle(**options)
