"""Tokens: made, revoked, and how often who may ask."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models.functions import Now

from allocations import errors, sql, tokens, words
from allocations.access import Role
from allocations.models import IdempotentAnswer, Token

from .base import Operations, operation

GIVEN_ROLES = (Role.SCRAPER, Role.VIEWER, Role.OPERATOR, Role.ADMIN)
# An address may have many agents behind it.
ADDRESS_FACTOR = 5


class Granting(Operations):
    """create_token, revoke_token, once, count_request."""

    @operation(Role.VIEWER, "make tokens")
    def create_token(
        self,
        name: str,
        *,
        role: str = "viewer",
        projects: Sequence[str] | None = None,
        expires_at: datetime | None = None,
        user: int | None = None,
    ) -> tuple[Token, str]:
        """A token, and its text, which nobody can ever read again.

        Args:
            name: what it is for; the history names it.
            role: scraper, viewer, operator or admin; at most the caller's own.
            projects: names of the projects it is limited to; None: not limited.
            expires_at: within 366 days; None is 90 days from now.
            user: id of its owner; None is the caller. Only an admin makes tokens for others.

        Raises:
            InvalidName, InvalidValue, UnknownProject.
            NotPermitted: the role is higher than the caller's, or the token would be another's and the caller no
                admin of everything.
        """
        if self.caller.token is not None:
            raise errors.NotPermitted("A token makes no tokens: log in, and make it yourself.")
        wanted = next((r for r in GIVEN_ROLES if r.label == role), None)
        if wanted is None:
            allowed = words.either([r.label for r in GIVEN_ROLES])
            raise errors.InvalidValue(f"role {role!r} is unknown: use {allowed}.", field="role")
        if wanted.within(self.caller.role) is not wanted:
            raise errors.NotPermitted(
                f"A token cannot have the role {role}: yours is {self.caller.role.label}.", field="role"
            )
        if user is not None and user != self.caller.user:
            self.caller.require(Role.ADMIN, "make tokens for others")
            if self.caller.projects is not None:  # whose projects are not the caller's
                raise errors.NotPermitted(
                    "You are limited to some projects, and make tokens for yourself alone.", field="user"
                )
        limited_to = None if projects is None else [self._project(project) for project in projects]
        secret = tokens.new()
        token = Token.objects.create(
            public_id=secret.public_id,
            secret_hash=secret.hash,
            name=words.token_name(name),
            user_id=user if user is not None else self.caller.user,
            role=wanted.label,
            is_limited=limited_to is not None,
            created_by=self.actor,
            expires_at=words.token_expiry(expires_at),
        )
        token.projects.set(limited_to or [])
        return Token.objects.get(pk=token.pk), secret.text

    @operation(Role.VIEWER, "revoke tokens")
    def revoke_token(self, pk: UUID) -> Token:
        """Close a token for good, at once in every process. Revoking one twice changes nothing.

        Raises:
            UnknownToken: there is none, or it is another's and the caller is no admin.
        """
        found = Token.objects.visible_to(self.caller).filter(pk=pk).first()
        if found is None:
            raise errors.UnknownToken("There is no such token.", token=str(pk))
        Token.objects.filter(pk=pk, revoked_at=None).update(revoked_at=Now())
        return Token.objects.get(pk=pk)

    def count_request(self, kind: str, per_minute: int, address: str = "") -> None:
        """Count one request of the caller.

        Args:
            kind: what is counted together: change, audit.
            per_minute: how many of them the caller may make; its address may make five times as many.
            address: where it comes from.

        Raises:
            TooManyRequests: with `retry_after`, in seconds.
        """
        limits = {f"{kind} {self.caller.identity}": per_minute}
        if address:
            limits[f"{kind} address:{address}"] = per_minute * ADDRESS_FACTOR
        wait = sql.count_request(limits)
        if wait:
            seconds = math.ceil(wait)
            raise errors.TooManyRequests(
                f"Too many requests: {per_minute} a minute are served. Wait {seconds} s, and ask less often.",
                retry_after=seconds,
            )

    @operation(Role.VIEWER, "ask")
    def once(
        self, key: str, asked: Mapping[str, Any], do: Callable[[], Mapping[str, Any]]
    ) -> tuple[Mapping[str, Any], bool]:
        """Do something once, however often the caller asks for it by the same key; kept for a day at least.

        Args:
            key: the caller's own name for this request.
            asked: the request, so that another one under the same key is noticed.
            do: does it, in this transaction; what it returns, as JSON, is the answer.

        Returns:
            The answer, and whether it was given before. A refusal is not remembered: nothing was done.

        Raises:
            InvalidValue: the key is none. KeyReused: it came with another request. And what `do` raises.
        """
        fingerprint = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).digest()
        # Of two at once, the second waits here for the end of the first.
        kept, is_new = IdempotentAnswer.objects.get_or_create(
            principal=self.caller.identity, key=words.idempotency_key(key), defaults={"fingerprint": fingerprint}
        )
        if is_new:
            kept.answer = do()
            kept.save(update_fields=["answer"])
        elif bytes(kept.fingerprint) != fingerprint:
            raise errors.KeyReused(
                "This Idempotency-Key came before, with another request: use a new key for a new request.",
                field="Idempotency-Key",
            )
        answer: Mapping[str, Any] = kept.answer or {}
        return answer, not is_new
