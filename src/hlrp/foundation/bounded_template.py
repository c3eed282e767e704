"""Render the chat template of a checkpoint, which is a small program, within limits of time and memory.

transformers renders templates in a sandbox of Jinja: they reach no file and no Python object, but may loop. Jinja
compiles a template to Python, so a trace function sees every line that the template runs.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from jinja2 import TemplateError

from hlrp.runtime.size_limits import TEMPLATE_MEMORY, TEMPLATE_SECONDS

ANOTHER_TEMPLATE = "use the template of a chat model of the same family (chat_template.json)"
"""Advice in messages about a chat template."""


_TEMPLATE_FILE = "<template>"
"""Name of the file that Jinja gives to the Python code of a template."""


class _TemplateTooSlow(Exception):
    """Raised inside a template that runs longer than `TEMPLATE_SECONDS`."""


@contextmanager
def bounded_template() -> Iterator[None]:
    """Within the block, which renders a template, stop it after `TEMPLATE_SECONDS`.

    Raises:
        ValueError: If the template takes too long, takes too much memory, is no template, or is refused by the sandbox.
    """
    before, end = sys.gettrace(), float("inf")

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal end
        if frame.f_code.co_filename != _TEMPLATE_FILE:  # of the parser or the host, whose lines are not watched
            return None
        end = min(end, time.monotonic() + TEMPLATE_SECONDS)
        if time.monotonic() > end:
            raise _TemplateTooSlow
        return watch

    sys.settrace(watch)
    try:
        with _bounded_memory():
            yield
    except _TemplateTooSlow as error:
        raise ValueError(
            f"the chat template takes more than {TEMPLATE_SECONDS:g} s for one prompt; {ANOTHER_TEMPLATE}"
        ) from error
    except (MemoryError, OverflowError, RecursionError) as error:
        raise ValueError(f"the chat template asks for too much memory; {ANOTHER_TEMPLATE}") from error
    except (TemplateError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the chat template cannot be rendered ({reason}); {ANOTHER_TEMPLATE}") from error
    finally:
        sys.settrace(before)


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Within the block, let this process take at most `TEMPLATE_MEMORY` more bytes of address space (on Linux)."""
    sizes = Path("/proc/self/statm")
    if not sizes.is_file():
        yield
        return
    taken = int(sizes.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [taken + TEMPLATE_MEMORY, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
