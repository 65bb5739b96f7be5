"""Coverage-guided fuzzing, on demand: ``python tests/robustness/fuzz_atheris.py prompt -runs=100000``.

Needs ``pip install atheris`` (Linux, CPython 3.11 to 3.13). The readers and whole files to begin from are
those of the Hypothesis tests; everything libFuzzer takes goes after the reader's name. Ends with a traceback
at the first input that is neither read nor refused with a SoftstartError.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["softstart", "yaml"]):
    from helpers import fuzz_targets


def main() -> None:
    name, *options = sys.argv[1:]
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for folder in ("seeds", "room", "corpus"):
        (root / folder).mkdir()
    readers = {
        reader.__name__: (reader, files) for reader, files in fuzz_targets.seeds(root / "seeds").items()
    }
    reader, files = readers[name]
    for i, data in enumerate(files):
        (root / "corpus" / str(i)).write_bytes(data)
    atheris.Setup(
        [sys.argv[0], *options, str(root / "corpus")],
        lambda data: fuzz_targets.quietly(reader, data, root / "room"),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
