from __future__ import annotations

import sys

import pytest

from hlrp.sim import gl_backend


@pytest.fixture
def headless_linux(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys, "platform", "linux")
    for variable in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(variable, "")
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    return monkeypatch


@pytest.mark.parametrize(("loads", "backend"), [({"EGL", "OSMesa"}, "egl"), ({"OSMesa"}, "osmesa")])
def test_the_first_library_that_loads_is_chosen(
    headless_linux: pytest.MonkeyPatch, loads: set[str], backend: str
) -> None:
    headless_linux.setattr(gl_backend, "_loads", lambda library: library in loads)
    gl_backend.choose_gl_backend()
    assert gl_backend.os.environ["MUJOCO_GL"] == backend


def test_a_machine_that_cannot_render_names_the_package_to_install(
    headless_linux: pytest.MonkeyPatch,
) -> None:
    headless_linux.setattr(gl_backend, "_loads", lambda library: False)
    with pytest.raises(FileNotFoundError, match="apt-get install -y libegl1"):
        gl_backend.choose_gl_backend()


@pytest.mark.parametrize("variable", ["MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"])
def test_a_choice_already_made_is_left_alone(headless_linux: pytest.MonkeyPatch, variable: str) -> None:
    headless_linux.setattr(gl_backend, "_loads", lambda library: False)
    headless_linux.setenv(variable, "glfw")
    gl_backend.choose_gl_backend()
    assert gl_backend.os.environ["MUJOCO_GL"] == ("glfw" if variable == "MUJOCO_GL" else "")


def test_mujoco_imported_too_early_is_an_error(headless_linux: pytest.MonkeyPatch) -> None:
    headless_linux.setattr(gl_backend, "_loads", lambda library: True)
    headless_linux.setitem(sys.modules, "mujoco", gl_backend)
    with pytest.raises(ValueError, match="MUJOCO_GL=egl before starting Python"):
        gl_backend.choose_gl_backend()
