"""One HTML page that contains everything: pictures, captions and tables."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cxgrad_jax.files import write_whole

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } figure { margin: 1rem 0 2rem; } figcaption { color: #444; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .2rem .7rem; border-bottom: 1px solid #ccc; }
th { text-align: left; } td { text-align: right; } td:first-child { text-align: left; }
"""


class Section(NamedTuple):
    """A part of the report.

    Attributes:
      title: its heading.
      picture: a PNG file to be put in; None: no picture.
      caption: paragraphs below the picture, plain text.
      table: rows of cells, the first the headings; empty: no table.
    """

    title: str
    picture: Path | None
    caption: Sequence[str]
    table: Sequence[Sequence[str]] = ()


def write_report(path: Path, title: str, introduction: Sequence[str], sections: Sequence[Section]) -> None:
    """Writes the page, which refers to no other file.

    Raises:
      UserError: the file cannot be written.
    """
    body = [f"<h1>{html.escape(title)}</h1>", *map(_paragraph, introduction)]
    for section in sections:
        body.append(f"<h2>{html.escape(section.title)}</h2>")
        caption = "".join(map(_paragraph, section.caption))
        if section.picture:
            data = base64.b64encode(section.picture.read_bytes()).decode()
            alt = html.escape(section.title, quote=True)
            image = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
            body.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
        else:
            body.append(caption)
        if section.table:
            body.append(_table(section.table))
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )
    write_whole(path, page)


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(rows[0], "th") + "".join(line(row, "td") for row in rows[1:]) + "</table>"
