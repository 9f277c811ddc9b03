"""Numbers as people read them, each with its unit."""

from __future__ import annotations

import time

from pgb_core.errors import one_line


def count(value: float) -> str:
    """Parameters, operations and the like: 22.7 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Bytes in decimal units."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value:.0f} bytes"


def milliseconds(value: float) -> str:
    """A latency."""
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def several(number: int, noun: str) -> str:
    """`1 group`, `2 groups`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def percent(value: float, digits: int = 1) -> str:
    """A fraction in percent."""
    return f"{100 * value:.{digits}f}%"


def seconds(value: float) -> str:
    """A duration: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(value))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(stamp: float) -> str:
    """A point in time in the server's time zone."""
    return time.strftime("%d %b %Y, %H:%M", time.localtime(stamp))


def plain(text: str) -> str:
    """Text of files that strangers wrote as one printable line, with nothing in it that Markdown reads."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()<>#+!|$~:" else letter for letter in one_line(text))


def quoted(text: str) -> str:
    """The beginning of what a link or a person says, in quotation marks and `plain`."""
    return f"“{plain(text[:40])}”"
