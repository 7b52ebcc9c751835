"""SQL that the migrations run: one file per subject.

`tables.sql` belongs to 0001_initial. `guards.sql`, `history.sql`, `rights.sql` and `allocator.sql` hold every function
and trigger, and belong to 0002_functions.

Never edit a file that has landed: databases that ran it would keep the old text. To change a function, add a migration
and a SQL file of the same name, `NNNN_what_changes.sql`, with `CREATE OR REPLACE FUNCTION` under the same name. Only a
function whose parameters change has to be dropped first. Then run `make schema`: allocations/sql/schema.sql shows the
current text of every function and trigger.
"""

from pathlib import Path

from django.db import migrations

FOLDER = Path(__file__).parent


class RunSQLFile(migrations.RunSQL):
    """Run `<name>.sql`; backwards, run `<name>.reverse.sql`. Without that file the migration cannot be reversed."""

    def __init__(self, name: str) -> None:
        reverse = FOLDER / f"{name}.reverse.sql"
        # As lists, because Django splits a string at its semicolons.
        super().__init__(
            sql=[(FOLDER / f"{name}.sql").read_text()],
            reverse_sql=[reverse.read_text()] if reverse.exists() else None,
        )
        self.name = name

    def describe(self) -> str:
        return f"Run {self.name}.sql"

    def deconstruct(self) -> tuple[str, list[str], dict[str, str]]:
        return (type(self).__qualname__, [], {"name": self.name})
