from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from django.db import transaction

from ingest import retention
from ingest.models import Rollup
from ingest.rollups import dimensions_key, rebuild_rollups
from ingest.services import lock_ledger
from opsmeter_site.lib.periods import QUARTER_HOUR
from tests.ledger import NOON, assert_exact, make_event, make_events, make_workspace, new_event, store_events
from tests.together import run_together

PLAIN = ("openai", "gpt-4o", "/chat", "v1", "prod", "real")


class TestDimensionsKey:
    def test_it_never_changes(self) -> None:
        """Stored keys would no longer be found."""
        assert dimensions_key(*PLAIN, True) == UUID("3234e84d-17b7-a551-dd21-57bb07908d23")

    def test_every_dimension_counts(self) -> None:
        keys = {dimensions_key(*PLAIN, True), dimensions_key(*PLAIN, False)}
        for place in range(len(PLAIN)):
            keys.add(dimensions_key(*PLAIN[:place], "other", *PLAIN[place + 1 :], True))
        assert len(keys) == len(PLAIN) + 2

    def test_separators_inside_values_are_no_way_to_share_a_key(self) -> None:
        assert dimensions_key("a\x1fb", "c", "", "", "", "", True) != dimensions_key(
            "a", "b\x1fc", "", "", "", "", True
        )


@pytest.mark.django_db(transaction=True)
class TestRebuildRollups:
    def test_a_rollup_holds_the_sums_of_its_events(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 2)
        make_event(workspace, status="error", latency_ms=None)
        make_event(workspace, cost_usd=None, price_id=None)
        make_event(workspace, occurred_at=NOON + QUARTER_HOUR)

        first, unpriced, later = Rollup.objects.filter(workspace=workspace).order_by("bucket_start", "-is_priced")

        assert (first.bucket_start, first.requests, first.errors, first.is_priced) == (NOON, 3, 1, True)
        assert (first.uncached_input_tokens, first.cache_read_tokens, first.cache_write_tokens) == (210, 60, 30)
        assert (first.output_tokens, first.reasoning_tokens) == (150, 15)
        assert (first.latency_ms_sum, first.latency_count) == (1800, 2)
        assert first.cost_usd == Decimal("0.030000000003")
        assert first.dimensions_key == dimensions_key(
            "openai", "gpt-4o-mini", "unknown", "unknown", "prod", "real", True
        )
        assert (unpriced.requests, unpriced.cost_usd, unpriced.is_priced) == (1, 0, False)
        assert (later.bucket_start, later.requests) == (NOON + QUARTER_HOUR, 1)

    def test_it_replaces_what_was_wrong_and_removes_what_was_invented(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 3)
        Rollup.objects.filter(workspace=workspace).update(requests=7)
        Rollup.objects.create(
            **_copy_of(Rollup.objects.get(workspace=workspace)) | {"dimensions_key": UUID(int=1), "model": "invented"}
        )

        _rebuild(workspace.id)

        assert list(Rollup.objects.filter(workspace=workspace).values_list("model", "requests")) == [("gpt-4o-mini", 3)]

    def test_other_workspaces_and_other_times_stay_as_they_are(self) -> None:
        workspace, other = make_workspace(), make_workspace()
        make_event(workspace)
        make_event(workspace, occurred_at=NOON + QUARTER_HOUR)
        make_event(other)
        Rollup.objects.update(requests=7)

        _rebuild(workspace.id)

        rows = Rollup.objects.order_by("bucket_start").values_list("workspace_id", "bucket_start", "requests")
        assert set(rows) == {
            (workspace.id, NOON, 1),
            (workspace.id, NOON + QUARTER_HOUR, 7),
            (other.id, NOON, 7),
        }

    def test_rollups_that_outlived_their_rows_are_kept(self) -> None:
        workspace = make_workspace(raw_retention_days=30)
        make_events(workspace, 3)
        retention.purge_workspace(workspace.id, NOON + timedelta(days=31))

        _rebuild(workspace.id)

        assert Rollup.objects.get(workspace=workspace).requests == 3

    def test_it_takes_whole_quarter_hours_only(self) -> None:
        with pytest.raises(ValueError, match="whole quarter hours"):
            rebuild_rollups(UUID(int=1), NOON, NOON + timedelta(minutes=1))

    def test_values_that_contain_the_separator_do_not_collide(self) -> None:
        workspace = make_workspace()
        store_events(
            [
                new_event(workspace, endpoint_tag="a\x1fb", prompt_version="c"),
                new_event(workspace, endpoint_tag="a", prompt_version="b\x1fc"),
            ]
        )
        assert Rollup.objects.filter(workspace=workspace).count() == 2
        assert_exact(workspace)

    def test_two_at_once_leave_what_one_leaves(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 20, apart=timedelta(seconds=30))

        run_together(*[lambda: [_rebuild(workspace.id) for _ in range(5)]] * 4)

        assert_exact(workspace)


def _rebuild(workspace_id: UUID) -> None:
    with transaction.atomic():
        lock_ledger(workspace_id)
        rebuild_rollups(workspace_id, NOON, NOON + QUARTER_HOUR)


def _copy_of(rollup: Rollup) -> dict[str, object]:
    return {
        field.attname: getattr(rollup, field.attname) for field in Rollup._meta.concrete_fields if field.name != "id"
    }
