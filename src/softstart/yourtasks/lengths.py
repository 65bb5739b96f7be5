"""What a model can read and write of your rows: how long texts may be, which labels it knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.gym.task import Example, Task
from softstart.training.encoding import TextFormat, check_labels, encode_texts, misread_labels

_NAMED = 5
"""How many tasks a note names."""


def input_limit(backbone: Backbone, length: int, wanted: int, outputs: int) -> int:
    """Tokens of text that fit the model's window with a prompt (and, in causal models, the output).

    Args:
        backbone: the frozen model.
        length: rows of the prompt.
        wanted: the limit where the window is larger.
        outputs: tokens of an output.

    Raises:
        SoftstartError: none do.
    """
    if backbone.window is None:
        return wanted
    spare = outputs if backbone.peft_task == "CAUSAL_LM" else 0
    left = min(wanted, backbone.window - length - spare)
    if left < 1:
        raise SoftstartError(
            f"a prompt of {length} vectors leaves no room for text: '{backbone.name}' reads at most "
            f"{backbone.window} tokens",
            fix="Use a shorter prompt.",
        )
    return left


def label_notes(backbone: Backbone, task: Task, chat: bool = False) -> Iterator[str]:
    """What is odd about a task's labels to a model, one sentence each.

    Args:
        backbone: the frozen model.
        task: the task.
        chat: whether outputs begin the assistant's turn.

    Raises:
        SoftstartError: two labels have the same tokens.
    """
    ids = encode_texts(backbone, task.labels, TextFormat().max_output_tokens, outputs=True, chat=chat)
    check_labels(task.labels, ids, f"task '{task.name}'")
    for label, back in misread_labels(backbone, task.labels, ids).items():
        yield (
            f"the model reads the label {label!r} as {back!r}: other label words fit it better "
            "(--labels VALUE=WORD …)"
        )


def cut_note(backbone: Backbone, length: int, tasks: Sequence[Task], text: TextFormat) -> str:
    """Which of several tasks have inputs that are cut, and how many of each; empty without any.

    Raises:
        SoftstartError: as ``fit_inputs``.
    """
    fitted = {task.name: fit_inputs(backbone, length, task, text) for task in tasks}
    named = [f"{name} ({cut})" for name, (_, cut) in fitted.items() if cut]
    if not named:
        return ""
    limit = max(to.max_input_tokens for to, _ in fitted.values())
    more = f" and {len(named) - _NAMED} more tasks" if len(named) > _NAMED else ""
    return f"inputs longer than {limit} tokens are cut at their end: {', '.join(named[:_NAMED])}{more}"


def fit_inputs(backbone: Backbone, length: int, task: Task, text: TextFormat) -> tuple[TextFormat, int]:
    """A text format whose inputs fit the model's window, and how many inputs of a task it cuts.

    Those of the test set count, and those of the sample in which it cuts most.

    Args:
        backbone: the frozen model.
        length: rows of the prompt.
        task: the task.
        text: the format that is wanted.

    Raises:
        SoftstartError: the prompt leaves no room for text.
    """
    limit = input_limit(backbone, length, text.max_input_tokens, text.max_output_tokens)

    def count_cut(examples: Sequence[Example]) -> int:
        texts = [text.fill(task.name, example.input) for example in examples]
        return sum(len(ids) > limit for ids in encode_texts(backbone, texts, None, chat=text.chat))

    most = max((count_cut((*s.train, *s.dev)) for s in task.samples.values()), default=0)
    return replace(text, max_input_tokens=limit), most + count_cut(task.test)
