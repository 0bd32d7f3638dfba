"""The ledger's tables, by subject."""

from .audits import LedgerAudit, LedgerCoverage
from .deletions import RowDeletion
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
from .exports import ExportChunk, ExportFormat, ExportJob, ExportState, ExportWhat
from .leases import Hold, Lease, LeaseOutcome
from .limits import (
    Limit,
    LimitAdjustment,
    LimitCrossing,
    Measure,
    Meter,
    MeteredScope,
    ScopeKind,
    UnpricedPolicy,
)
from .prices import CatalogVersion, ModelAlias, ModelPrice
from .repricing import Repricing, RepricingDay, RepricingState
from .summaries import (
    AttributionKind,
    AttributionSummary,
    LatencySummary,
    SpanLevel,
    SummaryProgress,
    SummarySpan,
    UsageSummary,
)

__all__ = [
    "UNKNOWN",
    "AttributionKind",
    "AttributionSummary",
    "CatalogVersion",
    "DataMode",
    "Environment",
    "Event",
    "ExportChunk",
    "ExportFormat",
    "ExportJob",
    "ExportState",
    "ExportWhat",
    "Hold",
    "LatencySummary",
    "Lease",
    "LeaseOutcome",
    "LedgerAudit",
    "LedgerCoverage",
    "Limit",
    "LimitAdjustment",
    "LimitCrossing",
    "Measure",
    "Meter",
    "MeteredScope",
    "ModelAlias",
    "ModelPrice",
    "Outcome",
    "Refusal",
    "RefusalReason",
    "Repricing",
    "RepricingDay",
    "RepricingState",
    "Rollup",
    "RowDeletion",
    "ScopeKind",
    "ServiceTier",
    "SpanLevel",
    "SummaryProgress",
    "SummarySpan",
    "UnpricedPolicy",
    "UsageSummary",
    "WorkspacePolicy",
]
