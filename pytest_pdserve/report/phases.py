"""Lines on where the time of a session went, and on how long one will take."""

from __future__ import annotations

from pytest_pdserve.plan.forecast import DEFAULTS
from pytest_pdserve.plan.forecast import Forecast
from pytest_pdserve.values.phases import Phase
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.phases import duration_text

_MIN_SHARE = 0.005
"""Share below which a phase is not shown."""


def phase_line(times: SessionTimes) -> str:
    """Return the session's time by phase, the longest first and overhead last, and what it held."""
    total_s = times.total_s
    shares = {phase: seconds / total_s for phase, seconds in times.seconds.items() if total_s}

    def place(phase: Phase) -> tuple[bool, float]:
        return phase == "overhead", -shares[phase]

    shown = [
        f"{phase} {100 * shares[phase]:.0f} %"
        for phase in sorted(shares, key=place)
        if shares[phase] >= _MIN_SHARE
    ]
    parts = [f"{duration_text(total_s)}: {', '.join(shown)}"]
    if times.rerun_s:
        parts.append(f"of this, {duration_text(times.rerun_s)} for reruns")
    if times.held.text:
        parts.append(times.held.text)
    if times.forecast_s is not None:
        parts.append(f"forecast {duration_text(times.forecast_s)}")
        aside_s = total_s - times.forecastable_s
        if aside_s >= _MIN_SHARE * total_s:
            parts[-1] += f", it took {duration_text(times.forecastable_s)} without queue and reruns"
    return "; ".join(parts)


def forecast_line(forecast: Forecast) -> str:
    """Return what a session will take, and how that is known."""
    plural = "s" if forecast.sessions > 1 else ""
    sources = [f"from {forecast.sessions} earlier session{plural}"] if forecast.sessions else []
    sources += [f"from {DEFAULTS}"] if forecast.uses_defaults else []
    starts = f"{_counted(forecast.starts, 'start')} {duration_text(forecast.start_s)}"
    runs = duration_text(forecast.load_s + forecast.rest_s)
    counted = f"{_counted(forecast.runs, 'run')} and all else" if forecast.runs else "all else"
    parts = [
        *([starts] if forecast.starts else []),
        f"{counted} {runs} (load {duration_text(forecast.load_s)})",
    ]
    held = f"; {forecast.held.text}" if forecast.held.text else ""
    about = duration_text(forecast.total_s)
    return f"about {about} ({'; '.join(sources)}): {', '.join(parts)}{held}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
