"""What can go wrong between a user and a cluster."""

from __future__ import annotations

from trainables.errors import UserError


class ClusterError(UserError):
    """A cluster cannot be reached, refuses the token, lacks a part, or has no such job."""


TOKEN_HINT = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file that holds the cluster's token"
