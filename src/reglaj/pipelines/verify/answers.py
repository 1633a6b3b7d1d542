"""Promise 3: only the answer is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from reglaj.data.conversation import Conversation
from reglaj.pipelines.verify.reading_back import Reader, Row
from reglaj.pipelines.verify.subject import Subject, read_json, short
from reglaj.pipelines.verify.verdicts import Finding, concluded, counted, not_applicable
from reglaj.tasks.base import Encoded, Task

SUPERVISION = "supervision.json"
_COUNTS = ("rows", "tokens", "supervised_tokens")


def only_answers(subject: Subject) -> Finding:
    """The supervised tokens of every training example are its answers, now and when the run was trained."""
    if subject.task_type.supervision is Task.supervision:
        return not_applicable(f"the task {subject.recipe.task} learns a target of each text, and no token of it")
    if subject.data is None:
        return not_applicable(subject.no_data)
    task, tokenizer = subject.connected
    encoded = subject.encoded
    kept = read_json(subject.path / SUPERVISION)
    problems = subject.changed_files(3)
    problems += _other_than_kept(task.supervision(encoded) or {}, kept)
    problems += [f"{row.place}: no token is learnt" for row in _rows(encoded) if not any(row.mask)]
    if subject.recipe.train.on == "all":
        problems += [f"{row.place}: a token is not learnt" for row in _rows(encoded) if not all(row.mask[1:])]
        told = f"train.on is all: every token of {counted(len(encoded), 'example')} is learnt, but the first"
        return concluded(problems, "") if problems else not_applicable(told)
    renderer = getattr(task, "renderer")  # noqa: B009  (what supervises tokens has a renderer)
    reader = Reader(tokenizer, renderer, may_be_cut=subject.recipe.data.too_long != "drop")
    conversations = subject.train.column("conversation")
    problems += _read_back(reader, _rows(encoded), conversations, every=_learns_every(subject, reader))
    evidence = _evidence(encoded, reader, kept)
    samples = (row.with_kept(example) for row, example in zip(_rows(encoded), kept.get("examples", []), strict=False))
    told_then = _read_back(reader, samples, conversations, every=False, are_all=False)
    return concluded(problems + [f"{SUPERVISION}: {problem}" for problem in told_then], evidence)


def _read_back(
    reader: Reader, rows: Iterator[Row], conversations: Sequence[str], *, every: bool, are_all: bool = True
) -> Iterator[str]:
    """What is wrong with the rows of each conversation. are_all: they are all of the rows that there are."""
    owners = set()
    for owner, own in groupby(rows, key=lambda row: row.owner):
        owners.add(owner)
        conversation = Conversation.from_json(conversations[owner])
        yield from reader.problems(conversation, list(own), every=every, is_whole=are_all)
    if are_all and len(owners) < len(conversations):
        yield f"{len(conversations) - len(owners):,} conversations give no example"


def _other_than_kept(found: Mapping[str, Any], kept: Mapping[str, Any]) -> Iterator[str]:
    """Where what the data gives now is not what the run says it was trained on."""
    for name in _COUNTS:
        if found[name] != kept.get(name):
            yield f"the data gives {found[name]:,} {name.replace('_', ' ')}, and {SUPERVISION} says {kept.get(name)}"
    if found["sha256"] != kept.get("sha256"):
        yield (
            f"tokens and masks have the sha256 {short(found['sha256'])}, and those that were trained on had "
            f"{short(kept.get('sha256'))} ({SUPERVISION})"
        )
    if found["examples"] != kept.get("examples"):
        yield f"the first examples are not those of {SUPERVISION}"


def _rows(encoded: Encoded) -> Iterator[Row]:
    starts, supervised = encoded.rows.starts, encoded.targets
    for number, place in enumerate(encoded.places):
        flags = supervised.flags[starts[number] : starts[number + 1]]
        yield Row(place, int(supervised.owners[number]), encoded.rows[number].tolist(), flags.tolist())


def _learns_every(subject: Subject, reader: Reader) -> bool:
    """Whether each answer of a conversation has to be learnt: the recipe wants it, and nothing stands against it."""
    wanted = subject.recipe.train.on == "answers" and subject.recipe.data.too_long != "truncate_prompt"
    return wanted and reader.keeps_prefix


def _evidence(encoded: Encoded, reader: Reader, kept: Mapping[str, Any]) -> str:
    learnt = f"{int(encoded.targets.flags.sum()):,} of {len(encoded.rows.flat):,} tokens are learnt"
    answers = f"{counted(reader.answers, 'answer')} in {counted(len(encoded), 'example')}"
    told = "read back from the tokens, each as in the data with its end token"
    return f"{answers} {told} ({reader.remarks()}); {learnt}, as in training (sha256 {short(kept.get('sha256'))})"
