"""What a name may be that people read: a driver's, a site's, a card's, a brand's (pure).

One line that says what it shows, in any script, and not without end. `check_name` is for a single name, `name_fault`
for those who gather the faults of a whole form. What we did not write ourselves, a station's words or a name that was
stored before, is taken as it comes and made harmless where it is shown (`themes.letters.shown`).
"""

from app.kernel.errors import FieldFault, Invalid
from themes.language import N_
from themes.letters import is_plain_line

MAX_NAME = 200
_TOO_LONG = N_("This is too long: at most 200 letters.")
_UNSEEN = N_("This holds a character that cannot be printed or seen.")


def name_fault(name: str, field: str = "name", *, most: int = MAX_NAME) -> FieldFault | None:
    """Codes: characters, too_long. Whether it may be empty is for the caller to say."""
    if not is_plain_line(name):
        return FieldFault(field, "characters", _UNSEEN)
    if len(name) > most:
        return FieldFault(field, "too_long", _TOO_LONG.replace(str(MAX_NAME), str(most)))
    return None


def check_name(
    name: str, field: str = "name", *, required: str | None = N_("Give a name."), most: int = MAX_NAME
) -> str:
    """The name without the blanks around it. Invalid of `field`: required (`required` is the sentence; None: it may
    be empty), characters, too_long."""
    cleaned = name.strip()
    if not cleaned and required is not None:
        raise Invalid.field(field, "required", required)
    fault = name_fault(cleaned, field, most=most)
    if fault is not None:
        raise Invalid("invalid", fault.message, faults=[fault])
    return cleaned
