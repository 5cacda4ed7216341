"""Values into HTML. Every text is data and is escaped here; no other module writes a tag.

A `Block` shows itself in a notebook (HTML, with plain text beside it) and on the page. Formulas are text too:
blocks carry the classes that keep MathJax away, and the page loads no script at all.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from reports import drawing
from reports.findings import Finding
from reports.tables import Table, as_text

PHONE = "application/x-scenetune-phone-png"  # the narrow drawing, beside image/png in an output
# Control characters, lone surrogates, and the marks that turn the direction of the text around them.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
PLAIN = "tex2jax_ignore mathjax_ignore"

GLUE = re.compile(r"(?<=\d) (?=[%±])|(?<=[±=<]) (?=[\d.])|(?<=\b[pn]) (?=[=<])")


@dataclass(frozen=True)  # no tuples: IPython would write those out as such instead of asking them
class Block:
    """Something to show: `html` is safe, `text` is what it says."""

    html: str
    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": f'<div class="{PLAIN}">{self.html}</div>', "text/plain": self.text}


@dataclass(frozen=True)
class Picture:
    """A figure in two widths with its description."""

    rendering: drawing.Rendering
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {
            "image/png": base64.b64encode(self.rendering.wide).decode(),
            PHONE: base64.b64encode(self.rendering.narrow).decode(),
            "text/plain": self.alt,
        }


class Tint(NamedTuple):
    """Words in the colour of the marks they name."""

    text: str
    colour: str


def escape(text: object) -> str:
    """Text as HTML: markup, quotes and control characters lose their meaning."""
    return html.escape(UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(text)), quote=True)


def _prose(text: str) -> str:
    """Escaped, with "81.2 ± 0.9 %" and "p = 0.04" kept on one line."""
    return escape(GLUE.sub("\N{NO-BREAK SPACE}", text))


def paragraph(*pieces: str | Tint, kind: str = "") -> Block:
    """A paragraph; `kind` is the page's class for it ("caption", "quiet", "status")."""
    inner = "".join(
        f'<b style="color:{p.colour}">{escape(p.text)}</b>' if isinstance(p, Tint) else _prose(p)
        for p in pieces
    )
    text = "".join(p.text if isinstance(p, Tint) else p for p in pieces)
    return Block(f'<p class="{escape(kind)}">{inner}</p>' if kind else f"<p>{inner}</p>", text)


def header(name: str, family: str, found: Finding, facts: Mapping[str, str]) -> Block:
    """The top of the page: study, headline and what it means, how sure, and `facts` by their label."""
    status = f'<p class="status">{_prose(found.status)}</p>' if found.status else ""
    meaning = f'<p class="meaning">{_prose(found.meaning)}</p>' if found.meaning else ""
    rows = {"Is that sure?": found.sure, **{label: (text,) for label, text in facts.items() if text}}
    answers = "".join(
        f"<dt>{_prose(label)}</dt><dd>{''.join(f'<p>{_prose(text)}</p>' for text in texts)}</dd>"
        for label, texts in rows.items()
        if texts
    )
    markup = (
        f'<p class="study">{escape(name)} <span>family {escape(family)}</span></p>{status}'
        f"<h1>{_prose(found.headline)}</h1>{meaning}<dl>{answers}</dl>"
    )
    said = [f"{name} ({family})", found.status, found.headline, found.meaning, *found.sure, *facts.values()]
    return Block(markup, "\n".join(filter(None, said)))


def table(value: Table, *, kind: str = "", empty: str = "Nothing to show.") -> Block:
    """A table in a box that scrolls sideways on a narrow screen; `empty` is said of one without rows."""
    if not value.rows:
        return paragraph(" ".join(filter(None, [empty, value.note])), kind="quiet")
    head = "".join(_cell("th", c, i in value.numeric) for i, c in enumerate(value.columns))
    head = f"<thead><tr>{head}</tr></thead>" if any(value.columns) else ""
    rows = "".join(
        ('<tr class="strong">' if n in value.emphasis else "<tr>")
        + "".join(_cell("td", cell, i in value.numeric) for i, cell in enumerate(row))
        + "</tr>"
        for n, row in enumerate(value.rows)
    )
    note = f'<p class="caption">{escape(value.note)}</p>' if value.note else ""
    classes = f' class="{escape(kind)}"' if kind else ""
    body = f'<div class="scroll" tabindex="0"><table{classes}>{head}<tbody>{rows}</tbody></table></div>{note}'
    return Block(body, "\n".join(filter(None, [as_text(value), value.note])))


def _cell(tag: str, text: str, numeric: bool) -> str:
    """Short texts stay on one line, long ones get a column worth reading."""
    kinds = ["number"] if numeric else []
    if tag == "td":
        kinds += ["line"] if len(text) <= 44 else ["long"]
    classes = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<{tag}{classes}>{escape(text)}</{tag}>"


def heading(text: str) -> Block:
    """A title within a section."""
    return Block(f"<h3>{escape(text)}</h3>", text)


def command(text: str) -> Block:
    """A shell command, to be copied."""
    return Block(f'<pre class="command"><code>{escape(text)}</code></pre>', text)


def folded(summary: str, block: Block) -> Block:
    """A block the reader opens."""
    return Block(
        f"<details><summary>{escape(summary)}</summary>{block.html}</details>", f"{summary}\n{block.text}"
    )


def figure(
    draw: Callable[[Any, float], Figure], info: Any, alt: str, *caption: str | Tint
) -> Sequence[Block | Picture]:
    """A drawn info with its caption; an info with nothing to draw says why instead."""
    if info.note:
        return (paragraph(info.note, kind="quiet"),)
    return (Picture(drawing.render(draw, info), alt), paragraph(*caption, kind="caption"))
