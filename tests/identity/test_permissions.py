"""The table of permissions, printed: a change of rights is a change of this file that somebody reads."""

import os
from pathlib import Path

from app.identity.permissions import PERMISSIONS, ROLES, SCOPES, matrix, permissions_of, permissions_of_scopes

GOLDEN = Path(__file__).parent / "permissions.txt"


def test_the_matrix_of_roles_is_as_it_was_agreed() -> None:
    """`LIVERY_REFRESH=1` writes the file anew."""
    if os.environ.get("LIVERY_REFRESH"):
        GOLDEN.write_text(matrix())
    assert matrix() == GOLDEN.read_text()


def test_an_owner_may_everything_and_a_viewer_changes_nothing() -> None:
    assert permissions_of("owner") == frozenset(PERMISSIONS)
    changing = (".manage", ".command", ".reveal")
    assert not [name for name in permissions_of("viewer") if name.endswith(changing)]
    assert permissions_of("nobody") == frozenset()


def test_a_key_for_all_may_all_but_has_no_login() -> None:
    assert permissions_of_scopes(["all"]) == frozenset(SCOPES)
    assert "self" not in SCOPES
    assert permissions_of_scopes(["stations.view", "gone.view", "self"]) == {"stations.view"}


def test_every_permission_belongs_to_known_roles() -> None:
    assert {role for roles in PERMISSIONS.values() for role in roles} <= set(ROLES)
