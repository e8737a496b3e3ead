"""Who may not reveal a card number does not read it anywhere: not in a frame, a payload, an answer or a search."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from app.identity import service as identity
from app.kernel.ids import public_id
from app.stations import commands, service
from app.stations.redaction import mask_cards, mask_frame
from app.stations.reports import Frame
from tests.web import CLI, OWNER, House, found_brand

pytestmark = pytest.mark.anyio
CARD = "04SECRET99AB"


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


async def _station(house: House, tenant_id: UUID) -> tuple[str, str]:
    """A station whose log and whose commands name a card; (station, command)."""
    at = datetime.now(UTC)
    async with house.database.scope(tenant_id, CLI) as scope:
        made = await service.create_station(scope, identity="CP1")
        token = {
            "idToken": CARD,
            "type": "ISO14443",
            "additionalInfo": [{"additionalIdToken": CARD, "type": "x"}],
        }
        payload = {"remoteStartId": 1, "idToken": token}
        sent = await commands.send_command(scope, made.station.id, "RequestStartTransaction", payload)
        frames = [
            f'[2,"1","Authorize",{{"idTag":"{CARD}"}}]',
            f'[2,"2","DataTransfer",{{"vendorId":"v","data":"{{\\"idTag\\":\\"{CARD}\\"}}"}}]',
            f'[2,"3","Authorize",{{"idToken":{{"idToken":"x","additionalInfo":[{{"additionalIdToken":"{CARD}"}}]}}}}]',
            f'[2,"4","Authorize",{{"idTag":"{CARD}", broken',
        ]
        await service.record_frames(scope, made.station.id, [
            Frame(at=at, direction="in", kind="call", ocpp_version="1.6", message_id=str(n), action="Authorize",
                  raw=raw, error=None)
            for n, raw in enumerate(frames)
        ])  # fmt: skip
        return public_id("charging_station", made.station.id), public_id("station_command", sent.id)


@pytest.mark.parametrize("role", ["viewer", "accountant", "operator"])
async def test_staff_without_the_right_see_no_card_number_on_any_page(
    house: House, tenant_id: UUID, role: str
) -> None:
    station, _command = await _station(house, tenant_id)
    email = f"{role}@x.example"
    async with house.database.scope(tenant_id, CLI) as scope:
        await identity.invite_staff(scope, email=email, name="Somebody", role=role)
    visitor = await house.staff("nordlicht", tenant_id, email)
    for path in (f"/stations/{station}/commands", f"/stations/{station}/log", f"/stations/{station}"):
        answer = await visitor.get(path)
        assert answer.status_code == 200, path
        assert CARD not in answer.text, path
    found = await visitor.get(f"/stations/{station}/log?q={CARD}")
    assert "/log/msg_" not in found.text


async def test_a_key_sees_card_numbers_only_with_the_right(house: House, tenant_id: UUID) -> None:
    station, command = await _station(house, tenant_id)
    plain = await house.api("nordlicht", tenant_id, "stations.view")
    for path in (f"/api/v1/commands/{command}", f"/api/v1/stations/{station}/messages"):
        answer = await plain.get(path)
        assert (answer.status_code, CARD in answer.text) == (200, False), path
    whole = await house.api("nordlicht", tenant_id, "stations.view", "id_tokens.reveal")
    assert CARD in (await whole.get(f"/api/v1/commands/{command}")).text


async def test_the_owner_who_may_reveal_sees_the_frame_as_it_came(house: House, tenant_id: UUID) -> None:
    station, _command = await _station(house, tenant_id)
    owner = await house.staff("nordlicht", tenant_id, OWNER)
    assert CARD in (await owner.get(f"/stations/{station}/commands")).text


def test_short_numbers_are_hidden_whole_and_other_texts_stay() -> None:
    assert mask_cards({"idTag": "1234", "vendorId": "1234"}) == {"idTag": "••••", "vendorId": "1234"}
    assert mask_frame('[3,"1",{"status":"Accepted"}]') == '[3,"1",{"status":"Accepted"}]'
    assert CARD not in mask_frame(f'[2,"1","X",{{"idTag":"a\\"{CARD}"}}, broken')
