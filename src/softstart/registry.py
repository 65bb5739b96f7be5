"""One table for every kind of extension: algorithms, optimizers, placements, initializers, metrics, ….

An entry is declared once. Validation, help texts, tables and costs read the table, and code outside of the
package adds to it in the same way as code inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from softstart.errors import SoftstartError, did_you_mean

T = TypeVar("T")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


class Registry(Mapping[str, T], Generic[T]):
    """Names and what they stand for, in the order of registration.

    Args:
        kind: what an entry is, for messages: "optimizer".
        accepts: whether an object, imported by its path, is such an entry; None: import paths are not
            accepted.

    >>> colors: Registry[str] = Registry("color")
    >>> colors.add("red", "#f00")
    '#f00'
    >>> colors.find("rad")
    Traceback (most recent call last):
    softstart.errors.SoftstartError: unknown color 'rad'. Did you mean red?
    """

    def __init__(self, kind: str, accepts: Callable[[Any], bool] | None = None) -> None:
        self.kind = kind
        self._accepts = accepts
        self._entries: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, name: str, entry: T) -> T:
        """Register an entry and return it.

        Raises:
            SoftstartError: the name is taken by something else.
        """
        if self._entries.setdefault(name, entry) is not entry:
            raise SoftstartError(f"there are two entries '{name}' of kind {self.kind}", fix="Rename one.")
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """``add`` as a decorator."""
        return lambda entry: self.add(name, entry)

    def find(self, name: str, where: str | None = None) -> T:
        """The entry of a name, or of an import path such as ``mypackage.sign_maml.SignMAML``.

        Raises:
            SoftstartError: there is none.
        """
        if not isinstance(name, str):  # as a configuration may have it
            raise SoftstartError(
                f"no name of an entry of kind {self.kind}: {str(name)[:60]}",
                where=where,
                fix=f"Use one of {', '.join(self._entries)}.",
            )
        if name in self._entries:
            return self._entries[name]
        if self._accepts and _PATH.fullmatch(name):
            return self._imported(name, where)
        raise SoftstartError(
            f"unknown {self.kind} '{name}'",
            where=where,
            fix=did_you_mean(name, self._entries) or f"Use one of {', '.join(self._entries)}.",
        )

    def check(self, name: str) -> str:
        """The name, if there is such an entry: a validator for configurations (pydantic's AfterValidator).

        Raises:
            ValueError: there is none.
        """
        try:
            self.find(name)
        except SoftstartError as problem:
            raise ValueError(str(problem)) from problem
        return name

    def _imported(self, path: str, where: str | None) -> T:
        module, _, attribute = path.rpartition(".")
        try:
            imported = getattr(import_module(module), attribute)
        except Exception as problem:  # of the module itself, too
            raise SoftstartError(
                f"cannot import the {self.kind} '{path}' ({problem})",
                where=where,
                fix="Install its package, or put its folder on PYTHONPATH.",
            ) from problem
        if self._accepts is None or not self._accepts(imported):
            article = "an" if self.kind[0] in "aeiou" else "a"
            raise SoftstartError(
                f"'{path}' is not {article} {self.kind}", where=where, fix="Name the object itself."
            )
        return cast(T, imported)
