"""Rollouts of whole episodes: SB3's on-policy algorithm, with another rule for when a batch is whole."""

from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_reinforce import distributed, guards, parallel
from sb3_reinforce.actors import (
    Actor,
    agrees,
    environment_actions,
    fingerprint,
    make_replacement_check,
    mlp_actor,
    policy_actor,
)
from sb3_reinforce.arguments import check_arguments
from sb3_reinforce.batch import NOTHING, Batch, Given, copied
from sb3_reinforce.buffer import EpisodicRolloutBuffer
from sb3_reinforce.evaluation import Evaluator, cut_graph
from sb3_reinforce.gymnasium_vec_env import resetting_of
from sb3_reinforce.infos import truncated_at
from sb3_reinforce.progress import with_bounded_progress_bars
from sb3_reinforce.quota import NEXT_BATCH, EpisodeQuota
from sb3_reinforce.vec_env import as_vec_env

SelfEpisodic = TypeVar("SelfEpisodic", bound="EpisodicOnPolicyAlgorithm")

#: Models that are learning. An attribute of theirs would be copied and saved with them.
_LEARNING: WeakSet["EpisodicOnPolicyAlgorithm"] = WeakSet()
#: Without a horizon, an episode may last this many steps, or ``total_timesteps`` if that is more.
ENDLESS = 100_000
#: How many later batches may begin while one is finished. With 1, a tenth of the steps of 16 environments is not used, and a
#: fifth of those of 64; with 2, hardly any. With more, the policies that took the steps would be further away.
_N_AHEAD = 2
#: A batch of fewer steps than this is never warned of.
_LONG = 10_000


class Ahead(NamedTuple):
    """What a rollout leaves to the next one, where environments run on."""

    env: VecEnv
    quota: EpisodeQuota
    n_steps: int
    """Number of steps of the rollout that is over."""
    log_probs: list[np.ndarray]
    """For each batch that goes ahead, log π of its actions by the policy of the rollout that is over, float32 ``[M]``."""


