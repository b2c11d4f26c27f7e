"""The report as one HTML page that needs nothing else: no script, no font, no file beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cdc_migrator.cli import report_pictures as pictures
from cdc_migrator.cli import report_words as words

_FILTERS = (
    words.when,
    words.clock,
    words.span,
    words.count,
    words.size,
    words.share,
    words.attempt,
    words.event,
)


def environment(*, html: bool) -> Environment:
    """Templates of this package; values are escaped where they become HTML."""
    made = Environment(
        loader=PackageLoader("cdc_migrator.cli", "templates"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update({one.__name__: one for one in _FILTERS})
    made.filters |= {"cell": _cell, "marked": _marked}
    return made


def page(document: Mapping[str, Any]) -> str:
    """The page of a report's document (`service.report.document`)."""
    return (
        environment(html=True)
        .get_template("report.html.j2")
        .render(
            it=document,
            summary=document["summary"],
            life=pictures.life(document),
            stalls=pictures.stalls(document["attempts"] or []),
            width=pictures.WIDTH,
        )
    )


def markdown(template: str, document: Mapping[str, Any]) -> str:
    """A document as Markdown, without runs of empty lines."""
    text = environment(html=False).get_template(template).render(it=document)
    return re.sub(r"\n{3,}", "\n\n", text)


def _marked(text: str) -> Markup:
    """A sentence whose commands stand between backticks."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _cell(text: str) -> str:
    """Fit for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
