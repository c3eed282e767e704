"""Pre-commit check that refuses large files. Usage: python scripts/check_file_size.py FILE..."""

from __future__ import annotations

import sys
from pathlib import Path

LIMIT_KB = 1000


def main() -> int:
    """Print one line for every file over the limit; returns the exit status, 1 if there is such a file."""
    large = [path for path in map(Path, sys.argv[1:]) if path.stat().st_size > LIMIT_KB * 1000]
    for path in large:
        print(f"{path} has {path.stat().st_size // 1000} kB, the limit is {LIMIT_KB} kB; keep it out of git")
    return int(bool(large))


if __name__ == "__main__":
    sys.exit(main())
