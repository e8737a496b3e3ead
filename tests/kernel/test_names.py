"""What a name may be: every script of the world, and nothing that says what it does not show."""

import pytest

from app.kernel.errors import Invalid
from app.kernel.names import MAX_NAME, check_name

GOOD = (
    "Anna Beck", "O’Neill & Söhne GmbH", "x", "名前　太郎", "Ελένη", "محمد العلي", "שרה לוי", "김민준", "Žofie 🚗",
    "मुहम्मद क्‍ष",  # Devanagari, a joiner after the virama
    "র‍্যাব",  # Bengali, a joiner before it
    "നാരായണന്‍",  # Malayalam, a joiner at the end
    "علی‌رضا",  # Persian, a non-joiner between two letters
    "👩‍👩‍👧‍👦", "👩🏽‍🚒", "🏳️‍🌈", "❤️‍🔥", "🙂‍↔️",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",  # a flag told by tag letters
    "1️⃣", "e\u0301", "ä" * MAX_NAME,
)  # fmt: skip
UNSEEN = (
    *(chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)),  # turning
    *"\u200b\u200c\u200d\u2060\ufeff\u00ad\u3164\u2800\u034f",  # nothing to see
    *"\0\x07\n\r\t\x1b\x7f\x85\u2028\u2029", "\ud800", "\U000e0041",
)  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_name_of_any_script_is_taken_as_it_is_written(name: str) -> None:
    assert check_name(f"  {name} ") == name


@pytest.mark.parametrize("letter", UNSEEN, ids=ascii)
def test_a_letter_that_nobody_sees_or_that_turns_the_text_is_refused(letter: str) -> None:
    for name in (
        f"Anna{letter}Beck",
        f"a{letter}b",
        f"אב{letter}ג" if letter not in "\u200c\u200d" else f"א{letter}b",
    ):
        with pytest.raises(Invalid) as refused:
            check_name(name, "label")
        (fault,) = refused.value.faults
        assert (fault.field, fault.code) == ("label", "characters")


def test_a_joiner_joins_emoji_and_scripts_that_know_it_and_hides_nowhere_else() -> None:
    for name in (
        "🚗\u200d",
        "\u200d🚗",
        "👩\u200d\u200d👧",
        "a\u200d🚗",
        "क\u200d",
        "क्\u200d\u200d",
        "x\u200dक",
    ):
        with pytest.raises(Invalid):
            check_name(name)


@pytest.mark.parametrize("name", ["", " \u00a0\u3000 ", "\n"])
def test_a_name_that_is_needed_is_there(name: str) -> None:
    assert check_name(name, required=None) == ""
    with pytest.raises(Invalid) as refused:
        check_name(name, required="The group needs a name.")
    assert refused.value.faults[0].code == "required" and refused.value.message == "The group needs a name."


def test_a_name_has_an_end() -> None:
    with pytest.raises(Invalid) as refused:
        check_name("x" * (MAX_NAME + 1))
    assert refused.value.faults[0].code == "too_long" and str(MAX_NAME) in refused.value.message
    assert check_name("x" * 255, most=255)
