"""One pass through an encoder and a decoder, with what is learnt before the texts of either.

Legend: B texts, T tokens of all targets, V vocabulary, P virtual tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reglaj.models.laying import to_packed
from reglaj.models.packing import TokenBatch
from reglaj.models.prefixed import Prefix
from reglaj.models.virtual import VirtualTokens


def seq2seq_logits(model: Any, source: TokenBatch, target: TokenBatch, virtual: VirtualTokens | None = None) -> Tensor:
    """Scores of what follows each token of the targets: (T, V), targets one after the other.

    source: what the encoder reads. target: what the decoder reads, its first token included. virtual: embeddings stand
    before each source, keys and values before each target. Both sides are padded.
    """
    given: dict[str, Any] = {"decoder_input_ids": _padded(target), "use_cache": False}
    embeddings = virtual.embeddings if virtual else None
    seen, ids = source.grid.mask, _padded(source)
    if embeddings is None:
        given["input_ids"] = ids
    else:
        own = model.get_input_embeddings()(ids)
        given["inputs_embeds"] = torch.cat((embeddings.to(own.dtype).expand(len(ids), -1, -1), own), dim=1)
        seen = torch.cat((seen.new_ones(len(seen), len(embeddings)), seen), dim=1)
    if virtual and virtual.keys_values:
        given["prefix"] = Prefix(virtual).with_biases(target.grid.mask.shape[1])
    logits = model(attention_mask=seen.long(), decoder_attention_mask=target.grid.mask.long(), **given).logits
    return to_packed(logits.reshape(-1, logits.shape[-1]), target.grid)


def _padded(batch: TokenBatch) -> Tensor:
    """(B, L) token ids, 0 where there is padding."""
    ids = batch.input_ids.index_select(0, batch.grid.to_grid).view(batch.grid.mask.shape)
    return ids.masked_fill(~batch.grid.mask, 0)
