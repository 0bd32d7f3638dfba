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
from .limits import Limit, LimitCrossing, Measure, Meter
from .prices import CatalogVersion, ModelAlias, ModelPrice
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
    "LatencySummary",
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
    "RowDeletion",
    "ServiceTier",
    "SpanLevel",
    "SummaryProgress",
    "SummarySpan",
    "UsageSummary",
    "WorkspacePolicy",
]
