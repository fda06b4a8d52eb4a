"""The REST API of scoped tokens: what code in a sandbox uses in the place of a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers
from rest_framework.response import Response

from corekit.web.fields import Body, Flag, Text, WholeNumber
from corekit.web.paging import Order
from corekit.web.schema import documented, documented_list
from sandboxes import tokens
from sandboxes.api.views import OfSandbox
from sandboxes.e2b.requests import digest, idempotency_key
from tenants.broker import bodyrules, calls, catalogue
from tenants.broker.actions import READ, WRITE
from tenants.broker.wishes import DEFAULT_S, DEFAULT_USES, LONGEST_S, Budget, Wish
from tenants.tokenmodels import ScopedToken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rest_framework.request import Request

    from tenants.broker.actions import Issued

    TokenModel = serializers.ModelSerializer[ScopedToken]
    Plain = serializers.Serializer[Any]
else:
    TokenModel = serializers.ModelSerializer
    Plain = serializers.Serializer

NEWEST = Order(("-created_at", "-id"))
KIND = "scoped_token"
_TAG = "Secrets"
_MICRO = 1_000_000
_MOST_USD = 1_000_000
_FIELDS = (
    *("id", "secret", "service", "allow", "params", "purpose", "not_before", "expires_at", "max_uses", "uses"),
    *("requests_per_minute", "budget", "spent", "created_by", "created_at", "last_used_at", "ended_at", "end_reason"),
)


class CallBody(Body):
    """Calls that a token is good for."""

    methods = serializers.ListField(child=Text(max_length=16), max_length=len(calls.METHODS), min_length=1)
    paths = serializers.ListField(
        child=Text(max_length=calls.MAX_PATH),
        min_length=1,
        max_length=calls.MAX_PATHS,
        help_text="`*` is one segment, `**` at the end is the rest.",
    )
    content_types = serializers.ListField(child=Text(max_length=127), required=False, max_length=calls.MAX_TYPES)
    max_body = WholeNumber(minimum=0, maximum=calls.MAX_BODY, required=False, help_text="Bytes.")


class ParamsBody(Body):
    """What the JSON body of each request may say."""

    model = serializers.ListField(
        child=Text(max_length=bodyrules.MAX_MODEL), required=False, min_length=1, max_length=bodyrules.MAX_MODELS
    )
    max_tokens = WholeNumber(
        minimum=1, maximum=bodyrules.MOST_TOKENS, required=False, help_text="Requests must say so much at most."
    )
    stream = Flag(required=False)


class BudgetBody(Body):
    """What all uses may cost together."""

    bytes_out = WholeNumber(minimum=1, required=False, help_text="Bytes of requests' bodies.")
    tokens = WholeNumber(minimum=1, required=False, help_text="Of the model, as the service counts them.")
    usd = serializers.FloatField(
        min_value=0.000001, max_value=_MOST_USD, required=False, help_text="By the service's price."
    )


class NewTokenBody(Body):
    """A scoped token that is to be issued."""

    secret = Text(max_length=128, help_text="The secret's name.")
    service = Text(max_length=63, required=False, help_text="With `allow`; alone it allows all calls with a name.")
    allowed_apis = serializers.ListField(
        child=Text(max_length=100),
        required=False,
        min_length=1,
        max_length=calls.MAX_CALLS,
        help_text="Calls by name, like `openai/chat/completions`.",
    )
    allow = serializers.ListField(child=CallBody(), required=False, min_length=1, max_length=calls.MAX_CALLS)
    params = ParamsBody(required=False)
    max_uses = WholeNumber(
        minimum=1, maximum=2**31 - 1, default=DEFAULT_USES, allow_null=True, help_text="null is no limit."
    )
    requests_per_minute = WholeNumber(minimum=1, maximum=1_000_000, required=False)
    budget = BudgetBody(required=False)
    starts_in = WholeNumber(minimum=0, maximum=LONGEST_S, default=0, help_text="Seconds until it counts.")
    expires_in = WholeNumber(minimum=1, maximum=LONGEST_S, default=DEFAULT_S, help_text="Seconds from then on.")
    purpose = Text(max_length=200, required=False, allow_blank=True, help_text="What it is for, to be read later.")


class AmountsSerializer(Plain):
    """Parts of a budget; null is no limit."""

    bytes_out = serializers.IntegerField(allow_null=True)
    tokens = serializers.IntegerField(allow_null=True)
    usd = serializers.FloatField(allow_null=True)


class TokenSerializer(TokenModel):
    """A scoped token, without its text."""

    secret = serializers.CharField(source="secret_name", read_only=True)
    allow = serializers.ListField(child=serializers.DictField(), read_only=True)
    params = serializers.DictField(read_only=True)
    budget = serializers.SerializerMethodField()
    spent = serializers.SerializerMethodField()

    class Meta:
        model = ScopedToken
        fields: tuple[str, ...] = _FIELDS
        read_only_fields: tuple[str, ...] = _FIELDS

    def get_budget(self, token: ScopedToken) -> dict[str, float | None]:
        """Return what all uses may cost together."""
        return _amounts(token, "max")

    def get_spent(self, token: ScopedToken) -> dict[str, float | None]:
        """Return what the uses that are over have cost."""
        return _amounts(token, "spent")


def _amounts(token: ScopedToken, kind: str) -> dict[str, float | None]:
    microusd = getattr(token, f"{kind}_microusd")
    return {
        "bytes_out": getattr(token, f"{kind}_bytes_out"),
        "tokens": getattr(token, f"{kind}_tokens"),
        "usd": None if microusd is None else microusd / _MICRO,
    }


class IssuedSerializer(TokenSerializer):
    """A new scoped token with its text, which nobody can show again."""

    type = serializers.CharField(help_text=f"Always `{KIND}`.")
    token = serializers.CharField(help_text="For where the vendor's client wants its key.")
    base_url = serializers.CharField(help_text="Where the sandbox reaches the service.")
    client_url = serializers.CharField(help_text="The base URL for the vendor's own client.")

    class Meta(TokenSerializer.Meta):
        fields = ("type", "token", *_FIELDS, "base_url", "client_url")
        read_only_fields = fields


def issued(one: Issued) -> dict[str, Any]:
    """Return the answer about a new token."""
    service = catalogue.find(one.token.tenant_id, one.token.service)
    url = f"{catalogue.BROKER}/{one.token.service}"
    return {
        "type": KIND,
        "token": one.text,
        **TokenSerializer(one.token).data,
        "base_url": url,
        "client_url": url if service is None else service.client_url,
    }


def wish(body: Mapping[str, Any]) -> Wish:
    """Return what a body asks for."""
    values = dict(body)
    budget = dict(values.pop("budget", {}))
    usd = budget.pop("usd", None)
    return Wish(
        budget=Budget(**budget, microusd=None if usd is None else round(usd * _MICRO)),
        starts_in_s=values.pop("starts_in"),
        expires_in_s=values.pop("expires_in"),
        **values,
    )


class Tokens(OfSandbox):
    """`/sandboxes/{sandbox}/tokens`."""

    @documented_list("list_scoped_tokens", _TAG, "List a sandbox's scoped tokens", item=TokenSerializer, scope=READ)
    def get(self, request: Request, sandbox_id: str) -> Response:
        """List the sandbox's tokens, newest first, those that count no more too; never their text."""
        return self.page(tokens.tokens_of(self.actor, sandbox_id), NEWEST, TokenSerializer)

    @documented(
        "issue_scoped_token",
        _TAG,
        "Issue a scoped token",
        scope=WRITE,
        body=NewTokenBody,
        answer=IssuedSerializer,
        status=201,
    )
    def post(self, request: Request, sandbox_id: str) -> Response:
        """Let code in a sandbox use a secret that it never sees. The text is shown this once.

        With an Idempotency-Key a repeated call gets the same token.
        """
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        one = tokens.issue_token(
            actor=self.actor,
            sandbox_id=sandbox_id,
            wish=wish(self.body(NewTokenBody)),
            idempotency_key=key,
            request_digest=digest(request.data) if key else "",
        )
        return Response(issued(one), status=201)

    @documented("void_scoped_tokens", _TAG, "Revoke all scoped tokens of a sandbox", scope=WRITE)
    def delete(self, request: Request, sandbox_id: str) -> Response:
        """Let no token of the sandbox count any more, at once and for good."""
        tokens.void_tokens(actor=self.actor, sandbox_id=sandbox_id)
        return Response(status=204)


class Token(OfSandbox):
    """`/sandboxes/{sandbox}/tokens/{token}`."""

    @documented("get_scoped_token", _TAG, "Show a scoped token", scope=READ, answer=TokenSerializer)
    def get(self, request: Request, sandbox_id: str, token_id: str) -> Response:
        """Return one token, how often it was used and what that cost; never its text."""
        return Response(TokenSerializer(tokens.token_for(self.actor, sandbox_id, token_id)).data)

    @documented("revoke_scoped_token", _TAG, "Revoke a scoped token", scope=WRITE)
    def delete(self, request: Request, sandbox_id: str, token_id: str) -> Response:
        """Let a token count no more, at once and for good."""
        tokens.revoke_token(actor=self.actor, sandbox_id=sandbox_id, token_id=token_id)
        return Response(status=204)
