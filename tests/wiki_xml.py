"""Dumps made for tests, small and valid."""

import bz2
from xml.sax.saxutils import escape

import numpy as np


def page(title, text, page_id=1, namespace=0, inner="", revisions=1):
    parts = "".join(
        f"<revision><id>{10 * page_id + n}</id><contributor><username>U</username><id>999</id></contributor>"
        f"<model>wikitext</model><text>{escape(text)}{'' if n == revisions - 1 else ' OLD'}</text></revision>"
        for n in range(revisions)
    )
    return f"<page><title>{escape(title)}</title><ns>{namespace}</ns><id>{page_id}</id>{inner}{parts}</page>"


def dump(*pages, base="https://en.wikipedia.org/wiki/Main_Page", version="0.11"):
    return (
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-{version}/"><siteinfo><sitename>W</sitename><base>{base}</base>'
        f'<namespaces><namespace key="0"/></namespaces></siteinfo>{"".join(pages)}</mediawiki>'
    ).encode()


def letters(n, length=9000, seed=1):
    return [row.tobytes().decode() for row in np.random.default_rng(seed).integers(97, 123, (n, length), dtype=np.uint8)]


def in_streams(data, *edges):
    """A bz2 of several streams, cut at these bytes."""
    return b"".join(bz2.compress(data[a:b]) for a, b in zip((0, *edges), (*edges, len(data)), strict=True))
