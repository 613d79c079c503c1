"""What the repetitions of the control setting say: did the machine itself change while the study ran?

The trend of a setting that was not changed. Its values at each load point are taken relative to their own
mean, averaged over load points within an engine start, and laid against time; the slope of the least-squares
line is the drift. Engine starts are the unit, as everywhere (``tables``): runs within a start share its luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import load_names
from analysis.study import is_control
from sweeper.intervals import t_quantile_975
from sweeper.records import TrialState
from sweeper.records.plurals import amount


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How a metric of the control setting moved over the study, in percent of its mean.

    Attributes:
        metric: A metric column of the store.
        change_pct: From the first engine start to the last, along the line.
        low_pct: Lower end of its 95 % interval; None with two starts, which a line fits in any case.
        high_pct: Upper end.
        starts: Engine starts of the control setting, its own trial's included.
        hours: From the first to the last.
    """

    metric: str
    change_pct: float
    low_pct: float | None
    high_pct: float | None
    starts: int
    hours: float

    @property
    def sentence(self) -> str:
        """Say it in plain words; the interval decides between drift and none seen."""
        over = f"over {_duration_text(self.hours)} and {amount(self.starts, 'engine start')}"
        if self.low_pct is None or self.high_pct is None:
            return (
                f"{self.metric}: {self.change_pct:+.1f} % {over}; "
                "without an interval: expected at least three starts."
            )
        if self.low_pct <= 0 <= self.high_pct:
            bound = max(-self.low_pct, self.high_pct)
            return f"{self.metric}: no drift seen above {bound:.1f} % {over} ({self._interval})."
        return f"{self.metric}: drift of {self.change_pct:+.1f} % {over} ({self._interval})."

    @property
    def _interval(self) -> str:
        return f"change {self.change_pct:+.1f} %, 95 % interval {self.low_pct:+.1f} to {self.high_pct:+.1f} %"


def drift(frame: pd.DataFrame, metric: str) -> Drift | None:
    """Return the trend of the control setting.

    Args:
        frame: Rows of the store, latest attempts, with those of the control setting.
        metric: A metric column of the store.

    Returns:
        The drift; None without a control, or with fewer than two engine starts that have a number.

    Source:
        Ordinary least squares of value on time; the interval of the slope is t-distributed with n - 2 degrees
        of freedom (Draper and Smith, Applied Regression Analysis, chapter 1).
    """
    rows = _of_control_setting(frame)
    if metric not in rows or rows[metric].isna().all():
        return None
    rows = rows[rows["state"].eq(str(TrialState.COMPLETE)) & rows[metric].notna()]
    means = rows.groupby(list(load_names.LOAD_POINT), dropna=False)[metric].transform("mean")
    # Of nothing there is no percentage, such as of answers that the default itself loses.
    rows = rows[means != 0]
    relative = rows.assign(relative=rows[metric] / means, at_s=_seconds(rows["started_at"]))
    # Runs within a load point first, then load points: each point counts alike, however often it was run.
    points = relative.groupby(["trial_key", "restart", *load_names.LOAD_POINT], dropna=False)[
        ["relative", "at_s"]
    ].mean()
    starts = points.groupby(level=["trial_key", "restart"])[["relative", "at_s"]].mean()
    return _trend(metric, times_s=list(starts["at_s"]), values=list(starts["relative"]))


def _trend(metric: str, *, times_s: Sequence[float], values: Sequence[float]) -> Drift | None:
    """Fit the line; ``values`` are relative to the setting's mean, one per engine start."""
    n = len(values)
    if n < 2:
        return None
    times = np.asarray(times_s, dtype=float)
    span = float(times.max() - times.min())
    if span <= 0 or not np.mean(values):
        return None
    centred = times - times.mean()
    relative = np.asarray(values, dtype=float) / float(np.mean(values))
    square = float((centred**2).sum())
    slope = float((centred * relative).sum()) / square
    low = high = None
    if n > 2:
        residuals = relative - relative.mean() - slope * centred
        error = math.sqrt(float((residuals**2).sum()) / (n - 2) / square)
        half = t_quantile_975(n - 2) * error
        low, high = (100 * span * bound for bound in (slope - half, slope + half))
    return Drift(
        metric=metric,
        change_pct=100 * span * slope,
        low_pct=low,
        high_pct=high,
        starts=n,
        hours=span / 3600,
    )


def _of_control_setting(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the repetitions, and the trial of the study that has the same setting: it shows as much."""
    control = frame[is_control(frame)]
    if control.empty:
        return control
    of_setting = ["engine", "model", *(name for name in frame.columns if name.startswith("knob."))]
    first = control.iloc[0]
    same = pd.Series(True, index=frame.index)
    for name in of_setting:
        same &= frame[name].isna() if pd.isna(first[name]) else frame[name].eq(first[name]).fillna(False)
    return frame[same.astype(bool)]


def _seconds(times: pd.Series[pd.Timestamp]) -> pd.Series[float]:
    seconds: pd.Series[float] = (times - times.min()).dt.total_seconds()
    return seconds


def _duration_text(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
