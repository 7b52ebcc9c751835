"""SQL beside the migrations: `NNNN_name.sql` and `NNNN_name.reverse.sql`, loaded by the migration of that name.

A function that changes gets a new file and a new migration; a file that has landed is never edited.
"""

from pathlib import Path

from django.db import migrations


class RunSQLFile(migrations.RunSQL):
    """Runs `<name>.sql`, and `<name>.reverse.sql` backwards."""

    def __init__(self, name: str) -> None:
        here = Path(__file__).parent
        # Lists, so that Django passes the text on whole instead of splitting it at semicolons.
        super().__init__(
            sql=[(here / f"{name}.sql").read_text()], reverse_sql=[(here / f"{name}.reverse.sql").read_text()]
        )
        self.name = name

    def describe(self) -> str:
        return f"Run {self.name}.sql"

    def deconstruct(self) -> tuple[str, list[str], dict[str, str]]:
        return (type(self).__qualname__, [], {"name": self.name})
