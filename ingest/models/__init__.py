"""The ledger's tables, by subject."""

from .audits import LedgerAudit, LedgerCoverage
from .events import (
    UNKNOWN,
    DataMode,
    Environment,
    Event,
    Outcome,
    Refusal,
    RefusalReason,
    Rollup,
    ServiceTier,
    WorkspacePolicy,
)
from .limits import Limit, LimitCrossing, Measure, Meter
from .prices import CatalogVersion, ModelAlias, ModelPrice

__all__ = [
    "UNKNOWN",
    "CatalogVersion",
    "DataMode",
    "Environment",
    "Event",
    "LedgerAudit",
    "LedgerCoverage",
    "Limit",
    "LimitCrossing",
    "Measure",
    "Meter",
    "ModelAlias",
    "ModelPrice",
    "Outcome",
    "Refusal",
    "RefusalReason",
    "Rollup",
    "ServiceTier",
    "WorkspacePolicy",
]
