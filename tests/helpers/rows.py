"""A study with two sources and two targets as plain data, and rows of its database."""

SOURCE, TARGET = ["s1", "s2"], ["t1", "t2"]
STUDY = {
    "name": "unit",
    "setting": {"name": "x", "source": SOURCE, "target": TARGET},
    "samples": [13, 21],
    "learning_rates": [0.5, 0.2],
    "methods": {"pt": {}, "ft": {}, "maml": {"inner_steps": 3}, "long": {"algorithm": "maml", "steps": 9}},
}


def run_row(key, **changes):
    row = {"key": key, "method": "pt", "task": "t", "sample": 13, "lr": 0.5, "seed": 1, "start": None,
           "dev": 0.5, "best_step": 1, "steps": 2, "status": "done", "seconds": 1.0, "prompt": None,
           "curve": [[0, 0.1, None]], "environment": {}}  # fmt: skip
    return {**row, **changes}
