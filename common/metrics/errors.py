"""Errors of an evaluation: numbers from which no metric may be computed."""

from common.errors import UserError


class InvalidSamplesError(UserError):
    """Generated images hold NaN, infinity or a value outside [-1, 1].

    Usually the training has diverged; the message names the first range of samples concerned.
    """


class NonFiniteFeaturesError(UserError):
    """A feature network answered with NaN or infinity, so that every metric would be NaN.

    Raised before anything is added to a running sum, hence before any decomposition.
    """
