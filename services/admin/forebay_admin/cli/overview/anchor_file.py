"""A file of anchors of the audit log: each line is what a check ended with and when, the newest last. Kept where whoever
owns the database cannot write, it shows whether the log was cut off or made anew since."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from forebay.errors import BadInput
from forebay_admin.audit.chain import Anchor, parse_anchor


class AnchorFile:
    def __init__(self, path: Path) -> None:
        """Raises BadInput for a file that others may write, that cannot be read, or that is something else."""
        self.path = path.expanduser().resolve()
        self._lines = self._read()
        self.last: Anchor | None = None
        """None: nothing was kept yet."""
        for number, line in enumerate(self._lines, start=1):
            try:
                self.last = parse_anchor(line.partition(" ")[0])
            except BadInput as error:
                raise BadInput(f"Line {number} of {self.path} is no anchor. {error.message}") from error

    def keep(self, anchor: Anchor, now: datetime) -> bool:
        """Mode 600, and whole or as it was. False when nothing was added to the log since. Raises BadInput."""
        if self.last is not None and anchor.seq <= self.last.seq:
            return False
        lines = [*self._lines, f"{anchor} {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"]
        fresh = self.path.with_name(f".{self.path.name}.new")
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            raise BadInput(f"{self.path} cannot be written: {error.strerror}. Keep this by hand: {anchor}") from error
        self._lines, self.last = lines, anchor
        return True

    def _read(self) -> list[str]:
        try:
            found = self.path.stat()
            lines = self.path.read_text().splitlines()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise BadInput(f"{self.path} cannot be read as a file of anchors: {error}") from error
        if found.st_mode & 0o022:
            raise BadInput(f"{self.path} may be written by others, so it proves nothing: `chmod 600` it.")
        return [line.strip() for line in lines if line.strip()]