class EpisodicOnPolicyAlgorithm(parallel.ParallelAlgorithm):
    """An on-policy algorithm whose batches are m whole trajectories, of one policy unless ``carry_over``.

    A subclass defines ``train()``, and all arguments that ``arguments.py`` checks.
    """

    rollout_buffer: EpisodicRolloutBuffer
    n_episodes: int
    horizon: int | None
    bootstrap_truncated: bool
    carry_over: bool
    batch_size: int | None
    _last_episode_starts: np.ndarray  # None in SB3 until the first reset
    _ahead: Ahead | None = None  # what the last rollout has left, if environments run on
    _first_env = 0  # of episodes that start in one step, the one in this environment is numbered first
    _known_reset: object = None  # the last reset of the environments that this model has seen
    _interrupted = False  # whether the environments were left within a rollout
    _compared: int | None = None  # fingerprint of the policy when the actors were last compared
    _agrees = False  # whether they agreed
    _warned_of_slow_actor = False
    _warned_of_idle_environments = False

    def _maybe_recommend_cpu(self, mlp_class_name: str = "") -> None:
        """SB3 recommends the CPU for multilayer perceptrons. Here one on an accelerator acts on the CPU."""

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return OnPolicyAlgorithm._wrap_env(as_vec_env(env, verbose, monitor_wrapper), verbose, monitor_wrapper)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        super().set_env(env, force_reset)
        if self._ahead is not None and self._ahead.env is not self.env:
            self._ahead = None  # and with it the environments it is of

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._begin_together(total_timesteps)
        return distributed.together(
            lambda: self._setup_here(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        )

    def _setup_here(
        self, total_timesteps: int, callback: MaybeCallback, reset_num_timesteps: bool, tb_log_name: str, progress_bar: bool
    ) -> tuple[int, BaseCallback]:
        """SB3's setup and our checks, in this process alone."""
        check_arguments(vars(self))
        guards.check_episodic_buffer_class(self.rollout_buffer_class)
        self._compared = None
        if self.env is not None and not self._stand_as_left(self.env):
            self._last_obs = None  # so that SB3 resets the environments
        resets = reset_num_timesteps or self._last_obs is None
        total_timesteps, callback = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        assert self.env is not None
        if resets:  # and with it ends the episodes that have gone ahead
            self._ahead = None
        if self._ahead is None:
            self.rollout_buffer.reset()
        self._known_reset, self._interrupted = guards.last_reset(self.env), False
        guards.check_own_environment(callback, self.env)
        self._check_last_observation(self.env, self.rollout_buffer)
        n_here = distributed.share(self.n_episodes)
        # With ``carry_over``, environments that have no trajectory of the batch begin those of the next ones. 24 for 16
        # trajectories leave 14 % of the steps unused where lengths are uniform on 5 to 99, and 32 leave 37 %.
        if self.n_envs > n_here * (1.5 if self.carry_over else 1) and not self._warned_of_idle_environments:
            self._warned_of_idle_environments = True
            guards.warn_of_idle_environments(self.n_envs, self.n_episodes, n_here)
        return total_timesteps, callback

    def _stand_as_left(self, env: VecEnv) -> bool:
        """Whether the environments stand where the last rollout left them: at the first steps of episodes, or running on."""
        run_on = self._ahead is not None and self._ahead.env is env and self.carry_over
        at_first_steps = bool(np.all(self._last_episode_starts)) and not self._interrupted
        return (run_on or at_first_steps) and guards.last_reset(env) is self._known_reset

    def _reset_environments(self, env: VecEnv) -> np.ndarray:
        """Begin new episodes everywhere; returns whether an environment is at the first step of one, bool ``[n_envs]``."""
        self._last_obs = env.reset()  # type: ignore[assignment]
        self._known_reset = guards.last_reset(env)
        self._last_episode_starts = np.ones(env.num_envs, dtype=bool)
        return self._last_episode_starts

    def _make_actor(self) -> Actor:
        """The fast actor if it has the policy's distribution, else the policy itself.

        Rebuilt each rollout, in case a parameter, a module or a hook was replaced.
        """
        fast = self._fast_actor()
        if fast is None:
            return self._policy_actor()
        if (now := fingerprint(self.policy)) != self._compared:
            self._compared, self._agrees = now, self._agree(fast)
        if self._agrees:
            return fast
        if not self._warned_of_slow_actor:
            self._warned_of_slow_actor = True
            guards.warn(
                "The policy has hooks or methods that its layers do not show: rollouts ask the policy itself, which is slower."
            )
        return self._policy_actor()

    def _fast_actor(self) -> Any:
        """An actor in numpy, or None where the policy allows none."""
        return mlp_actor(self.policy)

    def _policy_actor(self) -> Actor:
        """The policy itself as an actor."""
        return policy_actor(self.policy)

    def _agree(self, fast: Any) -> bool:
        """Whether the fast actor has the policy's distribution."""
        return agrees(fast, self.policy)

    def _given(self, env: VecEnv) -> Given:
        """What the policy is given at a step besides observations, by the name of its argument: here, nothing."""
        return NOTHING

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Collect the first m trajectories that start, each to its end. With ``carry_over``, those that an earlier policy has
        begun come first.

        Environments that wait for the last trajectory to end are still stepped, and these steps count in
        ``num_timesteps``: ``rollout/unused_steps_fraction`` says how many. Steps that only reset an environment do not.

        Of processes that train together each collects its share. Whether they go on, they decide together at the end, where
        ``num_timesteps`` becomes that of all.

        :param env: The training environment
        :param callback: Callback that will be called at each step (and at the beginning and end of the rollout)
        :param rollout_buffer: Buffer to fill with the trajectories
        :param n_rollout_steps: Not used; the number of trajectories ends a rollout
        :return: True if all m trajectories were collected, False if the callback ended collection before
        :raises ValueError: if an environment returns NaN or infinity, or what is no observation, or does not end an episode
        :raises RuntimeError: if somebody else resets the environments during the rollout
        """
        assert isinstance(rollout_buffer, EpisodicRolloutBuffer)
        collected = self._collected_together(lambda: self._collect(env, callback, rollout_buffer, n_rollout_steps))
        if collected is None:
            return False
        self._update_info_buffer(collected.infos, np.ones(len(collected.infos), dtype=bool))
        unused = collected.n_taken - collected.n_used
        self.logger.record("rollout/unused_steps_fraction", unused / max(collected.n_taken, 1))
        self.logger.record("rollout/buffer_mb", rollout_buffer.nbytes / 1e6)
        callback.on_rollout_end()
        return True

    def _collect(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: EpisodicRolloutBuffer, n_rollout_steps: int
    ) -> parallel.Collected | None:
        """Collect this process's share of the trajectories. Callbacks can read every local variable here.

        :return: what was collected; None if a callback ended collection before
        """
        quota = self._start_rollout(env, callback, rollout_buffer)
        n_steps, n_taken = 0, 0
        total_timesteps = self._total_timesteps - self._num_timesteps_at_start
        patience: float = max(total_timesteps, _LONG)
        episode_starts = self._last_episode_starts
        act = self._make_actor()
        # Only a callback can replace parameters or modules, and then the actor would look at what they were.
        no_callback = isinstance(callback, ConvertCallback) and callback.callback is None
        replaced = None if no_callback else make_replacement_check(self)
        bounded = environment_actions(self.policy)
        # Environments whose next step only resets them: it belongs to no trajectory. Updated in place, so looked up once.
        resetting = resetting_of(env)
        acted, n_acted = np.ones(env.num_envs, dtype=bool), env.num_envs
        last_reset = guards.make_last_reset(env)
        values, log_probs, obs_tensor = map(guards.NotComputed, ("values", "log_probs", "obs_tensor"))

        callback.update_locals(locals())
        while quota.n_recording > 0:
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                self._reset_noise(env.num_envs)

            given = self._given(env)
            # Copies: a policy may write into its input, and an environment into the observations it returned or its actions.
            try:
                obs = copied(self._last_obs)  # type: ignore[arg-type]
                actions = act(self._last_obs, episode_starts, given)  # type: ignore[arg-type]
            except Exception:
                self._check_last_observation(env, rollout_buffer)
                raise
            taken = actions.copy()
            clipped_actions = bounded(actions)
            if resetting is not None:
                acted = ~resetting
                n_acted = int(np.count_nonzero(acted))
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            if isinstance(rewards, np.ndarray) and rewards.dtype.kind in "iub":  # as ``SubprocVecEnv`` may have
                rewards = rewards.astype(np.float32)  # to which a callback can add
            self._known_reset = last_reset()  # which may be a reset of its own, at the end of episodes
            n_taken += n_acted
            self.num_timesteps += n_acted
            if n_taken > patience:
                patience = np.inf
                guards.warn_of_long_batch(n_taken, total_timesteps, self.n_episodes)

            # Give access to local variables: those that change at each step, which is faster than all
            callback.update_locals(
                {
                    "actions": actions,
                    "clipped_actions": clipped_actions,
                    "new_obs": new_obs,
                    "rewards": rewards,
                    "dones": dones,
                    "infos": infos,
                    "n_steps": n_steps,
                }
            )
            if not callback.on_step():
                return None
            guards.check_still_in_episode(last_reset(), self._known_reset)
            rewards = callback.locals["rewards"]  # which a callback may have replaced
            if n_steps == 0:
                guards.check_step(new_obs, rewards, dones, self.observation_space, env.num_envs)
            n_steps += 1

            recorded = quota.recording if resetting is None else quota.recording * acted
            rollout_buffer.add(obs, taken, rewards, episode_starts, None, None, recorded, given)
            if replaced is not None and replaced():  # after this step is stored, which an actor with memory reads
                act, replaced = self._make_actor(), make_replacement_check(self)
            self._last_obs = new_obs  # type: ignore[assignment]
            episode_starts[:] = dones

            # ``in`` on a list takes a third of the time of any() or np.count_nonzero().
            if True in episode_starts.tolist() or n_steps >= quota.deadline:
                ended, cut = quota.advance(episode_starts, infos, n_steps, resetting)
                if cut and self.horizon is None:
                    guards.refuse_endless_episode(cut[0], quota.max_length)
                if self.bootstrap_truncated:
                    rollout_buffer.add_last_observations(truncated_at(ended, cut, infos, obs, new_obs, acted), acted)  # type: ignore[arg-type]
                if quota.n_recording == 0 and quota.n_owed > 0:
                    # All were cut at the horizon: a VecEnv starts new episodes only by a reset of all environments.
                    episode_starts = self._reset_environments(env)
                    quota.start(episode_starts, n_steps)

        self._finish(env, rollout_buffer, quota, n_steps)
        # In order of start: in order of ending, the last ones would be the long ones.
        started = [info for _, info in sorted(quota.infos[0].items())]
        n_used = int(np.count_nonzero(rollout_buffer.recorded[rollout_buffer.n_carried : rollout_buffer.pos]))
        callback.update_locals(locals())
        return parallel.Collected(started, n_taken, n_used)

    def _start_rollout(self, env: VecEnv, callback: BaseCallback, rollout_buffer: EpisodicRolloutBuffer) -> EpisodeQuota:
        """All that comes before the first step of a rollout; returns which episodes make up the batch."""
        # Switch to eval mode (this affects batch norm / dropout)
        self.policy.set_training_mode(False)
        # The learning rate is that of the batch's beginning: at its end, a linear schedule would leave 0 for the last batch.
        self._current_progress_remaining = 1 - min(self.num_timesteps / max(self._total_timesteps, 1), 1)
        if self._ahead is None:
            rollout_buffer.reset()
        if self.use_sde:
            self._reset_noise(env.num_envs)
        callback.on_rollout_start()
        parallel.share_parameters(self.policy)
        # After the callback, which may change the policy or an argument, or use the environments.
        check_arguments(vars(self))
        rollout_buffer.gamma = self.gamma
        quota = self._begin(env, rollout_buffer)
        # Until this rollout is whole: whatever interrupts it leaves episodes unfinished, and the next one must reset.
        self._interrupted = True
        return quota

    def _check_last_observation(self, env: VecEnv, rollout_buffer: EpisodicRolloutBuffer) -> None:
        """Raise a ``ValueError`` if no policy could act on what the environments returned last."""
        guards.check_observation(self._last_obs, self.observation_space, env.num_envs)
        rollout_buffer.check_next_observation(self._last_obs)  # type: ignore[arg-type]

    def _begin(self, env: VecEnv, rollout_buffer: EpisodicRolloutBuffer) -> EpisodeQuota:
        """Begin a batch, with new episodes in all environments or with those that have gone ahead; returns which these are."""
        # `learn(float("inf"))` leaves the end to a callback.
        longest = int(min(self.horizon or max(self._total_timesteps - self._num_timesteps_at_start, ENDLESS), 2**62))
        n_episodes = distributed.share(self.n_episodes)
        n_ahead = _N_AHEAD if self.carry_over else 0
        stand = self._stand_as_left(env)
        ahead, self._ahead = self._ahead if self.carry_over else None, None
        # If m was 1, a next batch that has begun is of one trajectory, and baselines that compare need two: begin anew.
        if ahead is not None and ahead.quota.n_fixed == 1 and n_episodes > 1:
            stand = False
        if ahead is None or not stand:
            rollout_buffer.reset()
            if not stand:
                self._reset_environments(env)
            return EpisodeQuota(n_episodes, env.num_envs, longest, self._first_env % env.num_envs, n_ahead)
        rollout_buffer.turn_to_next(ahead.log_probs)
        quota = ahead.quota
        quota.turn_to_next(n_episodes, longest, ahead.n_steps)
        quota.start(self._last_episode_starts & (quota.recording == 0), 0)
        if quota.n_recording == 0 and quota.n_owed > 0:  # the horizon has cut all that went ahead
            quota.start(self._reset_environments(env), 0)
        return quota

    def _finish(self, env: VecEnv, rollout_buffer: EpisodicRolloutBuffer, quota: EpisodeQuota, n_steps: int) -> None:
        """Order the batch, and keep what has gone ahead for the next rollout.

        :raises ValueError: if a stored reward or observation is not finite
        :raises RuntimeError: if the batch is not of as many trajectories as were wanted
        """
        rollout_buffer.compute_returns_and_advantage()
        if len(rollout_buffer.lengths) != quota.n_episodes:
            raise RuntimeError(
                f"The rollout is of {len(rollout_buffer.lengths)} trajectories, but {quota.n_episodes} were wanted."
            )
        self._interrupted = False  # not if an observation was not finite: begin anew then
        self._first_env = (self._first_env + quota.n_episodes) % env.num_envs
        if self.carry_over and len(quota.sizes) > 1:  # it may have been set since the rollout began
            log_probs = [self._log_probs(rollout_buffer.batch(NEXT_BATCH + i)) for i in range(len(quota.sizes) - 1)]
            self._ahead = Ahead(env, quota, n_steps, log_probs)

    def _log_probs(self, batch: Batch) -> np.ndarray:
        """log π of each action of a batch, by the policy as it is, float32 ``[M]``."""
        return self._evaluator(batch).all_log_probs() if len(batch.rewards) > 0 else np.empty(0, dtype=np.float32)

    def _evaluator(self, batch: Batch) -> Evaluator:
        return Evaluator(self.policy, batch, self.batch_size)

    def _excluded_save_params(self) -> list[str]:
        # Begun episodes cannot be saved, and what tells objects of this process apart means nothing in another.
        return [*super()._excluded_save_params(), "_ahead", "_compared", "_known_reset"]

    def _reset_noise(self, n_envs: int) -> None:
        with th.no_grad():  # no gradient flows through the noise, and a graph would stay with the policy
            self.policy.reset_noise(n_envs)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        return super()._init_callback(with_bounded_progress_bars(callback, progress_bar))

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """Do nothing: ``collect_rollouts`` has set the progress when the batch began."""

    def learn(
        self: SelfEpisodic,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "EpisodicOnPolicyAlgorithm",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfEpisodic:
        """Learn for at least ``total_timesteps``: the batch in flight is completed and used, unless a callback stops it.

        :param total_timesteps: The total number of samples (env steps) to train on, a lower bound
        :param callback: callback(s) called at every step with state of the algorithm.
        :param log_interval: number of batches between logs
        :param tb_log_name: the name of the run for TensorBoard logging
        :param reset_num_timesteps: whether or not to reset the current timestep number (used in logging)
        :param progress_bar: Display a progress bar using tqdm and rich.
        :return: the trained model
        :raises RuntimeError: if it is called while it runs, if somebody else resets the environments during a rollout, or if
            another process is lost
        :raises ValueError: if an argument was set to what the constructor refuses, or an environment returns what it must not
        """
        if self in _LEARNING:
            raise RuntimeError(
                "`learn()` must not be called while it runs, as by a callback: two rollouts would be mixed. Call it when the "
                "first has returned, with `reset_num_timesteps=False` to go on."
            )
        _LEARNING.add(self)
        try:
            distributed.join()
            learn = super().learn
            learned = distributed.together(
                lambda: learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
            )
            parallel.share_parameters(self.policy)
            return learned
        except BaseException:
            distributed.leave()  # so that no process waits for this one
            raise
        finally:
            _LEARNING.discard(self)
            cut_graph(self.policy.action_dist)  # of an update that was interrupted

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        **given: Any,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As in SB3, and an action of a discrete space whose ``start`` is not 0 is one of that space.

        :param given: what else the policy is given, by the name of its argument
        :raises ValueError: if ``observation`` is a tensor that numpy cannot read, or what gymnasium's ``reset`` returns
        """
        guards.check_prediction(observation)
        actions, state = self.policy.predict(observation, state, episode_start, deterministic, **given)
        start = getattr(self.action_space, "start", 0)
        return (np.asarray(actions + start) if np.any(start) else actions), state
