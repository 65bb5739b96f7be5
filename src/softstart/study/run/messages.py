"""What a study and a process that joined it say to each other: plain JSON, which cannot run anything.

Both sides plan the study for themselves, from the file in its folder. So a piece of work names the nodes of
the plan by their keys, and no message holds or names code.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from softstart.study.plan.plan import Plan
from softstart.study.run.executors import Failure
from softstart.study.run.serving import Broken
from softstart.study.run.work import Adaptation, Array, Done, MetaTraining, Testing, UnpackedRun, WorkItem
from softstart.training.evaluation import Assessment

ARRAYS = ("float32", "float64", "int32", "int64")
"""Types of the entries of arrays."""


@dataclass
class PlainConnection:
    """A connection that carries JSON, with the interface of the one that it uses.

    Args:
        raw: the connection.
        write: from what is sent to plain data.
        read: from plain data to what is received.
    """

    raw: Connection
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]

    def send(self, message: object) -> None:
        """Send it."""
        self.raw.send_bytes(json.dumps(self.write(message)).encode())

    def recv(self) -> Any:
        """What comes next.

        Raises:
            EOFError: the other side is gone.
            ConnectionError: it does not speak this language.
        """
        data = self.raw.recv_bytes()
        try:
            return self.read(json.loads(data))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
            raise ConnectionError("a message that Softstart did not write") from problem

    def close(self) -> None:
        """End it."""
        self.raw.close()


def to_worker(raw: Connection) -> PlainConnection:
    """The side of the process that gives out work."""
    return PlainConnection(raw, plain_item, outcome_of)


def to_study(raw: Connection, plan: Plan) -> PlainConnection:
    """The side of the process that joined, with its own plan of the study."""
    return PlainConnection(raw, plain_outcome, lambda data: item_of(data, plan))


def plain_item(item: WorkItem) -> dict[str, Any]:
    """A piece of work as plain data."""
    match item:
        case MetaTraining(node):
            return {"do": "meta-train", "key": node.key}
        case UnpackedRun(run):
            return {"do": "run alone", "key": run.key}
        case Adaptation(key, runs, starts, places):
            named = {of: _plain_arrays(arrays) for of, arrays in starts.items()}
            keys = [run.key for run in runs]
            return {"do": "adapt", "key": key, "runs": keys, "starts": named, "places": places}
        case Testing(variant, task, of, prompts):
            return {
                "do": "test",
                "variant": variant,
                "task": task,
                "of": [list(each) for each in of],
                "prompts": _plain_array(prompts),
            }
    raise TypeError(f"no message for a {type(item).__name__}")


def item_of(data: Mapping[str, Any], plan: Plan) -> WorkItem:
    """The piece of work that ``plain_item`` described."""
    runs = {run.key: run for run in plan.runs}
    match data["do"]:
        case "meta-train":
            return MetaTraining({node.key: node for node in plan.metas}[data["key"]])
        case "run alone":
            return UnpackedRun(runs[data["key"]])
        case "adapt":
            starts = {of: _arrays_of(arrays) for of, arrays in data["starts"].items()}
            return Adaptation(data["key"], [runs[key] for key in data["runs"]], starts, data["places"])
        case "test":
            of = [(run, step) for run, step in data["of"]]
            return Testing(data["variant"], data["task"], of, _array_of(data["prompts"]))
    raise ValueError(f"no such work: {data['do']}")


def plain_outcome(message: Any) -> dict[str, Any]:
    """What a worker sends, as plain data: how far it is, or the end of a piece of work."""
    if isinstance(message, Done):
        return {
            "metas": message.metas,
            "runs": message.runs,
            "tests": [[*of, test.score, test.companions] for of, test in message.tests.items()],
            "prompts": {key: _plain_arrays(arrays) for key, arrays in message.prompts.items()},
            "failed": message.failed,
        }
    if isinstance(message, (Failure, Broken)):
        return {field.name: getattr(message, field.name) for field in fields(message)}
    share, note = message
    return {"share": share, "note": note}


def outcome_of(data: Mapping[str, Any]) -> Done | Failure | Broken | tuple[float, str]:
    """What ``plain_outcome`` described."""
    if "share" in data:
        return float(data["share"]), str(data["note"])
    if "traceback" in data:
        return Broken(str(data["traceback"]))
    if "reason" in data:
        return Failure(data["kind"], str(data["reason"]))
    tests = {(run, step): Assessment(score, companions) for run, step, score, companions in data["tests"]}
    prompts = {key: _arrays_of(arrays) for key, arrays in data["prompts"].items()}
    return Done(list(data["metas"]), list(data["runs"]), tests, prompts, dict(data["failed"]))


def _plain_arrays(arrays: Mapping[str, Array]) -> dict[str, Any]:
    return {name: _plain_array(array) for name, array in arrays.items()}


def _plain_array(array: Array) -> dict[str, Any]:
    """An array with all its bits."""
    data = np.ascontiguousarray(array)
    if data.dtype.name not in ARRAYS:
        raise TypeError(f"no message for an array of {data.dtype.name}")
    text = b64encode(data.astype(data.dtype.newbyteorder("<")).tobytes()).decode()
    return {"type": data.dtype.name, "shape": list(data.shape), "data": text}


def _arrays_of(arrays: Mapping[str, Any]) -> dict[str, Array]:
    return {name: _array_of(array) for name, array in arrays.items()}


def _array_of(data: Mapping[str, Any]) -> Array:
    if data["type"] not in ARRAYS:
        raise ValueError(f"no such type of entries: {data['type']}")
    dtype = np.dtype(data["type"])
    flat = np.frombuffer(b64decode(data["data"], validate=True), dtype.newbyteorder("<"))
    return flat.astype(dtype).reshape(data["shape"])
