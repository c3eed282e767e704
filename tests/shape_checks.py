"""The type checker of test runs: beartype, taking an int where a float is asked for, as Python itself does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import ModuleType
from unittest.mock import patch

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import _import_hook

check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def install(packages: Sequence[str]) -> None:
    """Check the annotations of all modules of `packages` that are imported from now on.

    jaxtyping keeps the checked bytecode under another name. It looks for this name also in all packages that a checked
    module imports, so that every process would compile PyTorch and LeRobot again; here only the module itself has it.
    """
    jaxtyping.install_import_hook(packages, f"{__name__}.check")
    _import_hook._JaxtypingLoader.exec_module = _exec_module


def _exec_module(loader: _import_hook._JaxtypingLoader, module: ModuleType) -> None:
    name = partial(_import_hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", name):
        code = loader.get_code(module.__name__)
    assert code is not None
    exec(code, module.__dict__)
