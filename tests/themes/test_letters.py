"""What somebody wrote says on a page what it shows, and stays text."""

from themes.letters import shown, spelled
from themes.render import environment

MACRO = "{% macro box() %}<i>–{{ caller() }}</i>{% endmacro %}{% call box() %}{{ word }}{% endcall %}"


def test_a_page_shows_no_letter_that_turns_it_and_escapes_each_text_once() -> None:
    page = environment({}).from_string(MACRO).render(word="<b>–\u202eÖ\u2066")
    assert page == "<i>–&lt;b&gt;–Ö</i>"


def test_words_of_every_script_are_shown_as_they_are() -> None:
    for word in ("שרה לוי", "محمد", "👩‍👧", "علی‌رضا", "Anna\nBeck"):
        assert shown(word) == word and spelled(word, layout="\n") == word


def test_what_a_machine_said_is_spelled_for_those_who_ask() -> None:
    assert spelled('{"a": "\u202e\u200b\x07é"}\n', layout="\n") == '{"a": "\\u202e\\u200b\\u0007é"}\n'
