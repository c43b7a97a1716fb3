"""Callbacks of SB3's kind: what a gradient estimate is worth, and how many trajectories it should be made of."""

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EventCallback

from sb3_reinforce import guards
from sb3_reinforce.arguments import is_above_0, is_count, is_number, require
from sb3_reinforce.distributed import n_processes
from sb3_reinforce.reinforce import REINFORCE


class GradientStatsCallback(BaseCallback):
    r"""Log the quality of each gradient estimate, from the gradients of the single trajectories.

    With :math:`\hat g_i` the estimate that trajectory i makes alone, :math:`\hat g` their mean and P parameters:

    - ``gradient/trace_of_covariance``: :math:`\mathrm{tr}\,\Sigma`, total variance of a single :math:`\hat g_i`
    - ``gradient/squared_norm``: :math:`|\nabla U|^2`, estimated without bias, and so negative now and then. Baselines that
      compare the trajectories of a batch bias it: "leave_one_out" by the factor 1 + 1/(m-1)². So do normalised advantages,
      whose scale is the batch's own
    - ``gradient/signal_to_noise``: :math:`|\nabla U|^2 / (\mathrm{tr}\,\Sigma / m)`, the squared norm over the variance of
      the estimate; NaN where there is neither
    - ``gradient/noise_scale``: :math:`\mathrm{tr}\,\Sigma / |\nabla U|^2`, the number of trajectories at which the two are
      equal, from averages of both over batches; infinite while the averaged signal is not positive
    - ``gradient/cosine_with_last_update``: cosine of :math:`\hat g` and the parameters' last change
    - ``gradient/mean_score_z``: the mean score :math:`E[\sum_t \nabla \log \pi]` is zero when trajectories are draws from
      P(τ;θ); the sum over batches of its component along the mean score of earlier batches, in standard deviations.
      Standard normal in the long run if collection is unbiased, growing with the number of batches if it is not

    Costs two backward passes for each trajectory by itself, which takes several times an update, and memory for m gradients.

    Source: McCandlish et al. (2018), arXiv:1812.06162, appendix A.1, with batches of 1 and m trajectories.

    :param smoothing: share of the earlier batches in the averages for the noise scale, in [0, 1)
    :param z_threshold: mean-score z above which a warning says, once, that collection seems biased. Under unbiased
        collection of 1,000 batches, z exceeds 4 at any time with a probability below 1 %
    :param verbose: verbosity level
    :raises ValueError: if an argument is out of range; when training starts, if a batch is of fewer than 2 trajectories, or
        within a callback that does not tell it of the ends of rollouts, such as ``EveryNTimesteps``
    """

    model: REINFORCE

    def __init__(self, smoothing: float = 0.9, z_threshold: float = 4.0, verbose: int = 0):
        super().__init__(verbose)
        require(is_number(smoothing) and 0 <= smoothing < 1, "`smoothing` must be in [0, 1)", smoothing)
        require(is_above_0(z_threshold), "`z_threshold` must be above 0", z_threshold)
        self.smoothing = smoothing
        self.z_threshold = z_threshold
        self._measured: REINFORCE | None = None
        self._forget()

    def _forget(self) -> None:
        self.noise_scale = np.inf
        self._averages = np.zeros(2)  # of tr Σ and |∇U|²
        self._scores: th.Tensor | None = None  # sum of the mean scores of earlier batches
        self._sum, self._sum_of_squares = 0.0, 0.0  # of the components of the mean scores along those before
        self._parameters: th.Tensor | None = None
        self._warned = False

    def _init_callback(self) -> None:
        if self.model is not self._measured:  # what is known of another model says nothing of this one
            self._forget()
            self._measured = self.model

    def _on_training_start(self) -> None:
        rule = f"{type(self).__name__} must not be within an EventCallback, which passes on no ends of rollouts"
        require(not isinstance(self.parent, EventCallback), f"{rule}: give it to `learn()` beside it", self.parent)
        rule = f"`n_episodes` must be at least 2 for {type(self).__name__}, since a variance needs two trajectories"
        require(self.model.n_episodes >= 2, rule, self.model.n_episodes)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        estimates, scores = (each.double() for each in self.model.trajectory_estimates())
        if len(estimates) < 2:  # no variance can be told, nor what the next update has changed
            self._parameters = None
            return
        if self._scores is not None and self._scores.shape[0] != scores.shape[1]:  # parameters were frozen or freed
            self._scores = self._parameters = None
        estimate = estimates.mean(0)
        trace = estimates.var(0).sum().item()
        variance = trace / len(estimates)
        signal = estimate.square().sum().item() - variance
        self._averages = self.smoothing * self._averages + (1 - self.smoothing) * np.array([trace, signal])
        self.noise_scale = self._averages[0] / self._averages[1] if self._averages[1] > 0 else np.inf

        self.logger.record("gradient/trace_of_covariance", trace)
        self.logger.record("gradient/squared_norm", signal)
        without_noise = np.inf if signal > 0 else np.nan
        self.logger.record("gradient/signal_to_noise", signal / variance if variance > 0 else without_noise)
        self.logger.record("gradient/noise_scale", self.noise_scale)
        self._compare_with_last_update(estimate)
        self._test_scores(scores.mean(0))

    def _compare_with_last_update(self, estimate: th.Tensor) -> None:
        parameters = th.nn.utils.parameters_to_vector(p for p in self.model.policy.parameters() if p.requires_grad)
        parameters = parameters.detach().double()
        if self._parameters is not None:
            change = th.where(estimate != 0, parameters - self._parameters, 0.0)  # without that of the value network
            cosine = th.cosine_similarity(estimate, change, dim=0)
            self.logger.record("gradient/cosine_with_last_update", cosine.item())
        self._parameters = parameters

    def _test_scores(self, mean_score: th.Tensor) -> None:
        """The direction is that of earlier batches, so under the hypothesis each component has mean 0 given the past."""
        if self._scores is None:
            self._scores = th.zeros_like(mean_score)
        else:
            direction = self._scores / self._scores.norm().clamp(min=1e-12)
            component = (mean_score @ direction).item()
            self._sum += component
            self._sum_of_squares += component**2
            z = self._sum / max(np.sqrt(self._sum_of_squares), 1e-12)
            self.logger.record("gradient/mean_score_z", z)
            if z > self.z_threshold and not self._warned:
                self._warned = True
                guards.warn(
                    f"The mean score is {z:.1f} standard deviations from zero: the trajectories do not seem to be draws from "
                    "the policy, so the gradient is biased. Does the environment or a wrapper drop or repeat episodes, or "
                    "does the policy act differently in rollout and update (dropout, batch normalisation, gSDE)?"
                )
        self._scores = self._scores + mean_score


