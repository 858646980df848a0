"""The tables of history. `history_minutes` and `history_hours` are cut into partitions by time, which `partitions` makes and
drops; the arrays are in the order of METRICS."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    Boolean,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY

from forebay_registry.keeping.tables import METADATA

_MOMENT = DateTime(timezone=True)

history_series = Table(
    "history_series",
    METADATA,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("ref", Text, nullable=False),
    Column("name", Text, nullable=False),  # as people call it, when it was last written
    UniqueConstraint("kind", "ref", name="history_series_kind_ref_key"),
    Index("history_series_name", "kind", "name"),
)


def _rollup(name: str, *columns: Column[object]) -> Table:
    return Table(
        name,
        METADATA,
        Column(
            "series_id", Integer, primary_key=True
        ),  # no foreign key: a row of thousands each minute need not be looked up
        Column("at", _MOMENT, primary_key=True),
        *columns,
        Column("mins", ARRAY(REAL), nullable=False),
        Column("means", ARRAY(REAL), nullable=False),
        Column("maxs", ARRAY(REAL), nullable=False),
        Column("lasts", ARRAY(REAL), nullable=False),
        Column("gpu_wh", Double),
        Column("server_wh", Double),
        Column("idle_wh", Double),
        Column("measured_s", REAL, nullable=False),
        Column("is_estimated", Boolean, nullable=False),
        postgresql_partition_by="RANGE (at)",
    )


history_minutes = _rollup("history_minutes", Column("samples", ARRAY(SmallInteger), nullable=False))
history_hours = _rollup(
    "history_hours",
    Column("samples", ARRAY(Integer), nullable=False),
    Column("minutes", ARRAY(SmallInteger), nullable=False),  # in which the metric was told: the weight of the mean
)

history_hours_due = Table(
    "history_hours_due",
    METADATA,
    Column("hour", _MOMENT, primary_key=True),  # its minutes have changed since it was last summed up
)

history_flushes = Table(
    "history_flushes",
    METADATA,
    Column("id", Uuid, primary_key=True),  # of what is already in: a commit whose answer was lost is not made twice
    Column("run", Uuid, nullable=False),  # of the registry that wrote it
    Column("at", _MOMENT, nullable=False),  # by the database's clock
)
