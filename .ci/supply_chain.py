"""What the project is made of: a hashed lock, its licenses, its known vulnerabilities, a bill of materials.

    python .ci/supply_chain.py lock         write constraints-ci.txt (needs uv and a package index)
    python .ci/supply_chain.py licenses     check the installed packages; offline
    python .ci/supply_chain.py audit        look every locked version up (needs pip-audit and a network)
    python .ci/supply_chain.py sbom FILE    write a CycloneDX 1.6 bill of materials from the lock; offline

``pip install --require-hashes -r constraints-ci.txt`` installs exactly what is locked: the versions of
constraints.txt, with everything they need in turn.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "constraints-ci.txt"
EXTRAS = ("test", "analysis", "figures")

PERMISSIVE = re.compile(
    r"apache|\bmit\b|bsd|\bisc\b|\bpsf\b|python software foundation|zlib|unlicense|cc0|\bbsl\b|hpnd|cnri"
    r"|mozilla|mpl|public domain",
    re.IGNORECASE,
)
"""Licenses under which anybody may use, change and pass on; MPL asks for changes to its own files alone."""
CUDA = ("nvidia-", "cuda-")
"""NVIDIA's libraries, under its own license: the GPU build of torch brings them, the CPU build does not."""
RESTRICTED = re.compile(r"\b(a|l)?gpl|general public license|proprietary|commercial", re.IGNORECASE)


@dataclass(frozen=True)
class Locked:
    """A package of the lock: exact version, where it is needed, the digests of its files."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def read_lock(text: str) -> list[Locked]:
    """The packages of a requirements file with hashes."""
    packages = []
    for entry in re.split(r"\n(?=\S)", text.replace("\\\n", " ")):
        entry = "\n".join(line for line in entry.splitlines() if not line.startswith("#")).strip()
        if not entry:
            continue
        hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
        wanted = Requirement(entry.split("--hash")[0].strip())
        (pin,) = wanted.specifier
        assert pin.operator == "==", entry
        packages.append(Locked(canonicalize_name(wanted.name), pin.version, str(wanted.marker or ""), hashes))
    return packages


def lock() -> None:
    """Write the lock."""
    extras = [part for extra in EXTRAS for part in ("--extra", extra)]
    subprocess.run(
        ["uv", "pip", "compile", "pyproject.toml", *extras, "--constraint", "constraints.txt",
         "--generate-hashes", "--universal", "--python-version", "3.11", "--no-annotate", "--no-header",
         "--no-build", "--quiet", "--output-file", str(LOCK)],
        cwd=ROOT, check=True,
    )  # fmt: skip


def installed(name: str = "softstart", extras: tuple[str, ...] = EXTRAS) -> dict[str, metadata.Distribution]:
    """What a package needs in turn, as far as it is installed here."""
    present: dict[str, metadata.Distribution] = {}
    waiting = [(name, extras)]
    while waiting:
        name, extras = waiting.pop()
        try:
            present[canonicalize_name(name)] = distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for text in distribution.requires or []:
            need = Requirement(text)
            holds = need.marker is None or any(need.marker.evaluate({"extra": e}) for e in ("", *extras))
            if holds and canonicalize_name(need.name) not in present:
                waiting.append((need.name, tuple(need.extras)))
    return present


def license_of(package: metadata.Distribution) -> str:
    """What a package says of its license: the expression, the classifiers or the first line of the text."""
    about: Any = package.metadata
    classes = [
        c.split("::")[-1].strip() for c in about.get_all("Classifier") or [] if c.startswith("License ::")
    ]
    text = (about.get("License") or "").strip().splitlines()
    return about.get("License-Expression") or ", ".join(classes) or (text[0] if text else "")


def unwelcome() -> Iterator[str]:
    """The installed packages whose license is unknown or asks for more than a notice."""
    for name, package in sorted(installed().items()):
        said = license_of(package)
        if not name.startswith(CUDA) and (not PERMISSIVE.search(said) or RESTRICTED.search(said)):
            yield f"{name} {package.version}: {said or 'no license'}"


def audit() -> int:
    """Look every locked version up in the public list of vulnerabilities."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(LOCK), "--require-hashes", "--disable-pip"]
    done = subprocess.run(
        [*command, "-f", "json", "--progress-spinner", "off"], capture_output=True, text=True
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"skipped: {(done.stderr.strip().splitlines() or ['pip-audit said nothing'])[-1]}")
        return 0
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        print("skipped: no list of vulnerabilities can be reached from here")
        return 0
    bad = [(p["name"], p["version"], v["id"]) for p in known for v in p["vulns"]]
    for name, version, which in bad:
        print(f"{name} {version}: {which}")
    print(f"{len(known)} of {len(packages)} packages looked up, {len(bad)} known vulnerabilities")
    return int(bool(bad))


def sbom(packages: list[Locked], version: str) -> dict[str, Any]:
    """A CycloneDX bill of materials; the same lock gives the same bytes."""
    purls = [f"pkg:pypi/{package.name}@{package.version}" for package in packages]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, ' '.join(purls))}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": "softstart",
                "name": "softstart",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": purl,
                "name": package.name,
                "version": package.version,
                "purl": purl,
                "properties": [
                    *([{"name": "softstart:marker", "value": package.marker}] if package.marker else []),
                    *({"name": "softstart:sha256", "value": value} for value in package.hashes),
                ],
            }
            for package, purl in zip(packages, purls, strict=True)
        ],
    }


def main(arguments: list[str]) -> int:
    """Do what is asked; the exit code."""
    match arguments:
        case ["lock"]:
            lock()
        case ["licenses"]:
            refused = list(unwelcome())
            print("\n".join(refused) or f"{len(installed())} packages, all under permissive licenses")
            return int(bool(refused))
        case ["audit"]:
            return audit()
        case ["sbom", file]:
            bill = sbom(read_lock(LOCK.read_text(encoding="utf-8")), metadata.version("softstart"))
            Path(file).write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
