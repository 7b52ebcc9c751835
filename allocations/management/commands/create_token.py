"""manage.py create_token: a key for a program, on standard output alone."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import CommandParser

from allocations import errors, words
from allocations.management.command import PortCommand
from allocations.ports.granting import GIVEN_ROLES


class Command(PortCommand):
    help = (
        "Make a token for the API, for MCP or for Prometheus. Prints it alone, this once: only a hash of it is kept. "
        "Give it to a program by its environment or by a file that only its user can read, not by its arguments."
    )
    example = "manage.py create_token deploy --role operator --project consilio > ~/.portal-token"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what it is for; the history names it")
        parser.add_argument("--role", choices=[r.label for r in GIVEN_ROLES], default="viewer")
        parser.add_argument(
            "--project", action="append", metavar="NAME", help="limit it to this project (several: repeat)"
        )
        parser.add_argument("--expires", default="90d", metavar="WHEN", help="30d, 12h or a date (default: 90d)")
        parser.add_argument("--user", metavar="NAME", help="its owner, whose rights it can never exceed")
        parser.add_argument("--json", action="store_true", help="print what is known of it, too")

    def handle(self, **options: Any) -> None:
        token, text = self.ports.create_token(
            options["name"],
            role=options["role"],
            projects=options["project"],
            expires_at=words.expiry_text(options["expires"]),
            user=self._user(options["user"]) if options["user"] else None,
        )
        limit = words.listed(options["project"]) if options["project"] else "all projects"
        if options["json"]:
            known = {"id": str(token.pk), "name": token.name, "role": token.role, "projects": options["project"]}
            self.json({**known, "expiresAt": token.expires_at.isoformat(), "token": text})
            return
        self.say(f"{token.name}: {token.role} of {limit} until {token.expires_at:%Y-%m-%d}. It is shown this once.")
        self.print(text)

    def _user(self, name: str) -> int:
        users = get_user_model()._default_manager
        found = users.filter(username=name).values_list("pk", flat=True).first()
        if found is None:
            near = words.nearest(name, list(users.values_list("username", flat=True)))
            hint = f" Did you mean {words.either(near)}?" if near else ""
            raise errors.InvalidValue(f"There is no user {name}.{hint}", field="user")
        return int(found)
