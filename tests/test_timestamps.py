"""Times of submission: time zones are read, and invalid timestamps are reported."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from autograder.record.autograde import time_in


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-01-02 18:00:00 KST", 9),
        ("2026-01-02 18:00:00.000000 UTC", 18),
        ("2026-01-02 18:00:00 Asia/Seoul", 9),
        ("2026-01-02 18:00:00 +0900", 9),
        ("2026-01-02T18:00:00+09:00", 9),
        ("2026-01-02T18:00:00Z", 18),
        ("2026-01-02 18:00:00", 18),
        ("2026-07-02 18:00:00 CEST\n", 16),
    ],
)
def test_a_zone_is_read(tmp_path: Path, text: str, hour: int) -> None:
    (tmp_path / "timestamp.txt").write_text(text)
    month = int(text[5:7])
    assert time_in(tmp_path) == (datetime(2026, month, 2, hour), "")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    text = f"{mark}2026-01-02 18:00:00.000000 Asia/Seoul\r\n"
    (tmp_path / "timestamp.txt").write_bytes(text.encode(encoding))
    assert time_in(tmp_path) == (datetime(2026, 1, 2, 9), "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-01-02 18:00:00 XYZ", "has a time zone that is not known (2026-01-02 18:00:00 XYZ)"),
        ("2026-01-02 18:00:00 Asia/Nowhere", "does not tell a time"),
        ("10:00", "does not tell a time (10:00)"),
        ("10:00 Asia/Seoul", "does not tell a time"),
        ("2026-01", "does not tell a time"),
        ("Friday 18:00", "does not tell a time"),
        ("yesterday evening", "does not tell a time (yesterday evening)"),
        ("", "is empty"),
        ("\x00" * 500, "cannot be read"),
    ],
)
def test_what_tells_no_time_is_said_and_nothing_is_late(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "timestamp.txt").write_text(text)
    at, why = time_in(tmp_path)
    assert at is None
    assert said in why
    assert why.endswith("so nothing is counted as late")


def test_without_a_timestamp_nothing_is_said(tmp_path: Path) -> None:
    assert time_in(tmp_path) == (None, "")
