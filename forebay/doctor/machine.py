"""Whether this machine has room for a Forebay: judged from facts that others read."""

from __future__ import annotations

from forebay.doctor.finding import Finding, Grade

OLDEST_PYTHON = (3, 11)
FEW_FILES = 4_096
ENOUGH_FILES = 65_536
"""A stream is two connections; a gateway with fewer files refuses people before its engines do."""
LITTLE_MEMORY_BYTES = 2 * 1024**3
LITTLE_ROOM_BYTES = 1024**3
LITTLE_ROOM = 0.05
_AREA = "machine"


def judge_python(version: tuple[int, int]) -> Finding:
    told = f"{version[0]}.{version[1]}"
    if version < OLDEST_PYTHON:
        return Finding(_AREA, "Python", Grade.FAIL, told, "Forebay needs Python 3.11 or newer.")
    return Finding(_AREA, "Python", Grade.OK, told)


def judge_open_files(soft: int, hard: int) -> Finding:
    """Of the process; infinite is told as -1."""
    subject, found = "open files", f"{_limit(soft)} a process, at most {_limit(hard)}"
    if soft == -1 or soft >= ENOUGH_FILES:
        return Finding(_AREA, subject, Grade.OK, found)
    grade = Grade.FAIL if soft < 1_024 else Grade.WARN
    how = (
        "ulimit -n"
        if hard == -1 or hard >= ENOUGH_FILES
        else "LimitNOFILE= of its unit, or limits.conf, then ulimit -n"
    )
    streams = max(soft - 200, 0) // 2
    return Finding(
        _AREA,
        subject,
        grade,
        found,
        f"A gateway holds about {streams} streams with that. Raise it to {ENOUGH_FILES}: {how}.",
    )


def judge_memory(total_bytes: int, available_bytes: int) -> Finding:
    found = f"{_gib(available_bytes)} available of {_gib(total_bytes)}"
    if available_bytes < LITTLE_MEMORY_BYTES // 4:
        return Finding(
            _AREA,
            "memory",
            Grade.FAIL,
            found,
            "A gateway alone wants 0.2 GiB, and more with many streams: end something else.",
        )
    if available_bytes < LITTLE_MEMORY_BYTES:
        return Finding(
            _AREA,
            "memory",
            Grade.WARN,
            found,
            "`forebay up` with its small model takes 1.5 GiB; services alone 0.8 GiB.",
        )
    return Finding(_AREA, "memory", Grade.OK, found)


def judge_room(where: str, free_bytes: int, total_bytes: int) -> Finding:
    """Of the file system under a directory that a service writes."""
    subject, found = f"room in {where}", f"{_gib(free_bytes)} free of {_gib(total_bytes)}"
    if free_bytes < LITTLE_ROOM_BYTES // 4:
        return Finding(
            _AREA,
            subject,
            Grade.FAIL,
            found,
            "Journals and records will soon not be written, and requests be refused: make room.",
        )
    if free_bytes < LITTLE_ROOM_BYTES or free_bytes < total_bytes * LITTLE_ROOM:
        return Finding(_AREA, subject, Grade.WARN, found, "Make room before it is needed.")
    return Finding(_AREA, subject, Grade.OK, found)


def _limit(number: int) -> str:
    return "no limit" if number == -1 else str(number)


def _gib(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB"
