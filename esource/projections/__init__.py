"""Projections: read models kept up to date with the log, each event's effect exactly once if they are in
the same database."""

from esource.database.patience import Retry
from esource.domain.handles import handles
from esource.projections.context import ProjectionContext
from esource.projections.dead_letters import Retried
from esource.projections.projection import Every, Projection
from esource.projections.runner import ProjectionRunner, RunProgress
from esource.projections.versions import active_version

__all__ = [
    "Every",
    "Projection",
    "ProjectionContext",
    "ProjectionRunner",
    "Retried",
    "Retry",
    "RunProgress",
    "active_version",
    "handles",
]
