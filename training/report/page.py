"""One HTML file with its pictures inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import cv2
import numpy as np

_STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; border-bottom: 1px solid #ccc; margin-top: 2em }
img { max-width: 100%; display: block; margin: .6em 0 } td, th { padding: .1em .9em .1em 0 }
th { text-align: left } .look { background: #fff0d0; padding: .1em .4em } small { color: #666 }
"""


class Page:
    """Collects sections, tables and pictures."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """A new section."""
        self._parts.append(f'<h2>{html.escape(text)}</h2>')

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f'<p>{html.escape(text)}</p>')

    def sentences(self, sentences: Sequence[str]) -> None:
        """A list; those with 'Look:' in them stand out."""
        rows = (
            f'<li{" class=look" if "Look:" in text else ""}>{html.escape(text)}</li>'
            for text in sentences
        )
        self._parts.append(f'<ul>{"".join(rows)}</ul>')

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table."""
        cells = [''.join(f'<th>{html.escape(str(cell))}</th>' for cell in head)]
        cells += [''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row) for row in rows]
        lines = ''.join(f'<tr>{line}</tr>' for line in cells)
        self._parts.append(f'<table>{lines}</table>')

    def figure(self, figure: Any, caption: str = '') -> None:
        """A matplotlib figure."""
        content = BytesIO()
        figure.savefig(content, format='png', dpi=80)
        self._image('png', content.getvalue(), caption)

    def picture(self, image_HW3: np.ndarray, caption: str = '') -> None:
        """A uint8 RGB picture, as JPEG."""
        _, content = cv2.imencode('.jpg', image_HW3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        self._image('jpeg', content.tobytes(), caption)

    def html(self) -> str:
        """The whole document."""
        title = html.escape(self._title)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<style>{_STYLE}</style></head><body><h1>{title}</h1>{"".join(self._parts)}'
            '</body></html>\n'
        )

    def _image(self, kind: str, content: bytes, caption: str) -> None:
        data = base64.b64encode(content).decode()
        text = html.escape(caption)
        self._parts.append(f'<img alt="{text}" src="data:image/{kind};base64,{data}">')
        if caption:
            self._parts.append(f'<small>{text}</small>')
