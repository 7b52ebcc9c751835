"""manage.py create_token: create a token, and print it alone on standard output."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import CommandParser

from allocations import validators
from allocations.errors import InvalidValue
from allocations.management.command import PortCommand
from allocations.ports import tokens
from allocations.text import did_you_mean, join_and


class Command(PortCommand):
    help = (
        "Create a token for the API, for MCP or for Prometheus. It is printed alone, and only once, because Portal "
        "stores just a hash. Pass it to a program in its environment or in a file that only its user can "
        "read, never as an argument."
    )
    example = "manage.py create_token deploy --role operator --project consilio > ~/.portal-token"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what it is for; the history shows it")
        parser.add_argument("--role", choices=[r.label for r in tokens.TOKEN_ROLES], default="viewer")
        parser.add_argument(
            "--project", action="append", metavar="NAME", help="limit it to this project (repeat for several)"
        )
        parser.add_argument(
            "--expires", dest="expires_at", default="90d", metavar="WHEN", help="30d, 12h or a date (default: 90d)"
        )
        parser.add_argument("--user", metavar="NAME", help="the user it belongs to, whose rights it can never exceed")
        parser.add_argument("--json", action="store_true", help="print the token with its details as JSON")

    def handle(self, **options: Any) -> None:
        token, text = tokens.create(
            self.context,
            options["name"],
            role=options["role"],
            projects=options["project"],
            expires_at=validators.parse_expires_at(options["expires_at"]),
            user=self._user(options["user"]) if options["user"] else None,
        )
        limit = join_and(options["project"]) if options["project"] else "all projects"
        if options["json"]:
            details = {"id": str(token.pk), "name": token.name, "role": token.role, "projects": options["project"]}
            self.json({**details, "expiresAt": token.expires_at.isoformat(), "token": text})
            return
        self.say(f"{token.name}: {token.role} of {limit} until {token.expires_at:%Y-%m-%d}. It is shown only once.")
        self.print(text)

    def _user(self, name: str) -> int:
        users = get_user_model()._default_manager
        pk = users.filter(username=name).values_list("pk", flat=True).first()
        if pk is None:
            hint = did_you_mean(name, list(users.values_list("username", flat=True)))
            raise InvalidValue(f"There is no user {name}. {hint}".rstrip(), field="user")
        return int(pk)
