"""Pages of the site that are elsewhere in the repository, and links that work both there and on the site."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/records/README.md": "results.md",
}
RECORDS = "benchmarks/records"  # whose drawings the site has under the same path
SOURCES = {page: source for source, page in ELSEWHERE.items()}
# [text](target#anchor), an image in front of which is an exclamation mark, or one within a link; never across lines.
LINK = re.compile(r"(!?)\[((?:!\[[^]\n]*\]\([^)\n]*\)|[^]\[\n])*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that are outside of the folder of documents."""
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for drawing in sorted((ROOT / RECORDS).glob("*/*.svg")):
        name = drawing.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(drawing)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return a page's text with its links as the site has them."""
    uri = page.file.src_uri
    return for_site(markdown, SOURCES.get(uri, f"docs/{uri}"), uri)


def for_site(markdown: str, source: str, page: str) -> str:
    """Return the text of the file `source` as that of the site's `page`.

    A link to another page, or to a file of the site, leads there. One to a file that is in the repository alone becomes
    the link's text. Anything else stays, and a strict build refuses what isn't there.
    """

    def on_site(link: re.Match[str]) -> str:
        mark, text, target, anchor = link[1], link[2], link[3], link[4] or ""
        text = LINK.sub(on_site, text)
        if "://" in target:
            return f"{mark}[{text}]({target}{anchor})"
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = ELSEWHERE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else "")
        there = there or (path if path.startswith(RECORDS) and path.endswith(".svg") else "")
        if not there and not mark and (ROOT / path).exists():
            return text
        there = posixpath.relpath(there, posixpath.dirname(page) or ".") if there else target
        return f"{mark}[{text}]({there}{anchor})"

    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(on_site, part) for part in blocks)
