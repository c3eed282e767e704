from __future__ import annotations

import resource
import sys
import time

import pytest

from hlrp.foundation import bounded_template as module
from hlrp.foundation.backends import QwenVLChatBackend
from hlrp.foundation.batch import FoundationBatch

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LOOP, "takes more than"),
        ("{{ 'x' * 99999999999 }}", "too much memory"),
        ("{% for", "cannot be rendered"),
        ("{{ ''.__class__.__mro__ }}", "cannot be rendered"),
    ],
)
def test_a_template_that_asks_for_too_much_is_one_sentence(
    backend: QwenVLChatBackend, batch: FoundationBatch, monkeypatch: pytest.MonkeyPatch, template: str, message: str
) -> None:
    monkeypatch.setattr(module, "TEMPLATE_SECONDS", 0.3)
    monkeypatch.setattr(backend.processor, "chat_template", template)
    limits, trace, start = resource.getrlimit(resource.RLIMIT_AS), sys.gettrace(), time.monotonic()
    with pytest.raises(ValueError, match=message):
        backend.predict(batch)
    assert time.monotonic() - start < 5
    assert (resource.getrlimit(resource.RLIMIT_AS), sys.gettrace()) == (limits, trace)
