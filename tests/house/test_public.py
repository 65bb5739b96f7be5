"""What `import softstart` offers, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import softstart


def test_every_public_name_resolves():
    assert set(softstart._HOME) | {"__version__"} == set(softstart.__all__)
    for name in softstart.__all__:
        assert getattr(softstart, name) is not None


def test_the_gym_and_the_analysis_load_without_torch():
    code = (
        "import sys, softstart, softstart.gym, softstart.gym.mini, softstart.analysis.arg, "
        "softstart.report.html, softstart.cli.app; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
