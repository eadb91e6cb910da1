"""ETLJob fills arguments: run_job and run_segment work."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

import cbtools as cb
from cbtools.etl import ETLJob, jobs


@pytest.fixture
def called(monkeypatch):
    """Spy on run_job, which does not work then."""
    calls = []

    def spy(*args, **options):
        calls.append((args, options))
        return cb.JobReport(done=2, failed=1)

    monkeypatch.setattr(jobs, "run_job", spy)
    return calls


DEFAULTS = {
    "channel_config": None,
    "delete_after_processing": False,
    "processing_dir": None,
    "progress": True,
}


def test_process_all_is_run_job(called):
    config = {"ticker": {"partition_cols": ["date"]}}
    job = ETLJob("ready", "out", channel_config=config, delete_after_processing=True, processing_dir="taken")
    report = job.process_all()
    given = {"channel_config": config, "delete_after_processing": True, "processing_dir": "taken"}
    assert called == [(("ready", "out"), DEFAULTS | given)]
    assert report.done == 2
    job.process_all()
    assert job.get_stats()["segments_done"] == 4
    assert job.get_stats()["segments_failed"] == 2
    job.reset_stats()
    assert job.get_stats() == {}


@pytest.mark.parametrize(
    ("start", "end", "since", "until"),
    [
        ("2025-11-26", "2025-11-27", date(2025, 11, 26), date(2025, 11, 28)),
        ("2025-11-26", None, date(2025, 11, 26), date(2025, 11, 27)),
        (date(2025, 11, 30), date(2025, 11, 30), date(2025, 11, 30), date(2025, 12, 1)),
        (datetime(2025, 11, 26), datetime(2025, 11, 27, 18), date(2025, 11, 26), date(2025, 11, 28)),
        (datetime(2025, 11, 26, 23, tzinfo=UTC), None, date(2025, 11, 26), date(2025, 11, 27)),
        (
            datetime(2025, 11, 26, 1, tzinfo=timezone(timedelta(hours=2))),
            None,
            date(2025, 11, 25),
            date(2025, 11, 26),
        ),
    ],
)
def test_both_days_of_a_range_are_included(called, start, end, since, until):
    ETLJob("ready", "out").process_date_range(start_date=start, end_date=end)
    assert called == [(("ready", "out"), DEFAULTS | {"since": since, "until": until})]


def test_days_that_are_none_are_refused(called):
    job = ETLJob("ready", "out")
    for start, end in (("26.11.2025", None), ("2025-11-26", "2025-11-25"), (20251126, None), ("", None)):
        with pytest.raises(cb.ConfigError, match=r"start_date|end_date"):
            job.process_date_range(start, end)
    assert called == []


@pytest.mark.ci
def test_a_range_takes_the_segments_of_its_days(input_dir, tmp_path):
    job = ETLJob(input_dir, tmp_path / "out", progress=False)
    n = len(list(input_dir.iterdir()))
    assert job.process_date_range("2025-11-24", "2025-11-25").done == 0
    assert len(list(input_dir.iterdir())) == n
    assert job.process_date_range("2025-11-25", "2025-11-26").done == n
    stats = job.get_stats()
    assert (stats["segments_done"], stats["segments_failed"]) == (n, 0)
    assert stats["errors"] == 2
    written = sum(
        cb.scan_dataset(tmp_path / "out", table).collect().height
        for table in ("level2", "book", "market_trades", "ticker")
    )
    assert stats["records_written"] == written


@pytest.mark.ci
def test_input_is_deleted_only_if_asked_for(input_dir, tmp_path):
    first, second = sorted(input_dir.iterdir())[:2]
    kept, deleting = (
        ETLJob(input_dir, tmp_path / "out", delete_after_processing=delete, progress=False)
        for delete in (False, True)
    )
    report = kept.process_segment(first)
    assert report
    assert first.exists()
    deleting.process_segment(second)
    assert not second.exists()
    assert cb.scan_dataset(tmp_path / "out", "level2").collect().height > report.rows["level2"] > 0
    assert deleting.get_stats()["segments_done"] == 1
    deleting.process_all()
    assert list(tmp_path.rglob("*.ndjson")) == list((tmp_path / "out" / "_quarantine").glob("*.ndjson"))


def test_a_segment_that_fails_is_not_deleted_and_says_why(input_dir, tmp_path):
    bad = input_dir / "segment_20251126T15_00001.ndjson"
    bad.mkdir()
    with pytest.raises(cb.CbtoolsError):
        ETLJob(input_dir, tmp_path / "out", delete_after_processing=True).process_segment(bad)
    assert bad.exists()
    with pytest.raises(cb.ConfigError, match="nowhere"):
        ETLJob(tmp_path / "nowhere", tmp_path / "out", progress=False).process_all()


def test_process_segment_is_run_segment(monkeypatch):
    calls = []

    class Stop(Exception):
        pass

    def spy(*args, **options):
        calls.append((args, options))
        raise Stop

    monkeypatch.setattr(jobs, "run_segment", spy)
    with pytest.raises(Stop):
        ETLJob("ready", "out", channel_config={"ticker": {}}).process_segment("a.ndjson")
    assert calls == [(("a.ndjson", "out"), {"channel_config": {"ticker": {}}, "progress": True})]


def test_the_earlier_packages_options_are_understood(called):
    config = {
        "level2": {
            "processor_options": {"reconstruct_lob": True, "add_derived_fields": True, "max_levels": 5},
        },
        "market_trades": {"processor_options": {"add_derived_fields": True, "infer_aggressor": False}},
        "ticker": {"processor_options": {"add_derived_fields": False}},
    }
    ETLJob(input_dir="ready", output_dir="out", source="coinbase", channel_config=config).process_all()
    ((_, options),) = called
    assert options["channel_config"] == {
        "level2": {"processor_options": {"reconstruct_lob": True, "depth": 5}},
        "market_trades": {"processor_options": {}},
        "ticker": {"processor_options": {}},
    }
    assert config["level2"]["processor_options"]["max_levels"] == 5  # the caller's is left as it is


def test_fields_of_tickers_that_a_job_does_not_derive_are_told():
    with pytest.warns(UserWarning, match="Use TickerProcessor"):
        ETLJob("ready", "out", channel_config={"ticker": {"processor_options": {"add_derived_fields": True}}})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"levle2": {}}, "did you mean 'level2'"),
        ({"level2": {"partition_columns": []}}, "did you mean 'partition_cols'"),
        ({"level2": {"processor_options": {"reconstruct": True}}}, "did you mean 'reconstruct_lob'"),
        ({"level2": {"processor_options": {"max_levels": 5, "depth": 5}}}, "another word for depth"),
        ({"level2": {"processor_options": {"depth": 5, "max_levels": 5}}}, "another word for depth"),
        ({"level2": {"processor_options": {"add_derived_fields": "yes"}}}, "must be true or false"),
        ({"ticker": {"processor_options": {"max_levels": 5}}}, "max_levels"),
        (["level2"], "must be a dict of tables"),
        ({"level2": ["product_id"]}, "must be a dict with"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused_at_once(config, said):
    with pytest.raises(cb.ConfigError, match=said):
        ETLJob("ready", "out", channel_config=config)


def test_a_job_is_of_coinbase_and_stays_as_it_was_made():
    with pytest.raises(cb.ConfigError, match="unknown source 'ibkr'"):
        ETLJob("ready", "out", source="ibkr")
    with pytest.raises(FrozenInstanceError):
        ETLJob("ready", "out").output_dir = "elsewhere"
