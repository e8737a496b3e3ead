"""Every command of every version is a form in plain words, and what was filled in fits OCPP's own schema."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.kernel.errors import Invalid
from app.kernel.web import Form
from app.stations import command_words, ocpp_schemas, schema_forms
from app.stations.schema_forms import Field, Group

EVERY = [
    (version, action) for version in ocpp_schemas.VERSIONS for action in sorted(ocpp_schemas.actions(version))
]
BERLIN = ZoneInfo("Europe/Berlin")


def value_for(one: Field) -> list[str]:
    if one.kind in ("choice", "choices"):
        return [key for key, _text in one.options if key][: 2 if one.kind == "choices" else 1]
    if one.kind == "lines":
        return ["7\n8"]
    if one.kind == "time":
        return ["2030-06-01T14:30"]
    if one.kind in ("integer", "number"):
        return ["2"]
    text = "https://files.example/a" if "ocation" in one.name else "x" * min(one.longest or 10, 10)
    return [text]


def filled(group: Group, *, everything: bool) -> Form:
    """What somebody types who fills in what is needed, or all there is."""
    pairs: list[tuple[str, Any]] = []

    def fill(part: Field | Group) -> None:
        if not (part.is_required or everything):
            return
        if isinstance(part, Group):
            for one in part.parts:
                fill(one)
        else:
            pairs.extend((part.name, value) for value in value_for(part))

    for part in group.parts:
        fill(part)
    return Form(pairs)


@pytest.mark.parametrize("everything", [False, True], ids=["needed", "everything"])
@pytest.mark.parametrize(("version", "action"), EVERY, ids="-".join)
def test_a_filled_form_gives_a_payload_that_fits_the_schema(version: str, action: str, everything: bool):
    group = schema_forms.form_of(version, action)
    names = [one.name for one in group.fields()]
    assert len(names) == len(set(names))
    payload = schema_forms.payload_of(version, action, filled(group, everything=everything), BERLIN)
    assert ocpp_schemas.validate(version, action, payload) == []
    if everything and names:
        assert payload


@pytest.mark.parametrize(("version", "action"), EVERY, ids="-".join)
def test_every_command_has_words_of_its_own(version: str, action: str):
    words = command_words.ACTIONS[action]
    assert words.title != schema_forms.spelled(action) or len(words.title.split()) == 1
    assert words.effect.endswith(".") and words.subject in command_words.SUBJECTS


def test_what_a_version_does_not_have_is_shown_as_refused_with_the_reason():
    for version, other in (("ocpp1.6", "ocpp2.0.1"), ("ocpp2.0.1", "ocpp1.6")):
        lacking = ocpp_schemas.actions(other) - ocpp_schemas.actions(version)
        assert lacking == set(command_words.NOT_IN_16 if version == "ocpp1.6" else command_words.NOT_IN_2X)
        listed = {one.action: one for _subject, entries in schema_forms.catalogue(version) for one in entries}
        assert {action for action, one in listed.items() if not one.refusal} == ocpp_schemas.actions(version)
        for action in lacking:
            reason = schema_forms.refusal(version, action)
            assert reason.startswith("OCPP") and reason.endswith(".")
            assert action in listed or "calls it" in reason


def test_what_is_missing_or_no_number_is_said_at_its_field():
    form = Form(
        [("setVariableData.0.component.name", "OCPPCommCtrlr"), ("setVariableData.1.attributeValue", "3")]
    )
    with pytest.raises(Invalid) as caught:
        schema_forms.payload_of("ocpp2.0.1", "SetVariables", form, BERLIN)
    assert {(fault.field, fault.code) for fault in caught.value.faults} == {
        ("setVariableData.0.attributeValue", "required"), ("setVariableData.0.variable.name", "required"),
        ("setVariableData.1.component.name", "required"), ("setVariableData.1.variable.name", "required"),
    }  # fmt: skip
    form = Form([("connectorId", "one"), ("type", "Inoperative")])
    with pytest.raises(Invalid) as caught:
        schema_forms.payload_of("ocpp1.6", "ChangeAvailability", form, BERLIN)
    assert caught.value.faults[0].field == "connectorId"


def test_times_are_the_readers_and_go_out_in_utc_and_requests_get_a_number():
    form = Form([
        ("log.remoteLocation", "https://files.example"), ("log.oldestTimestamp", "2030-06-01T14:30"),
        ("logType", "SecurityLog"),
    ])  # fmt: skip
    payload = schema_forms.payload_of("ocpp2.0.1", "GetLog", form, BERLIN)
    assert payload["log"]["oldestTimestamp"] == "2030-06-01T12:30:00Z"
    assert payload["requestId"] >= 1
