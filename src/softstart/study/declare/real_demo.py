"""The demo on a real language model: its study, with the source and target tasks that a folder holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files

from softstart.errors import SoftstartError
from softstart.gym.sources import open_gym
from softstart.study.declare.spec import Study
from softstart.study.declare.study_file import parse_study

SOURCE = (
    "tweet_eval-emotion", "sms_spam", "glue-cola", "tweet_eval-hate", "emotion", "superglue-cb", "emo",
    "glue-mnli",
)  # fmt: skip
TARGET = ("glue-sst2", "hate_speech_offensive", "circa", "rotten_tomatoes")
MOST = {"source": 6, "target": 2}
"""How many tasks of each are used, in this order: minutes on 2 cores."""


def real_demo(gym: str | None, backbone: str, seed: int) -> Study:
    """The study of ``softstart demo --backbone smollm2 --gym DIR``.

    Args:
        gym: a folder of few-shot tasks in CrossFit's format.
        backbone: its name.
        seed: of meta-training and of the data order.

    Raises:
        SoftstartError: no folder, or too few of the demo's tasks in it.
    """
    build = f"softstart gym build {' '.join((*SOURCE[:3], *TARGET[:1]))} --out gym"
    if gym is None:
        raise SoftstartError(
            f"the demo on '{backbone}' takes real few-shot tasks: --gym DIR, in CrossFit's format",
            fix=f"Get some (needs a network): {build}",
        )
    there = set(open_gym(gym).tasks())
    source, target = _first(SOURCE, there, "source"), _first(TARGET, there, "target")
    if len(source) < 2 or not target:
        raise SoftstartError(
            f"too few of the demo's tasks: {len(source)} of the source tasks {', '.join(SOURCE)} (2 needed)"
            f" and {len(target)} of the target tasks {', '.join(TARGET)} (1 needed)",
            where=gym,
            fix=f"Get some (needs a network): {build}",
        )
    text = files("softstart.study").joinpath("demo-real.yaml").read_text(encoding="utf-8")
    setting = {"name": "real", "source": source, "target": target}
    changes = {"meta_seeds": [seed], "gym": gym, "backbone": backbone, "setting": setting}
    return parse_study(
        text, "demo-real.yaml", [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    )


def _first(names: Sequence[str], there: set[str], kind: str) -> list[str]:
    return [name for name in names if name in there][: MOST[kind]]
