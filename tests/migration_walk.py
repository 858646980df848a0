"""A schema's migrations one after the other, each over rows that the versions before it wrote, and with the version before
still writing: what an upgrade without a pause asks of them.

Rows are made of what Postgres says of each table at that revision, so a new migration is walked without a word here. They
come in the two forms that a version has: all columns that it knows, and only those that have to be there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from forebay.database import open_database

_COLUMNS = """
    SELECT c.relname AS table, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS needed,
           a.atthasdef OR a.attidentity <> '' AS filled, a.attidentity = 'a' OR a.attgenerated <> '' AS made,
           c.relkind = 'p' AS parted
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'schema_version'
      AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname, a.attnum"""
_REFERENCES = """
    SELECT c.relname AS table, a.attname AS column, f.relname AS to_table, b.attname AS to_column
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class f ON f.oid = k.confrelid
    CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS pair (mine, theirs)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = pair.mine
    JOIN pg_attribute b ON b.attrelid = f.oid AND b.attnum = pair.theirs
    WHERE n.nspname = $1 AND k.contype = 'f'"""
_UNIQUE = """
    SELECT c.relname AS table, pg_get_indexdef(i.indexrelid) AS definition
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND i.indisunique AND NOT c.relispartition"""
_CHECKS = """
    SELECT c.relname AS table, pg_get_constraintdef(k.oid) AS definition
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND k.contype = 'c'"""
_ONE_OF = re.compile(r"\((\w+) = ANY \(ARRAY\['(\w+)'")
"""A check that a column holds one of some words."""
_ONLY_ROW = "only_row"
"""The column of tables that have one row for ever."""

_VALUES: Mapping[str, str] = {
    "text": "'v{n}'",
    "text[]": "ARRAY['v{n}']",
    "bytea": "sha256('{n}')",
    "tsvector": "to_tsvector('simple', 'v{n}')",
    "uuid": "gen_random_uuid()",
    "bigint": "{n}",
    "smallint[]": "ARRAY[1::smallint]",
    "bigint[]": "ARRAY[{n}]",
    "integer": "{n}",
    "integer[]": "ARRAY[{n}]",
    "smallint": "{n}",
    "numeric(30,0)": "{n}",
    "double precision": "{n}",
    "real": "{n}",
    "real[]": "ARRAY[{n}::real]",
    "boolean": "false",
    "json": "'{{}}'",
    "jsonb": "'{{}}'",
    "inet": "'192.0.2.1'",
    "date": "DATE '2026-01-01' + {n}",
    "timestamp with time zone": "TIMESTAMPTZ '2026-01-01 00:00Z' + {n} * INTERVAL '1 minute'",
}
"""SQL of a value of each type, another for each number."""


@dataclass(frozen=True)
class Column:
    type: str
    is_needed: bool
    """NULL is refused."""
    is_filled: bool
    """There is a default."""
    is_made: bool
    """Postgres alone writes it."""


@dataclass(frozen=True)
class Form:
    """What one version knows of one table."""

    columns: Mapping[str, Column]
    references: Mapping[str, tuple[str, str]]
    unique: frozenset[str]
    words: Mapping[str, str]
    """Columns that hold one of some words, and the first of these."""
    is_parted: bool


Forms = Mapping[str, Form]


@dataclass
class Walk:
    schema: str
    migrations: Path
    place: Path
    """Where a copy of the migrations grows, one revision at a time."""
    url: str
    values: Mapping[str, str] = field(default_factory=dict)
    """table.column → SQL, where the type does not say what fits; said in both forms."""
    untouched: frozenset[str] = frozenset()
    """Tables that are left as they are."""
    rows: dict[str, int] = field(default_factory=dict)
    """What was written, by table."""
    _number: int = 0

    @property
    def revisions(self) -> Sequence[Path]:
        return sorted((self.migrations / "versions").glob("0*.py"))

    async def step(self, revision: Path) -> None:
        """Upgrades by one, as a service does that starts."""
        if not self.place.exists():
            shutil.copytree(self.migrations, self.place, ignore=shutil.ignore_patterns("0*.py", "__pycache__"))
        shutil.copy(revision, self.place / "versions")
        async with open_database(self.url, self.schema) as database:
            await database.migrate(self.place)

    async def forms(self, connection: asyncpg.Connection) -> Forms:
        columns: dict[str, dict[str, Column]] = {}
        parted = set()
        for row in await connection.fetch(_COLUMNS, self.schema):
            told = Column(row["type"], row["needed"], row["filled"], row["made"])
            columns.setdefault(row["table"], {})[row["column"]] = told
            if row["parted"]:
                parted.add(row["table"])
        references: dict[str, dict[str, tuple[str, str]]] = {}
        for row in await connection.fetch(_REFERENCES, self.schema):
            references.setdefault(row["table"], {})[row["column"]] = (row["to_table"], row["to_column"])
        unique: dict[str, set[str]] = {}
        for row in await connection.fetch(_UNIQUE, self.schema):
            unique.setdefault(row["table"], set()).add(row["definition"].partition(" USING ")[2])
        words: dict[str, dict[str, str]] = {}
        for row in await connection.fetch(_CHECKS, self.schema):
            words.setdefault(row["table"], {}).update(_ONE_OF.findall(row["definition"]))
        return {
            name: Form(
                found, references.get(name, {}), frozenset(unique.get(name, ())), words.get(name, {}), name in parted
            )
            for name, found in columns.items()
        }

    async def write(self, connection: asyncpg.Connection, forms: Forms) -> None:
        """Rows of every table in both forms, in an order in which what they refer to is there."""
        for name in _in_order(forms):
            form = forms[name]
            if name in self.untouched or _ONLY_ROW in form.columns:
                continue
            if form.is_parted:
                await connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {self.schema}.{name}_rest PARTITION OF {self.schema}.{name} DEFAULT"
                )
            for is_whole in (True, False):
                await connection.execute(self._insert(name, form, is_whole=is_whole))
                self.rows[name] = self.rows.get(name, 0) + 1

    def _insert(self, name: str, form: Form, *, is_whole: bool) -> str:
        self._number += 1
        said = {
            column: self._value(name, column, told, form)
            for column, told in form.columns.items()
            if not told.is_made
            and (is_whole or (told.is_needed and not told.is_filled) or f"{name}.{column}" in self.values)
        }
        names, values = ", ".join(f'"{column}"' for column in said), ", ".join(said.values())
        return f"INSERT INTO {self.schema}.{name} ({names}) VALUES ({values})"

    def _value(self, name: str, column: str, told: Column, form: Form) -> str:
        own = self.values.get(f"{name}.{column}")
        if own is not None:
            return own.format(n=self._number)
        if column in form.references:
            table, there = form.references[column]
            if table == name:
                return "NULL"
            return f"(SELECT {there} FROM {self.schema}.{table} ORDER BY ctid DESC LIMIT 1 OFFSET {self._number % 2})"
        if column in form.words:
            return f"'{form.words[column]}'"
        return _VALUES[told.type].format(n=self._number)


def taken_away(before: Forms, after: Forms) -> set[str]:
    """What the version before relies on and no longer finds, or finds stricter."""
    found = set()
    for name, form in before.items():
        then = after.get(name)
        if then is None:
            found.add(f"{name} is gone")
            continue
        for column, told in form.columns.items():
            now = then.columns.get(column)
            if now is None or now.type != told.type:
                found.add(f"{name}.{column} is gone or of another type")
            elif now.is_needed and not told.is_needed:
                found.add(f"{name}.{column} has to be there now")
            elif told.is_filled and not now.is_filled:
                found.add(f"{name}.{column} has no default any more")
        found |= {f"{name} is not unique by {by} any more" for by in form.unique - then.unique}
        for column in then.columns.keys() - form.columns.keys():
            added = then.columns[column]
            if added.is_needed and not added.is_filled and not added.is_made:
                found.add(f"{name}.{column} has to be there, and the version before does not know it")
    return found


def _in_order(forms: Forms) -> list[str]:
    """Tables, those that others refer to first."""
    found: list[str] = []
    while len(found) < len(forms):
        ready = [
            name
            for name, form in forms.items()
            if name not in found and all(to in found or to == name for to, _ in form.references.values())
        ]
        assert ready, f"a ring of references: {sorted(forms.keys() - set(found))}"
        found += ready
    return found
