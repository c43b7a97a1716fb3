"""REINFORCE, as an algorithm of Stable-Baselines3."""

import warnings
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv

from sb3_reinforce import baselines, critic, gradients, guards
from sb3_reinforce.actors import Actor, agrees, environment_actions, mlp_actor, policy_actor
from sb3_reinforce.arguments import check_arguments
from sb3_reinforce.batch import Batch, Given, Observations, copied
from sb3_reinforce.buffer import EpisodicRolloutBuffer
from sb3_reinforce.evaluation import Evaluator, cut_graph, depends_on_mode
from sb3_reinforce.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_reinforce.progress import BoundedProgressBarCallback
from sb3_reinforce.quota import EpisodeQuota
from sb3_reinforce.ratios import effective_sample_size, likelihood_ratios
from sb3_reinforce.returns import trajectory_returns
from sb3_reinforce.weights import Family, targets, weights

SelfREINFORCE = TypeVar("SelfREINFORCE", bound="REINFORCE")

#: Models that are learning. No attribute of theirs, which copies and saved files would inherit.
_LEARNING: WeakSet["REINFORCE"] = WeakSet()
#: Rows of rollout storage to begin with; storage doubles as needed.
_INITIAL_ROWS = 128
#: Without a horizon, an episode may last this many steps, or ``total_timesteps`` if that is more.
_ENDLESS = 100_000


