"""Login for a demonstration, with passwords from a file that only root can read."""

from __future__ import annotations

from secrets import compare_digest
from typing import Any

from jupyterhub.auth import Authenticator
from traitlets import Dict, Unicode


class PasswordFile(Authenticator):  # type: ignore[misc]
    """Authenticates each user by their own password."""

    passwords = Dict(key_trait=Unicode(), value_trait=Unicode(), help="Password by user name.").tag(
        config=True
    )

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """The name of the user if the password is right; otherwise None."""
        expected = self.passwords.get(data["username"])
        given = data["password"]
        if expected is not None and compare_digest(expected.encode(), given.encode()):
            return data["username"]
        return None
