"""mkdocs hooks that add pages and files outside docs/ to the site if the documentation links to them.

On GitHub a link is relative to the file in the repository. The site has README.md as its index, docs/ at its root and
all other files under their paths in the repository. The hooks rewrite links accordingly.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "experiments/README.md", "experiments/benchmarks/README.md")
LINK = re.compile(r"(\]\(<?|(?:src|href)=\")([^)>\"\s]+)")


def site_path(path: str) -> str:
    """Return the path on the site of a file of the repository."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def repository_path(uri: str) -> str:
    """Return the file of the repository at a path of the site."""
    if uri == "index.md":
        return "README.md"
    return f"docs/{uri}" if (ROOT / "docs" / uri).is_file() else uri


def target_of(link: str, page: str) -> str | None:
    """Return the file of the repository that a link on a page leads to; None for other links."""
    path = link.partition("#")[0]
    if not path or re.match(r"[a-z][a-z0-9+.-]*:|//", path):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    if (ROOT / target).is_dir():
        target = posixpath.join(target, "README.md")
    return target if (ROOT / target).is_file() else None


def links_of(page: str) -> set[str]:
    """Return the files of the repository that a page links to."""
    found = {target_of(link, page) for _, link in LINK.findall((ROOT / page).read_text())}
    return {target for target in found if target is not None}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md and all files that the pages link to, directly or through other files."""
    waiting = {*PAGES, *(f"docs/{file.src_uri}" for file in files.documentation_pages())}
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        if files.get_file_from_path(site_path(path)) is None:
            files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting |= links_of(path) - seen
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page to paths on the site."""
    own = repository_path(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def rewritten(match: re.Match[str]) -> str:
        before, link = match.groups()
        target = target_of(link, own)
        if target is None:
            return match[0]
        _, hash_sign, anchor = link.partition("#")
        return before + posixpath.relpath(site_path(target), here or ".") + hash_sign + anchor

    return LINK.sub(rewritten, markdown)
