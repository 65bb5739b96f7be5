"""Your own tasks: learn a start from some tables, tune a prompt on another from it, predict new rows."""

from softstart.prompt.formats import prompts_in
from softstart.yourtasks.adapt import (
    LEARNED,
    PT,
    QUICK,
    Tuned,
    best_start,
    compare_starts,
    verdict,
)
from softstart.yourtasks.learn import learn_start, outer_loop
from softstart.yourtasks.lengths import fit_inputs, input_limit
from softstart.yourtasks.levels import Levels, levels
from softstart.yourtasks.lm_eval import write_lm_eval
from softstart.yourtasks.many import ManyPrompts, evaluate_many
from softstart.yourtasks.predict import Predictor, Scored, evaluate_rows
from softstart.yourtasks.starts import is_named, named_start, plain_start

__all__ = [
    "LEARNED",
    "PT",
    "QUICK",
    "Levels",
    "ManyPrompts",
    "Predictor",
    "Scored",
    "Tuned",
    "best_start",
    "compare_starts",
    "evaluate_many",
    "evaluate_rows",
    "fit_inputs",
    "input_limit",
    "is_named",
    "learn_start",
    "levels",
    "named_start",
    "outer_loop",
    "plain_start",
    "prompts_in",
    "verdict",
    "write_lm_eval",
]
