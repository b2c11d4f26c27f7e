"""Where changes are captured to, for all who start or remove a capture."""

from __future__ import annotations

from dataclasses import dataclass

from cdc_migrator.capture.start import CaptureOptions
from cdc_migrator.model.outside import Brokers, Workers


@dataclass(frozen=True, slots=True)
class Capturing:
    """Where Connect and Kafka are, and how capture is set up."""

    workers: Workers
    brokers: Brokers
    options: CaptureOptions
