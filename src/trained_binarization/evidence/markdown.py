"""Text in Markdown: what a value says is what a reader sees, whatever characters it is made of."""

import re

SPECIAL = re.compile(
    r"(?P<interval>\[[−+\d., -]+\](?![(\[:]))"  # [0.5, 1.5] is no link
    r"|(?P<markup><(?=[A-Za-z/!?])|&(?=\#?\w+;))"  # a tag, a comment, an entity
    r"|[\\`*~|\[\]]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore within a word means nothing
)


class Markdown(str):
    """Text that is Markdown already: `escape` leaves it as it is."""


def escape(value: object) -> Markdown:
    """The value's text on one line, in which nothing is markup: no table's cell or comment begins or ends in it."""
    if isinstance(value, Markdown):
        return value
    return Markdown(SPECIAL.sub(_escaped, " ".join(str(value).splitlines())))


def _escaped(found: re.Match[str]) -> str:
    if found["interval"]:
        return found[0]
    return {"<": "&lt;", "&": "&amp;"}[found[0]] if found["markup"] else f"\\{found[0]}"


def code(value: object) -> Markdown:
    """The value's text as code. A code span knows no escapes: where one would be needed it becomes a <code> element."""
    text = str(value)
    plain = text.split() == text.split(" ") and not re.search(r"[`|<]", text)
    return Markdown((f"`{text}`" if plain else f"<code>{escape(text)}</code>") if text else "")
