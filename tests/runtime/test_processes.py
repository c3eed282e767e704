"""Workers and stages end with the process that started them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from hlrp.runtime.processes import end_with_parent

def pid(_):
    time.sleep(0.2)
    return os.getpid()

if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    with ProcessPoolExecutor(2, mp_context=context, initializer=end_with_parent) as pool:
        print(*set(pool.map(pid, range(2))), flush=True)
        time.sleep(60)
"""
STAGE = """
import functools, os, subprocess, sys, time
from hlrp.runtime.processes import terminate_with_parent

command = [sys.executable, "-c", "import time; time.sleep(60)"]
prepare = functools.partial(terminate_with_parent, os.getpid())
print(subprocess.Popen(command, start_new_session=True, preexec_fn=prepare).pid, flush=True)
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="forkserver and the parent's death signal are Linux's here")
@pytest.mark.parametrize("script", [POOL.format(method="forkserver"), POOL.format(method="spawn"), STAGE])
def test_children_end_when_their_parent_is_killed(tmp_path: Path, script: str) -> None:
    path = tmp_path / "parent.py"
    path.write_text(script)
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert children
        assert all(map(is_alive, children))
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 20
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, children))
