"""REINFORCE, as an algorithm of Stable-Baselines3."""

from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import explained_variance

from sb3_reinforce import baselines, critic, distributed, gradients, guards, parallel
from sb3_reinforce.arguments import check_arguments
from sb3_reinforce.buffer import EpisodicRolloutBuffer
from sb3_reinforce.evaluation import Evaluator, cut_graph, depends_on_mode
from sb3_reinforce.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_reinforce.ratios import effective_sample_size, likelihood_ratios
from sb3_reinforce.returns import last_steps, trajectory_returns
from sb3_reinforce.rollouts import EpisodicOnPolicyAlgorithm
from sb3_reinforce.weights import Family, targets, weights

SelfREINFORCE = TypeVar("SelfREINFORCE", bound="REINFORCE")

#: Rows of rollout storage to begin with; storage doubles as needed.
_INITIAL_ROWS = 128


class REINFORCE(EpisodicOnPolicyAlgorithm):
    r"""REINFORCE: the likelihood-ratio policy gradient from m whole trajectories (Williams 1992).

    .. math:: \hat g = \frac{1}{m} \sum_{i=1}^{m} \sum_{t} \nabla \log \pi_\theta(a_{i,t} \mid s_{i,t}) \, R(\tau_i)

    By default exactly that: the full return of the trajectory, no baseline, summed over steps, averaged over
    trajectories, not clipped. Each option that lowers the variance has a name below.

    Paper: https://doi.org/10.1007/BF00992696

    :param policy: The policy model to use (MlpPolicy, CnnPolicy, ...)
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: The learning rate, it can be a function of the current progress remaining (from 1 to 0)
    :param n_episodes: m, number of whole trajectories per update, at least 1
    :param gamma: Discount factor, in [0, 1]
    :param horizon: H, number of steps after which a trajectory is cut, at least 1; None: the environment ends it
    :param return_type: What multiplies each ∇log π: "trajectory", the return R(τ) of the whole trajectory, or
        "reward_to_go", the discounted sum Gₜ of the rewards from that step on
    :param exact_discounting: Whether to weight the reward-to-go of step t with γᵗ, which makes it a gradient of the
        discounted return (Sutton et al. 2000; Nota & Thomas 2020); return_type="reward_to_go" only, R(τ) is exact as it is
    :param baseline: What is subtracted from the return. None; "mean" of the m returns; "leave_one_out", the mean of the other
        m-1 returns; "time_leave_one_out", the mean of the others' rewards-to-go at the same step (with rewards-to-go only);
        "moving_average" of the returns of earlier batches; "optimal", the baseline of least variance for each parameter,
        from the other m-1 trajectories (with rewards-to-go, take m of 4 or more; not with ``normalize_advantage``,
        ``carry_over`` or ``n_epochs`` above 1); "value", the policy's value network as fitted to earlier batches
    :param normalize_advantage: Whether to shift and scale what multiplies ∇log π to mean 0 and deviation 1 over the
        steps of the batch. Where all m returns are the same, it is made 0: no trajectory was better than another
    :param ent_coef: Entropy coefficient for the loss calculation, at least 0
    :param max_grad_norm: The maximum norm of the gradient, above 0; None: no clipping. It clips the steps that fit the value
        network, too
    :param batch_size: Number of steps per forward and backward pass, to bound memory; None: as many as fit in 64 MiB. The
        gradients are accumulated, so the update is the same
    :param vf_coef: Value function coefficient for the loss calculation, at least 0 (baseline="value" only); 0: the value
        network is not fitted. The fit takes steps of its own, so with an optimizer that scales gradients, as Adam does, the
        size of the coefficient hardly matters
    :param n_critic_updates: Number of gradient steps that fit the value network to each batch, after the policy's
        step, at least 1 (baseline="value" only). No parameter that log π depends on is moved
    :param bootstrap_truncated: Whether to add γV(s_H) to the last reward of a trajectory that a time limit or the horizon
        cut, as if it went on (Pardo et al. 2018; baseline="value" and return_type="reward_to_go" only, since V is the
        value of the rest there). Off, returns are what the environment paid
    :param n_epochs: Number of gradient steps on each batch, at least 1. From the second on, returns are weighted with the
        likelihood ratio P(τ;θ)/P(τ;θ_old), for rewards-to-go with its product up to each reward (Jie & Abbeel 2010)
    :param min_effective_share: Share of m, in [0, 1], that the effective sample size of the likelihood ratios must
        reach for another step on the same batch (n_epochs above 1 only)
    :param carry_over: Whether to keep episodes that environments begin while the batch waits for its last. They go on under
        the next policy, as the first of the next batches. Returns are weighted with the likelihood ratio of the steps that
        an earlier policy took. Environments are then not reset between rollouts, unless the horizon has cut every running
        episode
    :param use_sde: Whether to use generalized State Dependent Exploration (gSDE) instead of action noise exploration
    :param sde_sample_freq: Sample a new noise matrix every n steps when using gSDE; -1: only at the beginning of the
        rollout. With 1 the noise of different steps is independent, as the estimate takes it to be. Not even then is it
        exact for hidden layers: SB3 passes no gradient through the features that scale the noise
    :param rollout_buffer_class: Rollout buffer class to use, a subclass of ``EpisodicRolloutBuffer``
    :param rollout_buffer_kwargs: Keyword arguments to pass to the rollout buffer on creation
    :param stats_window_size: Window size for the rollout logging, specifying the number of episodes to average the
        reported success rate, mean episode length, and mean reward over
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation
    :param verbose: Verbosity level: 0 for no output, 1 for info messages (such as device or wrappers used), 2 for
        debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run.
        Setting it to auto, the code will be run on the GPU if possible.
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises ValueError: if an argument is out of its range, or undefined in combination with another
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    max_grad_norm: float | None  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        n_episodes: int = 16,
        gamma: float = 0.99,
        horizon: int | None = None,
        return_type: str = "trajectory",
        exact_discounting: bool = False,
        baseline: str | None = None,
        normalize_advantage: bool = False,
        ent_coef: float = 0.0,
        max_grad_norm: float | None = None,
        batch_size: int | None = None,
        vf_coef: float = 0.5,
        n_critic_updates: int = 5,
        bootstrap_truncated: bool = False,
        n_epochs: int = 1,
        min_effective_share: float = 0.75,
        carry_over: bool = False,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=_INITIAL_ROWS,
            gamma=gamma,
            gae_lambda=1.0,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,  # type: ignore[arg-type]
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose if distributed.rank() == 0 else 0,
            seed=seed,
            device=device,
            _init_setup_model=False,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
        )
        # Under their own names and unconverted, since load(path, **kwargs) writes them and calls _setup_model().
        self.n_episodes = n_episodes
        self.horizon = horizon
        self.return_type = return_type
        self.exact_discounting = exact_discounting
        self.baseline = baseline
        self.normalize_advantage = normalize_advantage
        self.batch_size = batch_size
        self.n_critic_updates = n_critic_updates
        self.bootstrap_truncated = bootstrap_truncated
        self.n_epochs = n_epochs
        self.min_effective_share = min_effective_share
        self.carry_over = carry_over
        self._average_return: float | None = None  # of earlier batches

        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        check_arguments(vars(self))
        self._check_policy_class()
        guards.check_observation_space(self.observation_space)
        if self.rollout_buffer_class is None:
            self.rollout_buffer_class = EpisodicRolloutBuffer
        guards.check_rollout_buffer_class(self.rollout_buffer_class)
        if self.use_sde and self.sde_sample_freq != 1:
            guards.warn(
                "gSDE shares one noise matrix between steps, so the log-probability of a trajectory is not the sum over its "
                "steps, and the gradient estimate is not exact. With `sde_sample_freq=1` the noise of each step is its own."
            )
        self._build()

    def _check_policy_class(self) -> None:
        guards.check_policy_class(self.policy_class)

    def _build(self) -> None:
        """The learning rate's schedule, seeds, the buffer and the policy, as SB3 makes them."""
        super()._setup_model()
        cut_graph(self.policy.action_dist)  # a policy with gSDE is made with a first noise, which has a graph

    @np.errstate(under="ignore")  # likelihood ratios and weights may be as small as they like
    def train(self) -> None:
        """Take a step along the likelihood-ratio gradient, or several; then fit the value network, if it is the baseline.

        :raises ValueError: before any step, if a reward is not finite, an argument is one that the constructor refuses, or
            returns are too large for a value network in float32; and if a gradient is not finite, with which no step is taken
        """
        check_arguments(vars(self))  # which a callback may have set since the rollout began
        batch = parallel.joined(self, self.rollout_buffer.batch)
        evaluator = self._evaluator(batch)
        rewards, learned = self._rewards(evaluator), self._learned(evaluator)
        if self.baseline == "value":
            expected = targets(rewards, batch.lengths, self._family())
            critic.check_targets(expected)
        self._update_learning_rate(self.policy.optimizer)
        surrogate = self._update_policy(evaluator, rewards, learned)
        if self.baseline == "value":
            self.logger.record("train/explained_variance", explained_variance(np.asarray(learned), expected))
            if self.vf_coef > 0:
                loss = critic.fit(
                    evaluator, expected, surrogate.untouched, self.n_critic_updates, self.vf_coef, self.max_grad_norm
                )
                self.logger.record("train/value_loss", loss)
        cut_graph(self.policy.action_dist)
        parallel.share_buffers(self.policy)
        returns = trajectory_returns(batch.rewards, batch.lengths, self.gamma)
        self._average_return = baselines.moving_average(self._average_return, returns)

        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/n_episodes", len(returns))
        self.logger.record("train/return_mean", returns.mean())
        self.logger.record("train/return_std", returns.std())
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", th.exp(self.policy.log_std).mean().item())

    def trajectory_estimates(self) -> tuple[th.Tensor, th.Tensor]:
        """The estimate from each trajectory alone, and its score. The mean of the estimates is ĝ.

        For diagnosis, between ``collect_rollouts`` and ``train``, and without entropy bonus or clipping. Processes that train
        together get those of all, and must call this together.

        :return: estimates and scores Σ ∇log π, two tensors ``[m, P]``, for all P trainable parameters of the policy; scores of
            carried trajectories are weighted with their likelihood ratios
        :raises ValueError: if a reward is not finite
        """
        batch = parallel.joined(self, self.rollout_buffer.batch)
        evaluator = self._evaluator(batch)
        log_ratios = self._carried_log_ratios(evaluator)
        carried = None if log_ratios is None else likelihood_ratios(log_ratios, batch.lengths)
        rewards, learned = self._rewards(evaluator), self._learned(evaluator)
        psi = weights(rewards, batch.lengths, self._family(), learned, carried, carried)
        estimates, scores = gradients.trajectory_gradients(evaluator, psi)
        if carried is not None:
            scores *= batch.to_torch(carried[last_steps(batch.lengths)])[:, None]
        cut_graph(self.policy.action_dist)
        if self.baseline == "optimal":
            estimates = estimates - baselines.optimal(estimates, scores) * scores
        return estimates, scores

    def _family(self) -> Family:
        return Family(self.gamma, self.return_type, self.exact_discounting, self.baseline, self.normalize_advantage)

    def _rewards(self, evaluator: Evaluator) -> np.ndarray:
        """Reward of each step, float ``[M]``; if asked, with γV(s_H) at the last one of each trajectory that was cut."""
        rewards = evaluator.batch.rewards
        return critic.bootstrapped(rewards, evaluator, self.gamma) if self.bootstrap_truncated else rewards

    def _learned(self, evaluator: Evaluator) -> np.ndarray | float:
        """What earlier batches have taught of each step: V, float ``[M]``, the average return, or 0."""
        if self.baseline == "value":
            return evaluator.all_values()
        return (self._average_return or 0.0) if self.baseline == "moving_average" else 0.0

    def _carried_log_ratios(self, evaluator: Evaluator) -> np.ndarray | None:
        """log π - log π_earlier of the steps that an earlier policy took, 0 of the others, float32 ``[M]``; None: none was."""
        earlier = evaluator.batch.earlier_log_probs
        fresh = np.isnan(earlier)
        return None if fresh.all() else np.where(fresh, np.float32(0), evaluator.all_log_probs() - earlier)

    def _update_policy(self, evaluator: Evaluator, rewards: np.ndarray, learned: np.ndarray | float) -> gradients.Surrogate:
        """``n_epochs`` gradient steps of the policy, or fewer: none follows once too few trajectories count.

        :param rewards: reward of each step, float ``[M]``
        :param learned: what earlier batches have taught of each step, float ``[M]`` or one number
        :return: what the last step has computed
        """
        lengths = evaluator.batch.lengths
        # Ratios compare log π in evaluation mode, as in the rollout. Where training mode gives the same, the first step's own
        # log π spares this pass.
        old_log_probs = evaluator.all_log_probs() if self.n_epochs > 1 and depends_on_mode(self.policy) else None
        carried_log_ratios = log_ratios = self._carried_log_ratios(evaluator)
        carried = ratios = None
        if carried_log_ratios is not None:
            carried = ratios = likelihood_ratios(carried_log_ratios, lengths)
            effective = effective_sample_size(carried_log_ratios, lengths)
            self.logger.record("train/carried_effective_sample_size", effective)
        for epoch in range(self.n_epochs):
            if epoch > 0:
                log_ratios = evaluator.all_log_probs() - old_log_probs
                if carried_log_ratios is not None:
                    log_ratios += carried_log_ratios
                effective = effective_sample_size(log_ratios, lengths)
                self.logger.record("train/effective_sample_size", effective)
                if not effective >= self.min_effective_share * len(lengths):  # nor where it is NaN
                    break
                ratios = likelihood_ratios(log_ratios, lengths)
            psi = weights(rewards, lengths, self._family(), learned, ratios, carried)
            surrogate = self._step(evaluator, psi, log_ratios)
            old_log_probs = surrogate.log_probs if old_log_probs is None else old_log_probs
            self.logger.record("train/n_epochs", epoch + 1)
        return surrogate

    def _step(self, evaluator: Evaluator, psi: np.ndarray, log_ratios: np.ndarray | None) -> gradients.Surrogate:
        """One gradient step of the policy.

        :param psi: ψ of each step, float ``[M]``
        :param log_ratios: log π - log π_old of each action taken, float ``[M]``; None: the batch is of this policy
        """
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        surrogate = gradients.accumulate(evaluator, psi, self.ent_coef, log_ratios)
        if self.baseline == "optimal":
            gradients.subtract_optimal_baseline(evaluator, psi)
        grad_norm = gradients.step(self.policy, self.max_grad_norm)
        self._n_updates += 1

        self.logger.record("train/policy_loss", surrogate.policy_loss)
        self.logger.record("train/entropy_loss", -surrogate.entropy)  # as in SB3, the mean over steps
        self.logger.record("train/grad_norm", grad_norm)
        return surrogate

    def learn(
        self: SelfREINFORCE,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "REINFORCE",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfREINFORCE:
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
