"""`make audit` passes only if every package was looked up."""

from __future__ import annotations

from scripts.audit import verdict

SOUND = {"name": "zipp", "version": "4.1.2", "vulns": []}
SKIPPED = {"name": "wrapt", "skip_reason": "not found"}
FLAWED = {"name": "idna", "version": "3.6", "vulns": [{"id": "CVE-2024-3651", "fix_versions": ["3.7"]}]}


def test_packages_without_a_known_vulnerability_pass() -> None:
    assert verdict([SOUND]) == ("1 packages have no known vulnerability", True)


def test_a_package_that_was_not_looked_up_fails() -> None:
    text, is_sound = verdict([SOUND, SKIPPED])
    assert not is_sound
    assert text.startswith("error: 1 of 2 packages were not looked up (wrapt, …)")


def test_a_vulnerable_package_fails_and_is_named_with_its_remedy() -> None:
    text, is_sound = verdict([SOUND, FLAWED])
    assert not is_sound
    assert text == "idna 3.6: CVE-2024-3651, mended in 3.7"
