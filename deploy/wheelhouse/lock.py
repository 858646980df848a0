"""Writes the lock of a folder of wheels: each by its path and SHA-256. What was fetched was held to the project's own lock;
this one is of what was built from it, too."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path


def main(folder: Path) -> None:
    for wheel in sorted(folder.glob("wheels/*.whl")):
        print(f"./wheels/{wheel.name} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
