"""Options that more than one command takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …; by default the GPU if there is one.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="Compute in this process alone, with this many CPU threads."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="Worker processes of one thread each; by default one per core; 1, and on a GPU: this process.",
    ),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override a key: --set meta.steps=100.")]
StudyFile = Annotated[Path, typer.Argument(help="A study file (YAML).")]
StudyFolder = Annotated[Path, typer.Argument(help="A study folder.")]
Interval = Annotated[
    str | None,
    typer.Option(help="How intervals are made: <intervals>, or the import path of a function."),
]
TextCache = Annotated[
    int | None,
    typer.Option(
        "--text-cache",
        min=0,
        help="MiB for texts that a causal model has read; by default a quarter of the free memory.",
    ),
]
StudyOut = Annotated[Path | None, typer.Option("--out", help="Study folder; by default runs/NAME.")]

Prompt = Annotated[
    str, typer.Argument(help="A tuned prompt (file, folder or hub id), or a folder of prompts.")
]
By = Annotated[
    str | None,
    typer.Option("--by", help="The column that names the prompt of each row, of a folder of prompts."),
]
_BACKBONE = typer.Option(
    "--backbone", help="softstart/tiny, a name of softstart backbone list, a folder, a GGUF file or a hub id."
)
BackboneName = Annotated[str, _BACKBONE]
StudyBackbone = Annotated[str | None, _BACKBONE]
PromptBackbone = Annotated[
    str | None, typer.Option("--backbone", help="By default the one the prompt was made on.")
]
PlacementName = Annotated[
    str | None,
    typer.Option("--placement", help="Where the prompt goes if its file does not say: <placements>."),
]
KindName = Annotated[
    str | None,
    typer.Option("--kind", help="What prompts hold, one of: <kinds>; by default as --init, else embeddings."),
]
PromptRevision = Annotated[str | None, typer.Option("--revision", help="Hub revision of the prompt.")]
MaxInput = Annotated[
    int | None,
    typer.Option(
        min=1, help="Longer inputs are cut, and counted in a warning; 512, or what the prompt says."
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse inputs that are too long.")]

TestRows = Annotated[
    str | None, typer.Option("--test", help="Labeled rows to test on; else a fifth of --train.")
]
DevRows = Annotated[
    str | None, typer.Option("--dev", help="Labeled rows to select by; else a quarter of --train.")
]


def _broken(template: str | None) -> str | None:
    r"""A template as it was typed, with line breaks for ``\n``: a shell's quotes have no other way."""
    return template and template.replace("\\n", "\n")


Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        callback=_broken,
        help="The input, from a row's columns: '{title}: {body}'; a \\n is a line break.",
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", callback=_broken, help="The output, from a row's columns.")
]
Label = Annotated[str | None, typer.Option("--label", help="The column of labels.")]
LabelWords = Annotated[
    list[str] | None,
    typer.Option("--labels", help="All label words, or VALUE=WORD for each: --labels 0=hate 1=fine."),
]
AlgorithmName = Annotated[str, typer.Option(help="One of: <algorithms>, or an import path; see --set.")]
GymReading = Annotated[
    Literal["strict", "published"],
    typer.Option(help="How files in CrossFit's format are read; published: as by the published code."),
]
MultiLabel = Annotated[
    list[str] | None,
    typer.Option("--multi-label", help="Several labels a row: a column of lists, or columns of 0 and 1."),
]
NoHeader = Annotated[
    bool, typer.Option("--no-header", help="TSV without column names: each line is input, TAB, answers.")
]
ScoringName = Annotated[
    str | None,
    typer.Option(
        "--scoring", help="One of: <scorings>; by default rank: the likeliest label, where there are labels."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the plain start, the splits and the data order.")]
Chat = Annotated[
    bool, typer.Option("--chat", help="Inputs in the chat format of an instruct model's tokenizer.")
]
LrUnitOption = Annotated[
    str | None,
    typer.Option("--lr-unit", help="Of --lr: absolute, or embedding: in units of the embedding's entries."),
]

Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
GymOut = Annotated[Path, typer.Option("--out", help="The folder of tasks to write to.")]
Catalog = Annotated[Path | None, typer.Option("--catalog", help="A catalog file of your own (YAML).")]
Seeds = Annotated[
    list[int] | None, typer.Option("--seeds", help="Names of the samples; by default 13 21 42 87 100.")
]
Shots = Annotated[
    int | None, typer.Option("--shots", min=1, help="k: rows per label, or in all for text-to-text.")
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Steps of tuning (300 on the embedded model, else 100).")
]
Splits = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Splits of --train into train and dev, all tuned (3 on the embedded model, else 1).",
    ),
]
InContextRows = Annotated[
    int | None,
    typer.Option(
        "--in-context", min=1, help="Also score in-context learning, with this many train rows before a text."
    ),
]
Replace = Annotated[bool, typer.Option("--force", help="Replace a finished prompt of other work at --out.")]
Force = Annotated[bool, typer.Option("--force", help="Build again, also over files from elsewhere.")]
AsPublished = Annotated[
    bool,
    typer.Option(
        "--as-published", help="Read the files of a folder as the published code did, broken rows included."
    ),
]
AllowShort = Annotated[
    bool, typer.Option("--allow-short", help="Accept classes with fewer than 2k rows in tasks of your own.")
]
