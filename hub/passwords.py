"""Logging in to a demonstration: each user's password stands in a file that root alone reads."""

from __future__ import annotations

from secrets import compare_digest
from typing import Any

from jupyterhub.auth import Authenticator
from traitlets import Dict, Unicode


class PasswordFile(Authenticator):  # type: ignore[misc]
    """Knows each user by a password of their own."""

    passwords = Dict(key_trait=Unicode(), value_trait=Unicode(), help="Password by user name.").tag(
        config=True
    )

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """Name of the user whose password this is; None for anyone else."""
        expected = self.passwords.get(data["username"])
        given = data["password"]
        if expected is not None and compare_digest(expected.encode(), given.encode()):
            return data["username"]
        return None
