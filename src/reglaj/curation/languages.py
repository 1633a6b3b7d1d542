"""Which language a text is in, or that it is too short to say.

The classifier is py3langid's (Lui and Baldwin 2012, "langid.py"), kept to languages with a two-letter code: closely
related varieties beside them take probability from short texts and are seldom right. Below a probability of `SURE` no
language is named: of 10,003 short English questions 2% are then left open and none is given another language, of 1,330
Romanian sentences 0.2% and one (a list of Polish names).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from reglaj.core.console import SILENT, Console
from reglaj.data.languages import LANGUAGES, UNSURE

SURE = 0.6
_CHARACTERS = 600
"""What is read of a text: more makes it no surer, and costs."""
_NO_WORDS = re.compile(r"https?://\S+|www\.\S+|<[^<>]{1,200}>|&#?\w{1,8};|[@#]\w+")


def detect_languages(texts: Sequence[str], console: Console = SILENT) -> list[str]:
    """The two-letter code of each text, or `UNSURE`. Addresses, tags and mentions do not count as words."""
    identifier = _identifier()
    found = []
    with console.progress("telling languages apart", len(texts)) as advance:
        for text in texts:
            code, probability = identifier.classify(_NO_WORDS.sub(" ", text[:_CHARACTERS]))
            found.append(str(code) if probability >= SURE and code in LANGUAGES else UNSURE)
            advance(1)
    return found


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # "zxx" is what has no language, such as numbers.
    identifier.set_languages([code for code in identifier.labels if code in LANGUAGES or code == "zxx"])
    return identifier
