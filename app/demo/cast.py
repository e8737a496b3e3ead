"""The demo's three companies, their people, sites and stations; the tests' cast is the same (`tests/cast.py`).

All of it is invented: no such company, street number or person.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Site:
    name: str
    address: str
    city: str
    postal_code: str
    latitude: str
    longitude: str
    country: str = "DEU"
    time_zone: str = "Europe/Berlin"


@dataclass(frozen=True, slots=True)
class Box:
    """A station: `kind` names its plate (PLATES), `scenario` what its simulator does in the demo."""

    identity: str
    site: int
    kind: str
    version: str
    scenario: str = "charge"
    evse_count: int = 1
    name: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    email: str
    role: str


@dataclass(frozen=True, slots=True)
class Card:
    value: str
    label: str
    driver: str = ""
    group: str = ""
    status: str = "accepted"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When its drivers come: visits on a weekday and on a day of the weekend, how likely each hour of the day is, and
    how many minutes they charge at AC."""

    weekday: int
    weekend: int
    hours: tuple[int, ...]
    ac_minutes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Company:
    slug: str
    name: str
    country: str
    currency: str
    time_zone: str
    preset: str
    rhythm: Rhythm
    profile: dict[str, str]
    people: tuple[Person, ...]
    sites: tuple[Site, ...]
    boxes: tuple[Box, ...]
    groups: tuple[tuple[str, str], ...]
    drivers: tuple[tuple[str, str, str], ...]
    cards: tuple[Card, ...]
    tariffs: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = field(default=())
    invoice_to: dict[str, dict[str, str]] = field(default_factory=dict)  # by group


PLATES: dict[str, dict[str, Any]] = {
    "ac22": {"standard": "IEC_62196_T2", "format": "SOCKET", "power_type": "AC_3_PHASE", "max_voltage": 230,
             "max_amperage": 32},
    "ac11": {"standard": "IEC_62196_T2", "format": "CABLE", "power_type": "AC_3_PHASE", "max_voltage": 230,
             "max_amperage": 16},
    "dc150": {"standard": "IEC_62196_T2_COMBO", "format": "CABLE", "power_type": "DC", "max_voltage": 500,
              "max_amperage": 300, "max_electric_power": 150_000},
    "dc300": {"standard": "IEC_62196_T2_COMBO", "format": "CABLE", "power_type": "DC", "max_voltage": 920,
              "max_amperage": 400, "max_electric_power": 300_000},
}  # fmt: skip

POWER_W = {"ac11": 11_000, "ac22": 22_000, "dc150": 150_000, "dc300": 300_000}  # of an EVSE of that kind


