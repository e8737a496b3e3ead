"""A share is with the platform, the host or the operator: never twice, never lost, in proportion at the end."""

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from app.billing.host_shares import Position, Step, next_step
from app.kernel.money import half_up


def done(at: Position, step: Step) -> Position:
    own = step.minor - step.fee_minor
    if step.kind == "host_transfer":
        return replace(at, sent_minor=at.sent_minor + step.minor, transfer="made")
    if step.kind == "host_reversal":
        return replace(at, taken_back_minor=at.taken_back_minor + step.minor)
    return replace(
        at, given_back_minor=at.given_back_minor + own, fee_given_back_minor=at.fee_given_back_minor + step.fee_minor
    )  # fmt: skip


def refused(at: Position, step: Step) -> Position:
    others = tuple(one for one in at.refused if one[0] != step.kind)
    transfer = "failed" if step.kind == "host_transfer" else at.transfer
    return replace(at, refused=(*others, (step.kind, step.minor)), transfer=transfer)


@given(
    st.integers(1, 10_000), st.data(), st.booleans(),
    st.lists(st.tuples(st.integers(0, 100), st.lists(st.booleans(), max_size=3)), max_size=6),
)  # fmt: skip
def test_whatever_is_refunded_and_refused_a_share_is_in_three_places_and_comes_to_rest(
    captured: int, data: st.DataObject, returns_fee: bool, turns: list[tuple[int, list[bool]]]
) -> None:
    share = data.draw(st.integers(1, captured))
    fee = data.draw(st.integers(0, captured - share))
    at = Position(share_minor=share, fee_minor=fee, captured_minor=captured)
    for percent, outcomes in [(0, []), *turns]:
        returned = max(at.returned_minor, captured * percent // 100)
        at = replace(at, returned_minor=returned, fee_returned_minor=returned if returns_fee else 0)
        answers, calls = iter(outcomes), 0
        while (step := next_step(at)) is not None:
            assert step.minor > 0 and 0 <= step.fee_minor <= step.minor
            at = done(at, step) if next(answers, True) else refused(at, step)
            calls += 1
            assert calls < 10, "it asks for ever"
            assert at.at_host_minor + at.held_minor + at.given_back_minor == share
            assert min(at.at_host_minor, at.held_minor, at.given_back_minor) >= 0
            assert at.fee_given_back_minor <= (fee if returns_fee else 0)
    # Once all that was refused is asked for again and made, everything is where it belongs.
    at = replace(at, refused=(), transfer="none" if at.transfer == "failed" else at.transfer)
    while (step := next_step(at)) is not None:
        at = done(at, step)
    back = half_up(Fraction(share * at.returned_minor, captured))
    assert at.at_host_minor == share - back and at.held_minor == 0
    if at.returned_minor == captured:
        assert (at.at_host_minor, at.given_back_minor) == (0, share)
        assert at.fee_given_back_minor == (fee if returns_fee else 0)


def test_a_share_given_up_goes_back_whole_and_no_transfer_is_tried_again() -> None:
    at = Position(share_minor=500, captured_minor=2000, transfer="failed", refused=(("host_transfer", 500),))
    assert next_step(at) is None
    assert next_step(replace(at, returned_minor=1000)) == Step("fee_refund", 250)
    assert next_step(replace(at, transfer="given_up")) == Step("fee_refund", 500)
    assert next_step(replace(at, transfer="given_up", given_back_minor=500)) is None
