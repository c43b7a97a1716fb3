"""Likelihood ratios and the effective sample size, against numbers worked by hand."""

import numpy as np
import pytest

from sb3_reinforce.ratios import effective_sample_size, likelihood_ratios


def test_likelihood_ratios_by_hand() -> None:
    """Products of the ratios from each trajectory's own first step on."""
    ratios = np.array([2.0, 3.0, 0.5, 4.0, 0.25])
    expected = [2.0, 6.0, 0.5, 2.0, 0.5]
    np.testing.assert_allclose(likelihood_ratios(np.log(ratios), np.array([2, 3])), expected, rtol=1e-14)


def test_effective_sample_size_counts_what_weighs() -> None:
    """All, where weights are equal; one, where one outweighs the rest; and less where their mean is far from 1."""
    one_step = np.ones(7, dtype=np.int64)
    assert effective_sample_size(np.zeros(7), one_step) == pytest.approx(7.0)
    assert effective_sample_size(np.log([0.4, 2.0, 0.9]), np.array([1, 2])) == pytest.approx(2.2**2 / (0.4**2 + 1.8**2))
    assert effective_sample_size(np.log([0.1, 0.1, 6.8, 1e-9]), one_step[:4]) == pytest.approx(49 / 46.26)
    for factor in (2.0, 0.5):
        assert effective_sample_size(np.full(7, np.log(factor)), one_step) == pytest.approx(7 / 2)
        assert effective_sample_size(np.log([factor]), one_step[:1]) == pytest.approx(1 / 2)
    assert effective_sample_size(np.array([1e5, 0.0]), one_step[:2]) == 0.0
    assert effective_sample_size(np.array([-1e5, -2e5]), one_step[:2]) == 0.0
    assert np.isnan(effective_sample_size(np.array([np.nan, 0.0]), one_step[:2]))