def _tariff(ident: str, name: str, currency: str, elements: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": ident, "currency": currency, "tax_included": "YES", "type": "REGULAR",
        "tariff_alt_text": [{"language": "en", "text": name}],
        "elements": elements, "last_updated": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def _per_kwh(price: str, *, step: int = 1, **restrictions: Any) -> dict[str, Any]:
    element: dict[str, Any] = {
        "price_components": [{"type": "ENERGY", "price": price, "vat": "19", "step_size": step}]
    }
    return element | ({"restrictions": restrictions} if restrictions else {})


def _occupancy(per_hour: str, vat: str = "19") -> dict[str, Any]:
    return {"price_components": [{"type": "PARKING_TIME", "price": per_hour, "vat": vat, "step_size": 60}]}


PLATFORM = {
    "name": "Livery Demo", "legal_name": "Livery Demo GmbH", "address": "Am Speicher 1", "postal_code": "10999",
    "city": "Berlin", "country": "DE", "currency": "EUR", "time_zone": "Europe/Berlin", "vat_id": "DE122268496",
    "support_email": "abrechnung@livery-demo.example",
}  # fmt: skip
NORDLICHT = Company(
    slug="nordlicht", name="Nordlicht Laden", country="DE", currency="EUR", time_zone="Europe/Berlin",
    preset="nordlicht",
    rhythm=Rhythm(6, 4, (0, 0, 0, 0, 0, 1, 3, 7, 8, 5, 3, 3, 4, 3, 3, 4, 6, 9, 8, 5, 3, 2, 1, 0), (55, 150)),
    profile={
        "legal_name": "Nordlicht Ladenetz GmbH", "address": "Am Leuchtturm 7", "postal_code": "24999",
        "city": "Wiesenhafen", "vat_id": "DE136695976", "ocpi_country_code": "DE", "ocpi_party_id": "NLL",
        "support_email": "hilfe@nordlicht-laden.example", "support_phone": "+49 30 5550 1234", "language": "de",
    },
    people=(
        Person("Anke Petersen", "anke@nordlicht-laden.example", "owner"),
        Person("Momme Hinrichs", "momme@nordlicht-laden.example", "operator"),
        Person("Britta Lorenzen", "britta@nordlicht-laden.example", "accountant"),
    ),
    sites=(
        Site("Hafenkante", "Kaistraße 12", "Wiesenhafen", "24999", "54.7937", "9.4469"),
        Site("Marktgarage", "Süderstraße 3", "Klinkerstedt", "25899", "54.6610", "8.9310"),
        Site("Rasthof Förde", "An der Förde 1", "Holmby", "24955", "54.8090", "9.5330"),
    ),
    boxes=(
        Box("HK-01", 0, "ac22", "1.6", "charge", 2, "Hafenkante links"),
        Box("HK-02", 0, "ac22", "2.0.1", "charge", 2, "Hafenkante rechts"),
        Box("HK-03", 0, "ac22", "1.6", "fault", 2, "Am Kran"),
        Box("MG-01", 1, "ac11", "1.6", "idle", 1, "Ebene 1"),
        Box("MG-02", 1, "ac11", "2.0.1", "charge", 1, "Ebene 2"),
        Box("RF-01", 2, "dc150", "2.0.1", "charge", 2, "Schnelllader Nord"),
        Box("CP1", 2, "dc300", "2.0.1", "charge", 2, "Schnelllader Süd"),
    ),
    groups=(("Stadtwerke-Flotte", "monthly"), ("Gäste des Hafens", "free")),
    invoice_to={"Stadtwerke-Flotte": {
        "name": "Stadtwerke Wiesenhafen AöR", "address": "Werftstraße 3", "postal_code": "24999", "city": "Wiesenhafen",
        "country": "DE", "email": "rechnung@stadtwerke.example", "reference": "Kostenstelle 4711",
    }},
    drivers=(
        ("Jule Thomsen", "jule@example.org", ""),
        ("Kurierdienst Wattwagen", "fuhrpark@wattwagen.example", "Stadtwerke-Flotte"),
    ),
    cards=(
        Card("04A1B2C3D4E501", "Jules Karte", driver="Jule Thomsen"),
        Card("04A1B2C3D4E502", "Wattwagen 1", driver="Kurierdienst Wattwagen", group="Stadtwerke-Flotte"),
        Card("04A1B2C3D4E503", "Hafengast", group="Gäste des Hafens"),
        Card("04A1B2C3D4E504", "Hafenkarte"),
        Card("04A1B2C3D4E5FF", "Verlorene Karte", status="blocked"),
    ),
    tariffs=(
        (
            _tariff("NLL-AC", "Hafenstrom", "EUR", [
                _per_kwh("0.39", start_time="22:00", end_time="06:00"), _per_kwh("0.49"), _occupancy("1.50"),
            ]),
            {"default": True},
        ),
        (
            _tariff("NLL-DC", "Schnellladen", "EUR", [_per_kwh("0.69")]),
            {"site": 2},
        ),
    ),
)  # fmt: skip

SOLMARK = Company(
    slug="solmark", name="Solmark Charge", country="DE", currency="EUR", time_zone="Europe/Berlin", preset="solmark",
    rhythm=Rhythm(7, 1, (0, 0, 0, 0, 0, 0, 2, 9, 10, 7, 3, 3, 5, 6, 3, 2, 3, 4, 3, 1, 0, 0, 0, 0), (120, 260)),
    profile={
        "legal_name": "Solmark Energie AG", "address": "Sonnenallee 101", "postal_code": "79999",
        "city": "Rebenheim", "vat_id": "DE129273398", "ocpi_country_code": "DE", "ocpi_party_id": "SLM",
        "support_email": "support@solmark.example", "support_phone": "+49 761 555 0199",
    },
    people=(
        Person("Selim Aydin", "selim@solmark.example", "owner"),
        Person("Carla Weiss", "carla@solmark.example", "manager"),
    ),
    sites=(
        Site("Solmark Campus", "Sonnenallee 101", "Rebenheim", "79999", "47.9959", "7.8494"),
        Site("Kaufpark West", "Industriering 8", "Weinbruck", "79998", "48.0130", "7.8060"),
    ),
    boxes=(
        Box("CP1", 0, "ac22", "1.6", "charge", 2, "Tor A"),
        Box("CP2", 0, "ac22", "1.6", "idle", 2, "Tor B"),
        Box("CP3", 0, "ac11", "2.0.1", "offline", 1, "Tor C"),
        Box("KW-1", 1, "dc150", "2.0.1", "charge", 2, "Westkurve"),
        Box("KW-2", 1, "dc150", "1.6", "fault", 1, "Parkdeck"),
    ),
    groups=(("Solmark-Team", "free"),),
    drivers=(("Nadia Brenner", "nadia@example.org", ""), ("Ola Lindqvist", "ola@example.org", "Solmark-Team")),
    cards=(
        Card("SOL0000001", "Nadia", driver="Nadia Brenner"),
        Card("SOL0000002", "Team Ola", driver="Ola Lindqvist", group="Solmark-Team"),
        Card("SOL0000003", "Besuch"),
        Card("SOL00000FF", "Verlorene Teamkarte", status="blocked"),
    ),
    tariffs=(
        (
            _tariff("SLM-STD", "Solmark Standard", "EUR", [
                {"price_components": [{"type": "FLAT", "price": "0.50", "vat": "19", "step_size": 1}]},
                _per_kwh("0.55"), _occupancy("6.00"),
            ]),
            {"default": True},
        ),
        (_tariff("SLM-DC", "Solmark Schnell", "EUR", [_per_kwh("0.65"), _occupancy("6.00")]), {"site": 1}),
    ),
)  # fmt: skip

ELBSTROM = Company(
    slug="elbstrom", name="elbstrom", country="DE", currency="EUR", time_zone="Europe/Berlin", preset="elbstrom",
    rhythm=Rhythm(3, 4, (1, 0, 0, 0, 0, 1, 2, 3, 2, 1, 1, 1, 1, 1, 2, 3, 5, 8, 10, 9, 6, 4, 2, 1), (90, 240)),
    profile={
        "legal_name": "elbstrom Quartiersladen eG", "address": "Deichstieg 4", "postal_code": "20999",
        "city": "Altenwerder", "vat_id": "DE811907980", "ocpi_country_code": "DE", "ocpi_party_id": "ELB",
        "support_email": "moin@elbstrom.example", "support_phone": "+49 40 555 0142", "language": "de",
    },
    people=(
        Person("Frauke Behn", "frauke@elbstrom.example", "owner"),
        Person("Ilja Sommer", "ilja@elbstrom.example", "operator"),
    ),
    sites=(
        Site("Quartiersgarage Deich", "Deichstieg 4", "Altenwerder", "20999", "53.5040", "9.9080"),
        Site("Fähranleger", "Am Anleger 2", "Altenwerder", "20999", "53.5120", "9.9210"),
    ),
    boxes=(
        Box("QD-1", 0, "ac11", "2.0.1", "charge", 2, "Stellplatz 14"),
        Box("QD-2", 0, "ac11", "1.6", "charge", 2, "Stellplatz 15"),
        Box("FA-1", 1, "dc150", "2.0.1", "charge", 2, "Anleger"),
    ),
    groups=(("Mitglieder", "monthly"),),
    drivers=(("Tomke Jansen", "tomke@example.org", "Mitglieder"), ("Enno Voss", "enno@example.org", "")),
    cards=(
        Card("ELB0000001", "Tomke", driver="Tomke Jansen", group="Mitglieder"),
        Card("ELB0000002", "Enno", driver="Enno Voss"),
        Card("ELB0000003", "Gastkarte"),
        Card("ELB00000FF", "Alte Mitgliedskarte", status="blocked"),
    ),
    tariffs=(
        (_tariff("ELB-Q", "Quartier", "EUR", [_per_kwh("0.42"), _occupancy("0.60")]), {"default": True}),
        (_tariff("ELB-S", "Schnell", "EUR", [_per_kwh("0.59")]), {"site": 1}),
    ),
)  # fmt: skip

COMPANIES = (NORDLICHT, SOLMARK, ELBSTROM)


def legal_texts(company: Company) -> dict[str, dict[str, str]]:
    """Kind -> language -> text, as short as a demo's may be. A real operator has a lawyer write theirs."""
    p = company.profile
    seller = f"{p['legal_name']}\n{p['address']}\n{p['postal_code']} {p['city']}"
    reach = f"{p['support_phone']}\n{p['support_email']}"
    return {
        "imprint": {
            "en": f"{seller}\n\nVAT id {p.get('vat_id', '')}\n\n# Reach us\n{reach}",
            "de": f"{seller}\n\nUSt-IdNr. {p.get('vat_id', '')}\n\n# Kontakt\n{reach}",
        },
        "terms": {
            "en": "# What you pay\nThe price shown at the start holds for the whole session. Your card is charged once,"
            " after the session, never more than was held.\n\n# When something breaks\nStop the session on its page, or"
            f" call {p['support_phone']}.",
            "de": "# Was Sie zahlen\nDer Preis zu Beginn gilt für den ganzen Ladevorgang. Ihre Karte wird einmal"
            " belastet, danach, nie mit mehr als dem vorgehaltenen Betrag.\n\n# Wenn etwas nicht geht\nBeenden Sie den"
            f" Ladevorgang auf seiner Seite oder rufen Sie an: {p['support_phone']}.",
        },
        "privacy": {
            "en": "# What we keep\n- the session: place, time, energy, price\n- your mail address, if you gave one\n"
            "- no card number: the payment provider keeps that\n\nNo trackers, no advertising.",
            "de": "# Was wir aufheben\n- den Ladevorgang: Ort, Zeit, Energie, Preis\n- Ihre Mailadresse, wenn Sie eine"
            " angegeben haben\n- keine Kartennummer: die hat der Zahlungsdienst\n\nKeine Tracker, keine Werbung.",
        },
    }