class REINFORCE(OnPolicyAlgorithm):
    r"""REINFORCE: the likelihood-ratio policy gradient from m whole trajectories (Williams 1992).

    .. math:: \hat g = \frac{1}{m} \sum_{i=1}^{m} \sum_{t} \nabla \log \pi_\theta(a_{i,t} \mid s_{i,t}) \, R(\tau_i)

    By default exactly that: the full return of the trajectory, no baseline, summed over steps, averaged over
    trajectories, not clipped. Each option that lowers the variance has a name below.

    Paper: https://doi.org/10.1007/BF00992696

    :param policy: The policy model to use (MlpPolicy, CnnPolicy, ...)
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: The learning rate, it can be a function of the current progress remaining (from 1 to 0)
    :param n_episodes: m, number of whole trajectories per update, at least 1
    :param gamma: Discount factor, in (0, 1]
    :param horizon: H, number of steps after which a trajectory is cut, at least 1; None: the environment ends it
    :param return_type: What multiplies each ∇log π: "trajectory", the return R(τ) of the whole trajectory, or
        "reward_to_go", the discounted sum Gₜ of the rewards from that step on
    :param exact_discounting: Whether to weight the reward-to-go of step t with γᵗ, which makes it a gradient of the
        discounted return (Nota & Thomas 2020); return_type="reward_to_go" only, R(τ) is exact as it is
    :param baseline: What is subtracted from it. None; "mean" of the m returns; "leave_one_out", the mean of the other
        m-1 returns; "time_leave_one_out", the mean of the others' rewards-to-go at the same step;
        "moving_average" of the returns of earlier batches; "optimal", the baseline of least variance for each parameter,
        from the other m-1 trajectories; "value", the policy's value network as fitted to earlier batches
    :param normalize_advantage: Whether to shift and scale what multiplies ∇log π to mean 0 and deviation 1 over the
        steps of the batch
    :param ent_coef: Entropy coefficient for the loss calculation, at least 0
    :param max_grad_norm: The maximum norm of the gradient, above 0; None: no clipping
    :param batch_size: Number of steps per forward and backward pass, to bound memory; None: all at once. The
        gradients are accumulated, so the update is the same
    :param vf_coef: Value function coefficient for the loss calculation, at least 0 (baseline="value" only); 0: no fit of the
        value network. That takes steps of its own, so with an optimizer that scales gradients, as Adam does, the size of
        the coefficient hardly matters
    :param n_critic_updates: Number of gradient steps that fit the value network to each batch, after the policy's
        step, at least 1 (baseline="value" only). A features extractor that it shares with the policy is left as it is
    :param bootstrap_truncated: Whether to add γV(s_H) to the last reward of a trajectory that a time limit or the horizon
        cut, as if it went on (Pardo et al. 2018; baseline="value" and return_type="reward_to_go" only, since V is the
        value of the rest there). Off, returns are what the environment paid
    :param n_epochs: Number of gradient steps on each batch, at least 1. From the second on, returns are weighted with the
        likelihood ratio P(τ;θ)/P(τ;θ_old), for rewards-to-go with its product up to each reward (Jie & Abbeel 2010)
    :param min_effective_share: Share of m, in [0, 1], that the effective sample size of the likelihood ratios must
        reach for another step on the same batch (n_epochs above 1 only)
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
    rollout_buffer: EpisodicRolloutBuffer
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
            verbose=verbose,
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
        self._average_return: float | None = None  # of earlier batches
        self._left_at: object = None  # the reset of the environments that this model knows of
        self._first_env = 0  # where several episodes start at once, the environment whose is the first
        self._warned_of_idle_environments = False
        self._warned_of_slow_actor = False

        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        check_arguments(vars(self))
        guards.check_policy_class(self.policy_class)
        if self.rollout_buffer_class is None:
            self.rollout_buffer_class = EpisodicRolloutBuffer
        if self.use_sde and self.sde_sample_freq != 1:
            warnings.warn(
                "gSDE shares one noise matrix between steps, so the log-probability of a trajectory is not the sum over its "
                "steps, and the gradient estimate is not exact. With `sde_sample_freq=1` the noise of each step is its own.",
                stacklevel=3,
            )
        super()._setup_model()
        cut_graph(self.policy.action_dist)  # that of the noise which gSDE's policy is made with

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        check_arguments(vars(self))
        guards.check_buffer_class(self.rollout_buffer_class)
        if self.env is not None and not self._stand_as_left(self.env):
            self._last_obs = None  # so that SB3 resets the environments
        total_timesteps, callback = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        assert self.env is not None
        self._left_at = guards.last_reset(self.env)
        guards.check_own_environment(callback, self.env)
        guards.check_observation(self._last_obs, self.observation_space, self.n_envs)
        self.rollout_buffer.reset()
        self.rollout_buffer.check_next_observation(self._last_obs)  # type: ignore[arg-type]
        if self.n_envs > self.n_episodes and not self._warned_of_idle_environments:
            self._warned_of_idle_environments = True
            warnings.warn(
                f"`n_envs` is {self.n_envs}, but `n_episodes` only {self.n_episodes}: the steps of environments that have no "
                "trajectory of the batch to run are not used. Choose `n_episodes` of two to four times the number of "
                "environments, or fewer environments.",
                stacklevel=4,
            )
        return total_timesteps, callback

    def _stand_as_left(self, env: VecEnv) -> bool:
        """Whether the environments stand at the first steps of episodes, where the last rollout left them."""
        return bool(np.all(self._last_episode_starts)) and guards.last_reset(env) is self._left_at

    def _reset_environments(self, env: VecEnv) -> np.ndarray:
        """Begin new episodes everywhere; returns whether an environment is at the first step of one, bool ``[n_envs]``."""
        self._last_obs = env.reset()  # type: ignore[assignment]
        self._left_at = guards.last_reset(env)
        return np.ones(env.num_envs, dtype=bool)

    def _make_actor(self) -> Actor:
        """Rebuilt each rollout, in case a parameter, a module or a hook was replaced."""
        actor = mlp_actor(self.policy)
        if actor is not None and agrees(actor, self.policy):
            return actor
        if actor is not None and not self._warned_of_slow_actor:
            self._warned_of_slow_actor = True
            warnings.warn(
                "The policy does not just do what its layers say; rollouts ask the policy itself, which is slower.",
                stacklevel=5,
            )
        return policy_actor(self.policy)

    def _given(self, env: VecEnv) -> Given:
        """What the policy is given at a step besides observations, by the name of its argument: here, nothing."""
        return {}

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Collect m whole trajectories of the current policy, the first m that start.

        Environments that wait for the last trajectory to end are still stepped, and these steps count in
        ``num_timesteps``: ``rollout/unused_steps_fraction`` says how many.

        :param env: The training environment
        :param callback: Callback that will be called at each step (and at the beginning and end of the rollout)
        :param rollout_buffer: Buffer to fill with the trajectories
        :param n_rollout_steps: Not used; the number of trajectories ends a rollout
        :return: True if all m trajectories were collected, False if the callback ended collection before
        :raises ValueError: if an environment returns NaN or infinity, or what is no observation, or does not end an episode
        """
        assert isinstance(rollout_buffer, EpisodicRolloutBuffer)
        # Switch to eval mode (this affects batch norm / dropout)
        self.policy.set_training_mode(False)
        # The learning rate is that of the batch's beginning: at its end, a linear schedule would leave 0 for the last batch.
        self._current_progress_remaining = 1 - min(self.num_timesteps / self._total_timesteps, 1)
        rollout_buffer.reset()
        rollout_buffer.gamma = self.gamma  # which may have been set since the buffer was made
        n_steps = 0
        if self.use_sde:
            self._reset_noise(env.num_envs)
        callback.on_rollout_start()

        # After the callback, which may change the policy or an argument, or use the environments.
        check_arguments(vars(self))
        episode_starts = np.ones(env.num_envs, dtype=bool)
        if not self._stand_as_left(env):
            episode_starts = self._reset_environments(env)
        # Until this rollout is whole: whatever interrupts it leaves episodes unfinished, and the next one must reset.
        self._last_episode_starts = ~episode_starts
        act = self._make_actor()
        bounded = environment_actions(self.policy)
        longest = self.horizon or max(self._total_timesteps, _ENDLESS)
        quota = EpisodeQuota(self.n_episodes, env.num_envs, longest, self._first_env % env.num_envs)
        infos_of_batch: dict[int, dict[str, Any]] = {}  # by the number of the episode
        base = env.unwrapped
        values, log_probs, obs_tensor = map(guards.NotComputed, ("values", "log_probs", "obs_tensor"))

        while quota.n_recording > 0:
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                self._reset_noise(env.num_envs)

            given = self._given(env)
            try:
                actions = act(self._last_obs, episode_starts, **given)  # type: ignore[arg-type]
            except Exception:
                guards.check_observation(self._last_obs, self.observation_space, env.num_envs)
                rollout_buffer.check_next_observation(self._last_obs)  # type: ignore[arg-type]
                raise
            # Copies, since an environment may write into what it has returned and into what it is given.
            obs, taken = copied(self._last_obs), actions.copy()  # type: ignore[arg-type]
            clipped_actions = bounded(actions)
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            self.num_timesteps += env.num_envs

            # Give access to local variables
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            guards.check_still_in_episode(base, self._left_at)
            rewards = callback.locals["rewards"]  # which a callback may have replaced
            if n_steps == 0:
                guards.check_step(new_obs, rewards, dones, infos, self.observation_space, env.num_envs)
            n_steps += 1

            rollout_buffer.add(obs, taken, rewards, episode_starts, None, None, quota.recording, **given)
            self._last_obs = new_obs  # type: ignore[assignment]
            episode_starts = np.array(dones, dtype=bool)

            if np.count_nonzero(episode_starts) or n_steps == quota.deadline:
                ended = quota.recording & episode_starts
                infos_of_batch |= {int(quota.numbers[i]): dict(infos[i]) for i in np.flatnonzero(ended)}
                quota.start(episode_starts, n_steps)
                cut = quota.cut(n_steps)
                if self.horizon is None and cut.any():
                    raise ValueError(
                        f"An episode of environment {cut.argmax()} did not end within {quota.max_length} steps. REINFORCE "
                        "needs whole episodes: pass `horizon=` or wrap the environment in `gymnasium.wrappers.TimeLimit`."
                    )
                if self.bootstrap_truncated:
                    rollout_buffer.add_last_observations(truncated_at(ended, cut, infos, new_obs))  # type: ignore[arg-type]
                if quota.n_recording == 0 and quota.n_owed > 0:
                    # All were cut at the horizon: a VecEnv starts new episodes only by a reset of all environments.
                    episode_starts = self._reset_environments(env)
                    quota.start(episode_starts, n_steps)

        rollout_buffer.compute_returns_and_advantage()
        if len(rollout_buffer.lengths) != quota.n_episodes:
            raise RuntimeError(
                f"The rollout is of {len(rollout_buffer.lengths)} trajectories, but {quota.n_episodes} were wanted."
            )
        self._last_episode_starts = episode_starts  # not if an observation was not finite: begin anew then
        self._first_env = (self._first_env + quota.n_episodes) % env.num_envs
        # In order of start: in order of ending, the last ones would be the long ones.
        started = [infos_of_batch[number] for number in sorted(infos_of_batch)]
        self._update_info_buffer(started, np.ones(len(started), dtype=bool))
        n_used = rollout_buffer.lengths.sum()
        self.logger.record("rollout/unused_steps_fraction", 1 - n_used / (n_steps * env.num_envs))
        self.logger.record("rollout/buffer_mb", rollout_buffer.nbytes / 1e6)

        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _reset_noise(self, n_envs: int) -> None:
        with th.no_grad():  # no gradient flows through the noise, and a graph would stay with the policy
            self.policy.reset_noise(n_envs)

    @np.errstate(under="ignore")  # likelihood ratios and weights may be as small as they like
    def train(self) -> None:
        """Take a step along the likelihood-ratio gradient, or several; then fit the value network, if it is the baseline.

        :raises ValueError: if a reward or the gradient is not finite, or an argument was set to what the constructor refuses;
            no step is taken then
        """
        check_arguments(vars(self))  # which a callback may have set since the rollout began
        batch, family = self.rollout_buffer.batch(), self._family()
        evaluator = self._evaluator(batch)
        rewards, learned = self._rewards(evaluator), self._learned(evaluator)
        expected = targets(rewards, batch.lengths, family)
        if self.baseline == "value":
            critic.check_targets(expected)
        old_log_probs: np.ndarray | None = None
        if self.n_epochs > 1 and depends_on_mode(self.policy):
            old_log_probs = evaluator.all_log_probs()
        ratios: np.ndarray | None = None

        self._update_learning_rate(self.policy.optimizer)
        for epoch in range(self.n_epochs):
            if epoch > 0:
                log_ratios = evaluator.all_log_probs() - old_log_probs
                effective = effective_sample_size(log_ratios, batch.lengths)
                self.logger.record("train/effective_sample_size", effective)
                if not effective >= self.min_effective_share * len(batch.lengths):
                    break
                ratios = likelihood_ratios(log_ratios, batch.lengths)
            surrogate = self._update_policy(evaluator, weights(rewards, batch.lengths, family, learned, ratios))
            old_log_probs = surrogate.log_probs if old_log_probs is None else old_log_probs
            self.logger.record("train/n_epochs", epoch + 1)
        if self.baseline == "value":
            self.logger.record("train/explained_variance", explained_variance(np.asarray(learned), expected))
            if self.vf_coef > 0:
                critic.fit(evaluator, expected, surrogate.untouched, self.n_critic_updates, self.vf_coef, self.max_grad_norm)
                self.logger.record("train/value_loss", critic.mean_squared_error(evaluator, expected))
        cut_graph(self.policy.action_dist)
        returns = trajectory_returns(batch.rewards, batch.lengths, self.gamma)
        self._average_return = baselines.moving_average(self._average_return, returns)

        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/n_episodes", len(returns))
        self.logger.record("train/return_mean", returns.mean())
        self.logger.record("train/return_std", returns.std())
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", th.exp(self.policy.log_std).mean().item())

    def trajectory_estimates(self) -> tuple[th.Tensor, th.Tensor]:
        """The estimate that each trajectory of the batch makes alone, whose mean is ĝ, and its score.

        For diagnosis, between ``collect_rollouts`` and ``train``, and without entropy bonus or clipping.

        :return: estimates and scores Σ ∇log π, two tensors ``[m, P]``, for all P parameters of the policy
        """
        batch = self.rollout_buffer.batch()
        evaluator = self._evaluator(batch)
        psi = weights(self._rewards(evaluator), batch.lengths, self._family(), self._learned(evaluator))
        estimates, scores = gradients.trajectory_gradients(evaluator, psi)
        cut_graph(self.policy.action_dist)
        if self.baseline == "optimal":
            estimates = estimates - baselines.optimal(estimates, scores) * scores
        return estimates, scores

    def _family(self) -> Family:
        return Family(self.gamma, self.return_type, self.exact_discounting, self.baseline, self.normalize_advantage)

    def _evaluator(self, batch: Batch) -> Evaluator:
        return Evaluator(self.policy, batch, self.batch_size)

    def _rewards(self, evaluator: Evaluator) -> np.ndarray:
        """Reward of each step, float ``[M]``; if asked, with γV(s_H) at the last one of each trajectory that was cut."""
        rewards = evaluator.batch.rewards
        return critic.bootstrapped(rewards, evaluator, self.gamma) if self.bootstrap_truncated else rewards

    def _learned(self, evaluator: Evaluator) -> np.ndarray | float:
        """What earlier batches have taught of each step: V, float ``[M]``, the average return, or 0."""
        if self.baseline == "value":
            return evaluator.all_values()
        return (self._average_return or 0.0) if self.baseline == "moving_average" else 0.0

    def _update_policy(self, evaluator: Evaluator, psi: np.ndarray) -> gradients.Surrogate:
        """One gradient step of the policy with the weights ψ, float ``[M]``."""
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        surrogate = gradients.accumulate(evaluator, psi, self.ent_coef)
        if self.baseline == "optimal":
            gradients.subtract_optimal_baseline(evaluator, psi)
        grad_norm = gradients.step(self.policy, self.max_grad_norm)
        self._n_updates += 1

        self.logger.record("train/policy_loss", surrogate.policy_loss)
        self.logger.record("train/entropy_loss", -surrogate.entropy)  # as in SB3, the mean over steps
        self.logger.record("train/grad_norm", grad_norm)
        return surrogate

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        if progress_bar:
            given = callback if isinstance(callback, list) else [callback]
            callbacks = [each if isinstance(each, BaseCallback) else ConvertCallback(each) for each in given]
            callback = [*callbacks, BoundedProgressBarCallback()]
        return super()._init_callback(callback)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """Left as ``collect_rollouts`` has set it, when the batch began."""

    def learn(
        self: SelfREINFORCE,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "REINFORCE",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfREINFORCE:
        """Learn for at least ``total_timesteps``: the batch in flight is always completed and used.

        :param total_timesteps: The total number of samples (env steps) to train on, a lower bound
        :param callback: callback(s) called at every step with state of the algorithm.
        :param log_interval: number of batches between logs
        :param tb_log_name: the name of the run for TensorBoard logging
        :param reset_num_timesteps: whether or not to reset the current timestep number (used in logging)
        :param progress_bar: Display a progress bar using tqdm and rich.
        :return: the trained model
        :raises RuntimeError: if it is called while it runs, by a callback
        :raises ValueError: if an argument was set to what the constructor refuses, or an environment returns what it must not
        """
        if self in _LEARNING:
            raise RuntimeError(
                "`learn()` must not be called while it runs, as by a callback: two rollouts would be mixed. Call it when the "
                "first has returned, with `reset_num_timesteps=False` to go on."
            )
        _LEARNING.add(self)
        try:
            return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        finally:
            _LEARNING.discard(self)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As in SB3, and an action of a discrete space whose ``start`` is not 0 is one of that space.

        :raises ValueError: if ``observation`` is a tensor, a list or a tuple
        """
        guards.check_prediction(observation)
        actions, state = super().predict(observation, state, episode_start, deterministic)
        start = getattr(self.action_space, "start", 0)
        return (np.asarray(actions + start) if np.any(start) else actions), state


def truncated_at(
    ended: np.ndarray, cut: np.ndarray, infos: list[dict[str, Any]], new_obs: Observations
) -> dict[int, Observations]:
    """The last observation s_H of each trajectory that a time limit or the horizon cut, by environment.

    :param ended: environments whose recorded episode the environment ended, bool ``[n_envs]``
    :param cut: environments whose recorded episode the horizon cut, bool ``[n_envs]``
    :param infos: what the vectorised environment said of this step
    :param new_obs: the observations after it, those of new episodes where one ended
    """
    observations: dict[int, Observations] = {}
    for index in map(int, np.flatnonzero(ended)):
        last = infos[index].get("terminal_observation")
        if infos[index].get("TimeLimit.truncated", False) and last is not None:
            observations[index] = last
    for index in map(int, np.flatnonzero(cut)):
        going_on = {key: obs[index] for key, obs in new_obs.items()} if isinstance(new_obs, dict) else new_obs[index]
        observations[index] = going_on
    return observations
