"""Write the next version of the mini gym's settings: what the rule makes of all tasks declared today.

    python -m softstart.gym.mini.new_version

Run it after new tasks were measured (``python -m benchmarks.gym_facts``), and commit the file. An existing
version is never written again: every study that was run with it means its settings.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from softstart.gym.mini.split import split
from softstart.gym.mini.tasks import TASKS
from softstart.gym.mini.versions import file_of, load_version, versions
from softstart.storage.files import atomic

HEAD = """\
# Version {version} of the mini gym: the tasks there were, and the settings that split.py made of them.
# Written by python -m softstart.gym.mini.new_version. Never edit it: studies refer to it by its number.
"""


def main() -> None:
    """Write the file and print its path."""
    last = max(versions(), default=0)
    if last and load_version(last).tasks == set(TASKS):
        raise SystemExit(f"version {last} has all {len(TASKS)} tasks: there is nothing to make a version of")
    path = file_of(last + 1)
    with atomic(path) as temporary:
        temporary.write_text(text(last + 1, TASKS), encoding="utf-8")
    print(path)


def text(version: int, names: Iterable[str]) -> str:
    """The file of a version."""
    lines = [HEAD.format(version=version), *_list("", "tasks", names), "", "settings:"]
    for setting in split(names).values():
        lines.append(f"  {setting.name}:")
        lines += [*_list("    ", "source", setting.source), *_list("    ", "target", setting.target)]
    return "\n".join(lines) + "\n"


def _list(indent: str, key: str, names: Iterable[str]) -> list[str]:
    wrapped = textwrap.wrap(", ".join(sorted(names)), 100, break_long_words=False, break_on_hyphens=False)
    return [f"{indent}{key}: [", *(f"{indent}  {line}" for line in wrapped), f"{indent}]"]


if __name__ == "__main__":
    main()
