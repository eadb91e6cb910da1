"""What the dataset has already: contents by their checksums, and the names that are taken."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from cbtools.run.folders import Content
from cbtools.run.manifest import FOLDER, read_manifests

_SHORT: Final = 8
"""So many digits of its checksum tell a segment from another of its name."""


class Known:
    """The segments that were run, by their manifests."""

    def __init__(self, root: Path) -> None:
        self._contents: dict[str, tuple[str, dict[str, Any]]] = {}
        self.names: set[str] = set()
        for manifest in read_manifests(root):
            self.add(manifest.sha256, manifest.segment, manifest.parameters)

    def add(self, sha256: str, segment: str, parameters: dict[str, Any]) -> None:
        """Note a segment that was run."""
        self._contents[sha256] = segment, parameters
        self.names.add(segment)

    def segment_of(self, content: Content) -> str | None:
        """Give the segment with this content."""
        known = self._contents.get(content.sha256)
        return known[0] if known else None

    def reason(self, content: Content, parameters: dict[str, Any]) -> str:
        """Say why a segment with this content is not run."""
        segment, others = self._contents[content.sha256]
        text = f"its content is in the dataset, as {segment}"
        if others != parameters:
            text += f", run with other options: give another output, or remove {FOLDER}/{segment}.json"
        return text

    def name_for(self, segment: str, content: Content, others: Collection[str]) -> str:
        """Give the name under which a segment is to be run: another one, if another content has its own."""
        taken = segment in self.names or segment in others
        return f"{segment}-{content.sha256[:_SHORT]}" if taken else segment


def name_before(segment: str, content: Content) -> str:
    """Give the name that a segment had before `Known.name_for`."""
    return segment.removesuffix(f"-{content.sha256[:_SHORT]}")
