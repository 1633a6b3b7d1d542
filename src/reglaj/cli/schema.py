"""`reglaj schema`: the JSON Schema of a recipe."""

from __future__ import annotations

import json

from reglaj.cli.page import Page
from reglaj.cli.verb import Answer


def schema() -> Answer:
    """Print the JSON Schema of a recipe, for editors."""
    from reglaj.pipelines.describe import recipe_schema

    document = recipe_schema()

    def read(page: Page) -> None:
        page.line(json.dumps(document, ensure_ascii=False, indent=1))

    return Answer(document, read)
