"""The type checker of test runs: beartype, taking an int where a float is asked for, as Python itself does."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