class AdaptiveEpisodesCallback(GradientStatsCallback):
    """Choose the number of trajectories per update by the gradient noise scale, and log what ``GradientStatsCallback`` does.

    With as many trajectories as the noise scale, an update makes about half the progress that a noiseless gradient would;
    fewer waste updates, more waste trajectories (McCandlish et al. 2018). Takes effect with the next rollout, or with
    ``carry_over`` up to two later. Processes that train together have at least one each.

    :param min_episodes: least number of trajectories, at least 2
    :param max_episodes: greatest number of trajectories, at least ``min_episodes``
    :param smoothing: share of the earlier batches in the averages for the noise scale, in [0, 1)
    :param z_threshold: as in ``GradientStatsCallback``
    :param verbose: verbosity level
    :raises ValueError: if an argument is out of range
    """

    def __init__(
        self, min_episodes: int = 2, max_episodes: int = 64, smoothing: float = 0.9, z_threshold: float = 4.0, verbose: int = 0
    ):
        super().__init__(smoothing, z_threshold, verbose)
        require(is_count(min_episodes) and min_episodes >= 2, "`min_episodes` must be an integer of at least 2", min_episodes)
        rule = f"`max_episodes` must be an integer of at least `min_episodes`, {min_episodes}"
        require(is_count(max_episodes) and max_episodes >= min_episodes, rule, max_episodes)
        self.min_episodes = min_episodes
        self.max_episodes = max_episodes

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        at_least = max(self.min_episodes, n_processes())
        self.model.n_episodes = int(np.clip(self.noise_scale, at_least, max(self.max_episodes, at_least)))
