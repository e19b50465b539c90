"""Bearer tokens for MLflow's server, as an identity provider would issue them: for tests.

MLflow loads :func:`authenticate` through ``authorization_function`` of its configuration
(https://mlflow.org/docs/latest/self-hosting/security/basic-http-auth/#custom-authentication).
"""

from __future__ import annotations

import os
import time
from typing import Any

import jwt

KEY_VARIABLE = "TESTS_TOKEN_KEY"


def issue_token(key: str, user: str, seconds: float = 3600) -> str:
    """Return a token that lets a user of the server in for so many seconds (below 0: an expired one)."""
    return jwt.encode({"sub": user, "exp": int(time.time() + seconds)}, key, algorithm="HS256")


def authenticate() -> Any:
    """Let the owner of a token in, and else whoever has a password."""
    from flask import make_response, request
    from mlflow.server.auth import authenticate_request_basic_auth
    from werkzeug.datastructures import Authorization

    given = request.authorization
    if given is None or given.type != "bearer":
        return authenticate_request_basic_auth()
    try:
        claims = jwt.decode(given.token, os.environ[KEY_VARIABLE], algorithms=["HS256"])
    except jwt.InvalidTokenError as error:
        response = make_response("invalid token", 401)
        response.headers["WWW-Authenticate"] = f'Bearer error="invalid_token", error_description="{error}"'
        return response
    return Authorization("basic", {"username": claims["sub"]})
