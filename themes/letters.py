"""Letters that nobody sees, and letters that turn the direction of reading: with them a text says what it does not
say (Unicode UAX 9, UTR 36).

A few invisible ones belong to how people write: joiners between emoji and within the scripts whose letters they shape
(Unicode 9.2, 12.1, 23.2), and the tag letters of a flag. They pass where they stand so, and nowhere else.
"""

import json
import re

TURNING = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_TURNING = re.compile(rf"[{TURNING}]")
_CONTROLS = r"\x00-\x1f\x7f-\x9f"
# Besides: the soft hyphen, fillers and blanks that are letters by name, lone surrogates, format and tag characters.
_UNSEEN = (
    rf"[{_CONTROLS}\u00ad\u034f\u115f\u1160\u17b4\u17b5\u200b-\u200d\u2028\u2029\u2060-\u2065\u206a-\u206f\u2800\u3164"
    rf"\ud800-\udfff\ufeff\uffa0\ufff0-\ufffc\ufffe\uffff\U0001d173-\U0001d17a\U000e0000-\U000e0fff{TURNING}]"
)

_PICTURE = r"©®\u203c\u2049\u2100-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299\ufe0f\U0001f000-\U0001faff"
# Arabic and its neighbours, the scripts of India and of South-East Asia, Mongolian; and their further blocks.
_SHAPED = (
    r"\u0600-\u061b\u061d-\u109f\u1780-\u18af\u1900-\u1cff\ua800-\ua82f\ua840-\uabff\ufb50-\ufdff\ufe70-\ufefc"
    r"\U00010a00-\U00011fff"
)
_VIRAMA = r"\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca"
_WRITTEN_SO = (
    rf"(?<=[{_PICTURE}])\u200d(?=[{_PICTURE}])"
    rf"|(?<=[{_SHAPED}])[\u200c\u200d](?=[{_SHAPED}])|(?<=[{_VIRAMA}])[\u200c\u200d]"
    r"|(?<=\U0001f3f4)[\U000e0030-\U000e007a]{3,6}\U000e007f"
)
_ANY_UNSEEN = re.compile(rf"(?P<right>{_WRITTEN_SO})|{_UNSEEN}")


def is_plain_line(text: str) -> bool:
    """One line that says what it shows."""
    if text.isascii():
        return text.isprintable()
    return all(found["right"] for found in _ANY_UNSEEN.finditer(text))


def shown(text: str) -> str:
    """As it is shown to people: the same without what turns it."""
    return text if text.isascii() else _TURNING.sub("", text)


def spelled(text: str, *, layout: str = "") -> str:
    """For those who ask what exactly a machine said: what nobody sees and what turns the text is spelled as in JSON
    (`\\u202e`). `layout` are letters that stay, such as the line breaks between what was said."""

    def spell(found: re.Match[str]) -> str:
        letter = found.group()
        return letter if found["right"] or letter in layout else json.dumps(letter)[1:-1]

    return _ANY_UNSEEN.sub(spell, text)
