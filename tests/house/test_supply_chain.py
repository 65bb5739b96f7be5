"""What the project is made of: a lock of the constraints, hashed and whole; licenses; bill of materials."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import pytest
from packaging.markers import Marker
from packaging.utils import canonicalize_name

from helpers.paths import ROOT


@pytest.fixture(scope="module")
def chain():
    spec = importlib.util.spec_from_file_location("supply_chain", ROOT / ".ci" / "supply_chain.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["supply_chain"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def locked(chain):
    return chain.read_lock((ROOT / "constraints-ci.txt").read_text())


def test_the_lock_holds_the_versions_of_the_constraints(locked):
    text = (ROOT / "constraints.txt").read_text()
    wanted = {canonicalize_name(n): v for n, v in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}
    versions = {package.name: package.version for package in locked}
    # What only builds the package is no part of what is installed with it.
    assert {name: versions.get(name) for name in wanted if name not in ("hatchling", "accelerate")} == {
        name: version for name, version in wanted.items() if name not in ("hatchling", "accelerate")
    }


def test_every_package_of_the_lock_has_its_hashes(locked):
    assert len(locked) > 80
    assert [package.name for package in locked if not package.hashes] == []


def test_nothing_that_is_installed_is_missing_in_the_lock(chain, locked):
    here = {p.name for p in locked if not p.marker or Marker(p.marker).evaluate()}
    needed = set(chain.installed()) - {"softstart", "setuptools"}
    assert needed <= here


def test_licenses_are_permissive(chain):
    assert list(chain.unwelcome()) == []


def test_the_bill_of_materials_lists_the_lock(chain, locked):
    bill = json.loads(json.dumps(chain.sbom(locked, "1.0")))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert {(c["name"], c["version"]) for c in bill["components"]} == {(p.name, p.version) for p in locked}
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(references) == len(set(references))
    assert bill == chain.sbom(locked, "1.0")
