"""How often somebody may try to sign in: counted per account and per address, in memory or in Redis."""

from flask import Flask, current_app, request
from flask_limiter import Limiter

from engine.config import Settings


def count_sign_ins(app: Flask, settings: Settings) -> None:
    """Gives `app` its counters. With a Redis broker every web process counts in the same place."""
    broker = settings.worker.broker
    Limiter(
        _address,
        app=app,
        storage_uri=broker if broker.startswith(("redis://", "rediss://")) else "memory://",
        key_prefix=f"{settings.worker.key_prefix}sign-in",
        strategy="moving-window",
    )


def count_attempt(account: str | None) -> None:
    """Counts one attempt, successful or not; 429 once an account or an address made too many in a minute."""
    limiter: Limiter = next(iter(current_app.extensions["limiter"]))
    web = current_app.extensions["maskloop"].settings.web
    words = "too many sign-in attempts: wait a minute"
    # Shared, so that passwords and links count in one place.
    per_address = f"{web.login_per_address}/minute"
    with limiter.shared_limit(per_address, "sign-in", key_func=_address, error_message=words):
        pass
    if account is not None:
        per_account = f"{web.login_per_account}/minute"
        key = f"account {account}"
        with limiter.shared_limit(per_account, "account", key_func=lambda: key, error_message=words):
            pass


def _address() -> str:
    return request.remote_addr or "unknown"
