"""Pictures of a calibration: both distributions of distances, and the receiver operating characteristic."""

from pathlib import Path

from matplotlib.figure import Figure

from engines.verification import Pairs, curve
from graphs.calibration import Calibration

SAME, DIFFERENT = "#1b7f4b", "#b3261e"


def histogram(told: Calibration, distances: Pairs, path: Path) -> None:
    """Writes a PNG: the shares of same and different pairs by distance, with the thresholds."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    bins = 80
    span = (0.0, float(max(distances.same.max(), distances.different.max(), 1e-3)))
    for values, name, colour in (
        (distances.same, "one person", SAME),
        (distances.different, "two people", DIFFERENT),
    ):
        shares = [1 / len(values)] * len(values)
        label = f"{len(values)} pairs of {name}"
        axes.hist(values, bins=bins, range=span, weights=shares, alpha=0.6, color=colour, label=label)
    axes.axvline(
        told.present.threshold, color="grey", linestyle="--", label=f"now {told.present.threshold:g}"
    )
    axes.axvline(told.suggested.threshold, color="black", label=f"suggested {told.suggested.threshold:g}")
    axes.set(title=told.model, xlabel="cosine distance", ylabel="share of pairs")
    axes.legend()
    figure.savefig(path, format="png")


def characteristic(told: Calibration, distances: Pairs, path: Path) -> None:
    """Writes a PNG: true accept rate by false accept rate, the latter logarithmic."""
    figure = Figure(figsize=(6, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    line = curve(distances)
    least = 1 / len(distances.different)
    axes.step(line.far.clip(least), line.tar, where="post", color=SAME)
    for point, marker, name in ((told.present, "x", "now"), (told.suggested, "o", "suggested")):
        label = f"{name} {point.threshold:g}"
        axes.plot(max(point.far, least), point.tar, marker, color="black", fillstyle="none", label=label)
    axes.set(title=told.model, xlabel="false accept rate", ylabel="true accept rate", xscale="log")
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, format="png")
