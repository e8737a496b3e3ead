"""The XML that SAFE's transparency software opens: read, and written for drivers (pure).

https://github.com/SAFE-eV/transparenzsoftware, XML_Format.md: `values` with a `value` for each record, whose signed
text stands there as it was signed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from app.metering.records import Kind, Unreadable

MAX_CHARACTERS = 2_000_000
# How each of our formats is called there; what it has no name for it recognises by its look.
FORMAT_NAMES = {
    "ocmf": "OCMF", "alfen": "ALFEN", "pcdf": "PCDF", "edl40": "EDL_40_P", "isa_edl_40_p": "ISA_EDL_40_P",
    "mennekes": "EDL_40_MENNEKES",
}  # fmt: skip
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LABELS: dict[str, Kind] = {"transaction.begin": "begin", "transaction.end": "end"}


@dataclass(frozen=True, slots=True)
class Enclosed:
    """One `value`: its data as it was signed, the key beside it, and what it was read for as the file says."""

    data: str
    format: str = ""
    public_key: str = ""
    label: Kind | None = None


def is_xml(data: str) -> bool:
    return data.lstrip("\ufeff \r\n\t").startswith("<")


def parse(data: str) -> ElementTree.Element:
    """Without a document type, so that nothing can be defined in it. Errors: `Unreadable`."""
    if len(data) > MAX_CHARACTERS:
        raise Unreadable("The file is too large.")
    if "<!DOCTYPE" in data.upper():
        raise Unreadable("The file has a document type; such files have none.")
    try:
        return ElementTree.fromstring(data.lstrip("\ufeff \r\n\t"))  # noqa: S314 - no DTD, hence no entities
    except (ElementTree.ParseError, ValueError):
        raise Unreadable("The file is no XML.") from None


def read_values(root: ElementTree.Element) -> list[Enclosed]:
    """Errors: `Unreadable`."""
    if root.tag != "values":
        raise Unreadable("The file is neither one of transparency software nor a MENNEKES bill.")
    found = []
    for value in root.iter("value"):
        signed = value.find("signedData")
        if signed is None or not (signed.text or "").strip():
            raise Unreadable("A value of the file has no signed data.")
        context = (value.get("context") or "").strip().lower().split(" ")[0]
        found.append(
            Enclosed(
                (signed.text or "").strip(),
                (signed.get("format") or "").strip().lower(),
                (value.findtext("publicKey") or "").strip(),
                LABELS.get(context),
            )
        )
    if not found:
        raise Unreadable("The file has no values.")
    return found


def write_values(values: Sequence[tuple[str, str, str, str]], transaction: str) -> bytes:
    """`values`: (signed text, our format, public key as DER in hexadecimal or empty, OCPP's reading context).

    The tool wants whole numbers for `transactionId`, and shows them on the left.
    """
    number = transaction if transaction.isdecimal() else "1"
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<values>"]
    for data, format_name, public_key, context in values:
        name = FORMAT_NAMES.get(format_name)
        said = f" format={quoteattr(name)}" if name else ""
        lines.append(f"  <value transactionId={quoteattr(number)} context={quoteattr(_text(context))}>")
        lines.append(f'    <signedData{said} encoding="plain">{_text(data)}</signedData>')
        if public_key:
            lines.append(f'    <publicKey encoding="plain">{_key(public_key, format_name)}</publicKey>')
        lines.append("  </value>")
    return "\n".join([*lines, "</values>", ""]).encode()


def _text(said: str) -> str:
    """As it was signed: a carriage return would come back as a line feed. What XML cannot hold frames a record (PCDF's
    STX and ETX) and is not signed."""
    return escape(_NOT_XML.sub("", said), {"\r": "&#13;"})


def _key(public_key: str, format_name: str) -> str:
    """Formats with a curve of their own have the two halves of the point, the others all of it."""
    size = {"edl40": 48, "mennekes": 48, "isa_edl_40_p": 64}.get(format_name)
    return public_key[-2 * size :] if size else public_key
