"""Conversations as records of the ledger, as rows of tokens, and as batches of supervised tokens.

Legend: T tokens of all texts of a batch, P of them supervised.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from reglaj.core.console import SILENT, Console
from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.formats import num_characters, read_conversation
from reglaj.data.rendering import Renderer
from reglaj.data.roles import Layout
from reglaj.data.shaping import Shaped, Shaper
from reglaj.tasks.base import Encoded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.objectives.next_token import SupervisedBatch
    from reglaj.training.learner import Learner

TooLong = Literal["drop", "truncate_prompt", "split_turns"]
SAMPLE_ROWS = 8


@dataclass
class _Counts:
    """What became of the records that can be learnt from, before duplicates are set aside."""

    records: int = 0
    examples: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    answers: int = 0
    untrained_answers: int = 0
    records_with_untrained_answers: int = 0
    cut_prompts: int = 0
    split_records: int = 0
    dropped_system_prompts: int = 0
    stripped_end_tokens: int = 0


@dataclass
class ConversationShaper(Shaper):
    """A record is a conversation that can be rendered, has something to learn, and fits."""

    renderer: Renderer
    max_tokens: int
    too_long: TooLong
    on: str
    counts: _Counts = field(default_factory=_Counts)
    has_tools: bool = False
    has_system: bool = False
    unread: Counter[str] = field(default_factory=Counter)

    def identity(self) -> Mapping[str, Any]:
        return {"renderer": self.renderer.identity(), "max_tokens": self.max_tokens, "too_long": self.too_long}

    def shape(self, layout: Layout, cells: Mapping[str, str | None]) -> Shaped:
        conversation = read_conversation(layout, cells, self.unread)
        self.has_tools = self.has_tools or bool(conversation.tools)
        self.has_system = self.has_system or conversation.messages[0]["role"] == "system"
        fit = self.renderer.fit(conversation, self.max_tokens, self.too_long)
        counts = self.counts
        untrained = sum(one.untrained_answers for one in fit.examples)
        counts.records += 1
        counts.examples += len(fit.examples)
        counts.cut_prompts += fit.prompt_was_cut
        counts.split_records += len(fit.examples) > 1
        counts.untrained_answers += untrained
        counts.records_with_untrained_answers += untrained > 0
        for one in fit.examples:
            counts.tokens += len(one.ids)
            counts.supervised_tokens += sum(one.mask)
            counts.answers += one.answers
        counts.dropped_system_prompts += any(one.system_was_dropped for one in fit.examples)
        counts.stripped_end_tokens += any(one.stripped_end_tokens for one in fit.examples)
        return Shaped(
            cells=(conversation.to_json(),),
            group=conversation.questions,
            examples=len(fit.examples),
            characters=num_characters(conversation),
        )

    def remarks(self) -> tuple[dict[str, Any], list[str]]:
        """Counts of all readable records, duplicates included; and sentences about what is out of the ordinary."""
        c, facts = self.counts, self.renderer.facts
        # What a template does with system prompts and tools matters only to data that have some.
        facts = facts if self.has_tools else replace(facts, tools="native")
        notes = (facts if self.has_system else replace(facts, system="native")).sentences()
        if self.renderer.is_default:
            notes.append("the model has no chat template: a plain one, without new tokens, is used and saved with it")
        if c.untrained_answers:
            some = f"{c.untrained_answers:,} answers in {c.records_with_untrained_answers:,} conversations"
            notes.append(f"{some} are not learnt: {self._why_untrained()}")
        if c.cut_prompts:
            notes.append(f"{c.cut_prompts:,} prompts were shortened at their beginning to fit {self.max_tokens} tokens")
        if c.split_records:
            notes.append(f"{c.split_records:,} conversations were split between turns to fit {self.max_tokens} tokens")
        if c.dropped_system_prompts:
            notes.append(f"{c.dropped_system_prompts:,} system prompts are lost: the chat template leaves them out")
        if c.stripped_end_tokens:
            notes.append(f"{c.stripped_end_tokens:,} answers had an end token of their own, which was taken off")
        notes += [
            f"{count:,} conversations say `{key}`, which is not read" for key, count in sorted(self.unread.items())
        ]
        figures = dict(vars(c)) | {"max_tokens": self.max_tokens, "learnt": self.on}
        return figures, notes

    def _why_untrained(self) -> str:
        if self.on == "last_answer":
            return "train.on is last_answer"
        if self.counts.cut_prompts and self.renderer.facts.keeps_prefix:
            return "they were cut away with the beginning of their conversations"
        return "the chat template writes them differently once more turns follow"


def encode_conversations(
    renderer: Renderer, conversations: Sequence[Conversation], places: Sequence[str], max_tokens: int, too_long: TooLong
) -> Encoded:
    """Rows of tokens with, in `targets`, whether each token is supervised, and the conversation each row is of."""
    from reglaj.models.encoding import TokenRows
    from reglaj.models.token_cache import kept_arrays

    kept = kept_arrays(
        lambda: {
            "kind": "chat",
            "renderer": renderer.identity(),
            "max_tokens": max_tokens,
            "too_long": too_long,
        },
        [conversation.to_json() for conversation in conversations],
        lambda: _render_all(renderer, conversations, max_tokens, too_long),
    )
    targets = Supervised(flags=kept["flags"], owners=kept["owners"])
    rows = TokenRows(kept["flat"], kept["starts"])
    return Encoded(places=[places[owner] for owner in targets.owners.tolist()], rows=rows, targets=targets, cut=0)


def _render_all(
    renderer: Renderer, conversations: Sequence[Conversation], max_tokens: int, too_long: TooLong
) -> dict[str, NDArray[Any]]:
    import numpy as np

    from reglaj.models.encoding import TokenRows

    ids: list[list[int]] = []
    mask: list[bool] = []
    owners: list[int] = []
    for number, conversation in enumerate(conversations):
        for example in renderer.fit(conversation, max_tokens, too_long).examples:
            ids.append(example.ids)
            mask += [False, *example.mask[1:]]  # nothing stands before a first token that could predict it
            owners.append(number)
    rows = TokenRows.of(ids)
    flags, numbers = np.array(mask, dtype=np.bool_), np.array(owners, dtype=np.int64)
    return {"flat": rows.flat, "starts": rows.starts, "flags": flags, "owners": numbers}


@dataclass(frozen=True)
class Supervised:
    """flags: (all tokens,) whether each is supervised. owners: (rows,) number of the conversation each row is of."""

    flags: NDArray[np.bool_]
    owners: NDArray[np.int64]


def supervision_of(encoded: Encoded) -> dict[str, Any]:
    """The contents of supervision.json: `rows`, `tokens`, `supervised_tokens`, the `sha256` over all ids, flags and
    where rows start (little-endian int32, one byte, and int64), and the first rows as `examples`."""
    rows, flags = encoded.rows, encoded.targets.flags
    digest = hashlib.sha256()
    for array, kind in ((rows.flat, "<i4"), (flags, "u1"), (rows.starts, "<i8")):
        digest.update(array.astype(kind).tobytes())
    shown = [
        {
            "place": encoded.places[row],
            "ids": rows[row].tolist(),
            "mask": flags[rows.starts[row] : rows.starts[row + 1]].astype(int).tolist(),
        }
        for row in range(min(SAMPLE_ROWS, len(rows)))
    ]
    return {
        "rows": len(rows),
        "tokens": len(rows.flat),
        "supervised_tokens": int(flags.sum()),
        "sha256": digest.hexdigest(),
        "examples": shown,
    }


def supervised_batch(encoded: Encoded, rows: Sequence[int], device: str) -> SupervisedBatch:
    """Some rows of what `encode_conversations` gave."""
    import numpy as np

    from reglaj.models.laying import on_device
    from reglaj.objectives.next_token import SupervisedBatch

    starts, flags = encoded.rows.starts, encoded.targets.flags
    flagged = [flags[starts[row] : starts[row + 1]] for row in rows]
    supervised = np.flatnonzero(np.concatenate(flagged))
    tokens = encoded.rows.batch(rows, device)
    places = on_device(supervised, device)
    return SupervisedBatch(
        tokens=tokens,
        predictors=places - 1,
        targets=tokens.input_ids.index_select(0, places),
        supervised=tuple(int(one.sum()) for one in flagged),
        places=tuple(encoded.places[row] for row in rows),
    )


def single_rows(batch: SupervisedBatch) -> list[SupervisedBatch]:
    """A batch as batches of one text each."""
    from reglaj.models.trunk import single_texts
    from reglaj.objectives.next_token import SupervisedBatch

    singles, start = [], 0
    parts = zip(
        single_texts(batch.tokens),
        batch.predictors.split(batch.supervised),
        batch.targets.split(batch.supervised),
        batch.places,
        strict=True,
    )
    for text, predictors, targets, place in parts:
        singles.append(
            SupervisedBatch(
                tokens=text,
                predictors=predictors - start,
                targets=targets,
                supervised=(len(targets),),
                places=(place,),
            )
        )
        start += len(text.input_ids)
    return singles


def row_losses(
    learner: Learner, encoded: Encoded, console: Console = SILENT, description: str = "evaluating"
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(N,) loss in nats summed over the supervised tokens of each conversation, and (N,) how many these are."""
    import numpy as np

    from reglaj.training.guards import refuse_non_finite_scores

    owners = encoded.targets.owners
    count = int(owners.max()) + 1 if len(owners) else 0
    losses, tokens = np.zeros(count), np.zeros(count, dtype=np.int64)

    def work(group: list[int]) -> None:
        batch = supervised_batch(encoded, group, learner.engine.device)
        each = learner.token_losses(batch.tokens, batch.predictors, batch.targets).double().cpu().numpy()
        sizes = np.array(batch.supervised)
        bounds = np.concatenate(([0], np.cumsum(sizes)))
        for row, start, end in zip(group, bounds[:-1], bounds[1:], strict=True):
            losses[owners[row]] += each[start:end].sum()
            tokens[owners[row]] += end - start

    with learner.evaluating(), console.progress(description, len(encoded), "rows") as advance:
        learner.each_group(encoded.rows.lengths, work, advance)
    losses = learner.ranks.sum_array(losses)
    refuse_non_finite_scores(losses, "the losses")
    return losses, learner.ranks.sum_array(tokens)


def try_encode(
    renderer: Renderer, conversations: Sequence[Conversation], places: Sequence[str], max_tokens: int
) -> tuple[Encoded, list[int]]:
    """The conversations that fit as they are, and their numbers: what stands in front may have made others too long."""
    kept = []
    for number, conversation in enumerate(conversations):
        try:
            renderer.fit(conversation, max_tokens, "drop")
        except BrokenRecord:
            continue
        kept.append(number)
    encoded = encode_conversations(
        renderer, [conversations[i] for i in kept], [places[i] for i in kept], max_tokens, "drop"
    )
    return encoded, kept
