"""For the site alone: a link to a file that the site does not hold becomes its path in words.

Code hosts follow such links, a site cannot. With `repo_url` in mkdocs.yml they would lead there; none is set,
because this project does not know where it is hosted.
"""

import os
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s:]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    """MkDocs calls this for each page; raises FileNotFoundError for a link to a file that is nowhere."""
    folder = Path(page.file.abs_src_path).parent
    held = {os.path.normpath(one.abs_src_path) for one in files if one.inclusion.is_included()}

    def told(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        path = os.path.normpath(folder / target)
        if path in held:
            return match[0]
        if not os.path.exists(path):
            raise FileNotFoundError(f"{page.file.src_path}: links to {target}, which does not exist")
        named = os.path.relpath(path)
        return text if text.strip("`") in named else f"{text} (`{named}`)"

    return LINK.sub(told, markdown)
