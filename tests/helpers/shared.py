"""Where the facts and data lie that tests may use but never need: SOFTSTART_SHARED, or ../shared."""

import os
from pathlib import Path

_candidate = Path(os.environ.get("SOFTSTART_SHARED") or Path(__file__).resolve().parents[3] / "shared")
SHARED: Path | None = _candidate if _candidate.is_dir() else None
