"""Unpacking: whatever a name says, nothing lands outside the folder, and only what was asked for lands in it."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zipfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from reglaj.models.wheels import unpack

PART = st.one_of(st.sampled_from(["..", ".", "", "~", "a", "b.txt", "C:", "\\", "a\\..", "con"]), st.text(max_size=5))


@given(st.lists(PART, min_size=1, max_size=5))
def test_no_target_leads_out_of_the_folder(parts: list[str]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("member", "content")
        archive.writestr("../stranger", "never asked for")
    with tempfile.TemporaryDirectory() as root, zipfile.ZipFile(buffer) as archive:
        folder = Path(root) / "outer" / "inner"
        folder.mkdir(parents=True)
        # Refused by us, or a name that the file system has no room for.
        with contextlib.suppress(ValueError, OSError):
            unpack(archive, {"member": "/".join(parts)}, folder)
        files = [file for file in Path(root).rglob("*") if file.is_file()]
        assert len(files) <= 1
        assert all(file.resolve().is_relative_to(folder.resolve()) for file in files)
