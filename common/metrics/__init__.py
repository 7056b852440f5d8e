"""Metrics of generated images (specification, section 6).

What is here needs no TensorFlow; the evaluation itself is `common.metrics.evaluation`.
"""

from common.metrics.errors import InvalidSamplesError, NonFiniteFeaturesError
from common.metrics.metric import Metric, MetricInputs, StreamingMetric
from common.metrics.protocols import PROTOCOLS, Protocol
from common.metrics.rows import (
    DEFAULT_METRICS,
    FEATURE_NETWORKS,
    METRICS,
    FeatureNetworkRow,
    NetworkFiles,
    chosen_metrics,
    open_network,
    parse_metrics,
)

__all__ = [
    "DEFAULT_METRICS",
    "FEATURE_NETWORKS",
    "METRICS",
    "PROTOCOLS",
    "FeatureNetworkRow",
    "InvalidSamplesError",
    "Metric",
    "MetricInputs",
    "NetworkFiles",
    "NonFiniteFeaturesError",
    "Protocol",
    "StreamingMetric",
    "chosen_metrics",
    "open_network",
    "parse_metrics",
]
