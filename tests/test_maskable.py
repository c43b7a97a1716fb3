"""MaskableREINFORCE: the gradient under masks, what is sampled, whatever offers masks, and what is refused."""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import SpacesEnv, vectorized
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from oracle import (
    MASKED,
    UNBIASED_FROM_ANOTHER,
    UNBIASED_WHEREVER,
    TabularMDP,
    exact_gradient,
    expected_estimate,
    expected_second_estimate,
    horizon_for,
    probability,
    trajectories,
)
from oracle import make_model as make_tabular_model
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

pytest.importorskip("sb3_contrib")
from sb3_contrib.common.envs import InvalidActionEnvDiscrete, InvalidActionEnvMultiBinary, InvalidActionEnvMultiDiscrete
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.wrappers import ActionMasker

import sb3_reinforce
from sb3_reinforce import REINFORCE, GymnasiumVecEnv, MaskableREINFORCE
from sb3_reinforce.actors import MlpActor
from sb3_reinforce.contrib import maskable
from sb3_reinforce.contrib.masks import MaskRule
from sb3_reinforce.evaluation import Evaluator

ROUNDING = 2e-6
SMALL = {"net_arch": [4]}
ACTION_SPACES = {
    "discrete": spaces.Discrete(4),
    "discrete from 5": spaces.Discrete(4, start=5),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)


class Strict(gym.Wrapper[Any, Any, Any, Any]):
    """Offers other actions at each step, and takes no other ones.

    :param env: an environment whose actions can be masked
    :param seed: of what it offers
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int = 0):
        super().__init__(env)
        self.generator = np.random.default_rng(seed)
        self.n_choices = MaskRule(env.action_space).n_choices
        self.n_taken = 0

    def offer(self) -> None:
        masks = [self.generator.random(n) < 0.5 for n in self.n_choices]
        for mask in masks:
            mask[self.generator.integers(len(mask))] = True
        self.mask = np.concatenate(masks)

    def action_masks(self) -> np.ndarray:
        return self.mask

    def reset(self, **kwargs: Any) -> Any:
        self.offer()
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        parts = np.split(self.mask, np.cumsum(self.n_choices)[:-1])
        start = getattr(self.action_space, "start", 0)
        for part, chosen in zip(parts, np.atleast_1d(action - start), strict=True):
            assert part[int(chosen)], f"{action} is not in {self.mask}"
        self.n_taken += 1
        self.offer()
        return super().step(action)


def strict(action_space: spaces.Space[Any], observation_space: spaces.Space[Any] | None = None, seed: int = 0) -> Strict:
    box = spaces.Box(-1, 1, (3,), np.float32)
    return Strict(SpacesEnv(observation_space or box, action_space, length=5 + seed, seed=seed), seed)


def make_batch_model(n_episodes: int, **options: Any) -> MaskableREINFORCE:
    env = make_vec_env(lambda: TabularMDP(mdp=MASKED), n_envs=n_episodes)
    return make_tabular_model(env, MaskableREINFORCE, n_episodes=n_episodes, **options)


def test_what_is_not_offered_is_part_of_no_trajectory():
    model = make_batch_model(1)
    assert sum(probability(model, trajectory).item() for trajectory in trajectories(3, MASKED)) == pytest.approx(1.0)


@pytest.mark.parametrize(("n_episodes", "options"), UNBIASED_WHEREVER)
def test_the_estimate_is_unbiased_under_masks(n_episodes, options):
    model, horizon = make_batch_model(n_episodes, **options), horizon_for(n_episodes)
    exact = exact_gradient(model, horizon, MASKED)
    assert th.allclose(expected_estimate(model, horizon, MASKED), exact, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(("n_episodes", "options"), UNBIASED_FROM_ANOTHER)
def test_a_second_use_of_a_batch_is_unbiased_under_masks(n_episodes, options):
    model = make_batch_model(n_episodes, n_epochs=2, min_effective_share=0.0, **options)
    expected, exact = expected_second_estimate(model, horizon_for(n_episodes), MASKED)
    assert th.allclose(expected, exact, atol=5 * ROUNDING, rtol=0)


def test_an_update_that_ignored_the_masks_would_be_seen(monkeypatch):
    model = make_batch_model(1)
    with_masks = Evaluator.log_probs
    monkeypatch.setattr(Evaluator, "log_probs", lambda self, part: with_masks(self, part._replace(given={})))
    difference = expected_estimate(model, 3, MASKED) - exact_gradient(model, 3, MASKED)
    assert difference.abs().max() > 1000 * ROUNDING


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
@pytest.mark.parametrize("n_envs", [1, 3])
def test_only_what_is_offered_is_taken_and_masks_are_stored_with_their_steps(action_space, n_envs):
    envs = [strict(action_space, seed=i) for i in range(n_envs)]
    model = MaskableREINFORCE("MlpPolicy", vectorized(*envs), n_episodes=3, policy_kwargs=SMALL, seed=0)
    model.learn(100)
    assert isinstance(model._make_actor(), MlpActor)
    assert sum(env.n_taken for env in envs) >= 100
    batch = model.rollout_buffer.batch()
    (part,) = batch.parts()
    log_probs = model.policy.get_distribution(part.observations, part.given["action_masks"]).log_prob(part.actions)
    assert (log_probs > -20).all()  # with the mask of another step, some would be -1e8
    assert not part.given["action_masks"].all()


@pytest.mark.parametrize("observation_space", [IMAGE, spaces.Dict(a=IMAGE, b=spaces.Discrete(3))], ids=["image", "dict"])
def test_the_policy_itself_takes_only_what_is_offered(observation_space):
    policy = "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "CnnPolicy"
    env = vectorized(*(strict(ACTION_SPACES["multi-discrete"], observation_space, seed=i) for i in range(2)))
    model = MaskableREINFORCE(policy, env, n_episodes=2, policy_kwargs=SMALL, baseline="value", seed=0)
    model.learn(12)
    assert not isinstance(model._make_actor(), MlpActor)


@pytest.mark.parametrize("action_space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)], ids=str)
def test_the_fast_actor_samples_the_policys_distribution(action_space):
    model = MaskableREINFORCE("MlpPolicy", strict(action_space), policy_kwargs=SMALL, seed=0)
    with th.no_grad():
        model.policy.action_net.weight.normal_(generator=th.Generator().manual_seed(0))
    actor, n = model._make_actor(), 4000
    obs = np.tile(np.array([[0.5, -1.0, 0.25]], dtype=np.float32), (n, 1))
    model._vec_env = model.get_env()
    model.get_env().reset()
    mask = model._given(model.get_env())["action_masks"]
    actions = actor(obs, np.zeros(n, dtype=bool), {"action_masks": np.repeat(mask, n, axis=0)})
    assert isinstance(actor, MlpActor)
    taken, counts = np.unique(actions, axis=0, return_counts=True)
    distribution = model.policy.get_distribution(th.as_tensor(obs[: len(taken)]), np.repeat(mask, len(taken), axis=0))
    probabilities = distribution.log_prob(th.as_tensor(taken)).exp().detach().numpy()
    assert probabilities.sum() == pytest.approx(1.0, abs=0.02)  # what was not taken is rare
    assert np.abs(counts / n - probabilities).max() < 4 * 0.5 / np.sqrt(n)


def test_an_action_of_probability_nearly_one_is_not_taken_where_it_is_not_offered():
    env = Strict(SpacesEnv(spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3)))
    model = MaskableREINFORCE("MlpPolicy", env, policy_kwargs=SMALL, seed=0)
    with th.no_grad():
        model.policy.action_net.bias.copy_(th.tensor([1000.0, 0.0, -1000.0]))
    model.learn(30)  # Strict takes nothing else


def test_many_actions_of_which_few_are_offered():
    """Where the probabilities of 1400 actions were said not to add up to 1."""

    class Many(SpacesEnv):
        def action_masks(self):
            return np.arange(1400) % 350 == self.t

    model = MaskableREINFORCE("MlpPolicy", Many(spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(1400)), seed=0)
    model.learn(100)
    assert np.isfinite(model.logger.name_to_value["train/grad_norm"])


class Over(Strict):
    """Nothing is offered when the game is over."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        if terminated:
            self.mask = np.zeros_like(self.mask)
        return obs, reward, terminated, truncated, info


@pytest.mark.skipif(not hasattr(gym.vector, "AutoresetMode"), reason="gymnasium below 1.1")
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_game_that_is_over_need_not_offer_anything(mode: str) -> None:
    games = [Over(SpacesEnv(spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4), length=3 + i)) for i in range(2)]
    env = SyncVectorEnv([lambda game=game: game for game in games], autoreset_mode=mode)
    model = MaskableREINFORCE("MlpPolicy", env, n_episodes=4, policy_kwargs=SMALL).learn(1)
    (part,) = model.rollout_buffer.get()
    assert part.given["action_masks"].any(dim=1).all()
    rewards, lengths = evaluate_policy(model, GymnasiumVecEnv(env), n_eval_episodes=4, return_episode_rewards=True)
    assert len(rewards) == 4
    assert set(lengths) == {3, 4}


@pytest.mark.skipif(not hasattr(gym.vector, "AutoresetMode"), reason="gymnasium below 1.1")
@pytest.mark.parametrize("make", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.MultiBinary(2)], ids=["discrete", "bits"])
def test_everything_is_offered_where_a_step_only_resets(space: spaces.Space[Any], make: Any) -> None:
    """Of these environments and no others, whichever are asked for; a game that is over may return no mask at all."""

    class Silent(SpacesEnv):
        def action_masks(self) -> Any:
            return None if self.t == self.length else [True, False, True, False]

    env = GymnasiumVecEnv(
        make([lambda i=i: Silent(spaces.Box(-1, 1, (3,), np.float32), space, length=2 + i) for i in range(2)])
    )
    env.reset()
    for _ in range(2):
        env.step(np.array([space.sample(), space.sample()]))
    assert env.resetting.tolist() == [True, False]
    masks = [list(mask) for mask in env.env_method("action_masks", indices=[1, 0])]
    assert masks == [[True, False, True, False], [True] * 4]
    env.close()


@pytest.mark.skipif(not hasattr(gym.vector, "AutoresetMode"), reason="gymnasium below 1.1")
def test_masks_of_a_native_vector_environment_are_of_each_environment() -> None:
    """One array of all, of which environment i offers action i alone."""

    class Native(gym.vector.VectorEnv):
        metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012
        num_envs = 3
        single_observation_space, single_action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(4)

        def reset(self, **kwargs: Any) -> Any:
            self.n_steps = 0
            return np.zeros((3, 1), np.float32), {}

        def action_masks(self) -> np.ndarray:
            return np.eye(3, 4, dtype=bool)

        def step(self, actions: np.ndarray) -> Any:
            resets = self.n_steps == 2
            assert resets or actions.tolist() == [0, 1, 2]
            self.n_steps = 0 if resets else self.n_steps + 1
            ended, nobody = np.full(3, self.n_steps == 2), np.zeros(3, dtype=bool)
            return np.full((3, 1), self.n_steps, np.float32), np.full(3, float(not resets)), ended, nobody, {}

    model = MaskableREINFORCE("MlpPolicy", Native(), n_episodes=6, policy_kwargs=SMALL).learn(1)
    assert model.rollout_buffer.batch().lengths.tolist() == [2] * 6


@pytest.mark.parametrize("first", [False, True])
def test_masks_may_be_taken_up_or_dropped_with_episodes_carried_over(first: bool) -> None:
    """Steps that were taken with masks are not evaluated without, nor the other way round."""
    box, mask = spaces.Box(-1, 1, (3,), np.float32), np.array([True, False, True, False, True])
    games = (SpacesEnv(box, spaces.Discrete(5), length=5 + i) for i in range(3))
    env = vectorized(*(ActionMasker(game, lambda _: mask) for game in games))
    model = MaskableREINFORCE("MlpPolicy", env, n_episodes=4, carry_over=True, policy_kwargs=SMALL, learning_rate=0.0, seed=0)
    for use_masking in (first, not first):
        model.learn(60, use_masking=use_masking, reset_num_timesteps=False)
        assert model._ahead is not None
        batch = model.rollout_buffer.batch()
        assert set(batch.given) == ({"action_masks"} if use_masking else set())
        assert model._evaluator(batch).all_log_probs().min() > -10


@pytest.mark.parametrize(
    "make",
    [InvalidActionEnvDiscrete, InvalidActionEnvMultiDiscrete, InvalidActionEnvMultiBinary],
    ids=lambda each: each.__name__,
)
def test_saved_loaded_and_evaluated_with_masks(make, tmp_path):
    env = make() if make is InvalidActionEnvDiscrete else make(dims=[3, 3] if "Discrete" in make.__name__ else 3)
    model = MaskableREINFORCE("MlpPolicy", env, n_episodes=2, horizon=8, policy_kwargs=SMALL, seed=0)
    callback = MaskableEvalCallback(Monitor(make_like(env)), eval_freq=16, n_eval_episodes=1, verbose=0)
    model.learn(32, callback)
    model.save(tmp_path / "model")
    loaded = MaskableREINFORCE.load(tmp_path / "model", env=env)
    obs, mask = env.reset(seed=0)[0], env.action_masks()
    expected = model.predict(obs, action_masks=mask, deterministic=True)[0]
    assert (loaded.predict(obs, action_masks=mask, deterministic=True)[0] == expected).all()
    loaded.learn(16, use_masking=False)
    assert loaded.rollout_buffer.given == {}
    evaluate_policy(loaded, env, n_eval_episodes=1, warn=False)


def make_like(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    kind = type(env)
    return kind() if kind is InvalidActionEnvDiscrete else kind(dims=[3, 3] if "Discrete" in kind.__name__ else 3)


def test_masks_of_environments_in_processes_with_normalized_observations():
    env = VecNormalize(SubprocVecEnv([lambda i=i: masked_by_function(i) for i in range(2)], start_method="fork"))
    model = MaskableREINFORCE("MlpPolicy", env, n_episodes=4, policy_kwargs=SMALL, baseline="leave_one_out", seed=0)
    try:
        model.learn(40)
        masks = model.rollout_buffer.given["action_masks"]
        assert masks.shape[1:] == (2, 4)
        assert not masks[:3].all()
    finally:
        env.close()


def masked_by_function(seed: int) -> gym.Env[Any, Any]:
    env = strict(ACTION_SPACES["discrete"], seed=seed)
    return ActionMasker(env, lambda env: env.get_wrapper_attr("mask"))


def test_predict_returns_what_is_offered():
    env = strict(ACTION_SPACES["discrete from 5"])
    model = MaskableREINFORCE("MlpPolicy", env, policy_kwargs=SMALL, seed=0)
    obs = np.zeros((2, 3), dtype=np.float32)
    masks = np.array([[False, False, True, False], [True, False, False, False]])
    assert model.predict(obs, action_masks=masks)[0].tolist() == [7, 5]
    assert model.predict(obs[0], action_masks=masks[0].astype(np.float32))[0] == 7
    assert model.predict(obs[0], action_masks=[0, 0, 0, 1])[0] == 8


def test_a_saved_policy_is_all_that_it_was(tmp_path):
    kwargs = {"net_arch": [4], "share_features_extractor": False, "normalize_images": False}
    env = SpacesEnv(spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3))
    model = MaskableREINFORCE("MlpPolicy", env, policy_kwargs=kwargs, seed=0)
    model.policy.save(tmp_path / "policy")
    policy = maskable.MlpPolicy.load(tmp_path / "policy")
    assert not policy.share_features_extractor
    assert not policy.normalize_images


def test_a_policy_of_sb3_contrib_and_one_of_the_users_own():
    class Own(MaskableActorCriticPolicy):
        n_calls = 0

        def evaluate_actions(self, *args, **kwargs):
            Own.n_calls += 1
            assert kwargs["action_masks"] is not None
            return super().evaluate_actions(*args, **kwargs)

    for policy in (MaskableActorCriticPolicy, Own):
        model = MaskableREINFORCE(policy, strict(ACTION_SPACES["discrete"]), n_episodes=2, policy_kwargs=SMALL, seed=0)
        model.learn(10)
        assert isinstance(model._make_actor(), MlpActor)
    assert Own.n_calls > 0


@pytest.mark.parametrize(
    ("mask", "action_space", "message"),
    [
        ([False] * 4, spaces.Discrete(4), r"environment 1 must leave something to choose, but they are \[False, False, False"),
        ([True] * 2 + [False] * 3, spaces.MultiDiscrete([2, 3]), "environment 1 must leave something .* part 1 of the action"),
        ([True] * 5, spaces.Discrete(4), r"environment 1 must have 4 values.*shape \(5,\)"),
        ([], spaces.Discrete(4), r"environment 1 must have 4 values.*shape \(0,\)"),
        (True, spaces.MultiBinary(2), r"environment 1 must have 4 values.*shape \(\)"),
    ],
)
def test_a_mask_that_is_wrong_is_told_with_its_environment(mask, action_space, message):
    envs = [strict(action_space, seed=i) for i in range(2)]
    envs[1].offer = lambda: None
    envs[1].mask = np.array(mask, dtype=bool)
    model = MaskableREINFORCE("MlpPolicy", vectorized(*envs), n_episodes=2, policy_kwargs=SMALL, seed=0)
    with pytest.raises(ValueError, match=message):
        model.learn(10)


def test_masks_may_be_tensors():
    model = MaskableREINFORCE("MlpPolicy", strict(ACTION_SPACES["discrete"]), policy_kwargs=SMALL, seed=0)
    masks = th.tensor([False, False, True, False])
    assert model.predict(np.zeros(3, dtype=np.float32), action_masks=masks)[0] == 2
    with pytest.raises(ValueError, match=r"environment 1 must have 4 values.*shape \(5,\)"):
        model._mask_rule.checked([masks, th.ones(5, dtype=th.bool)])


def test_predict_refuses_what_gymnasium_resets_to():
    env = strict(ACTION_SPACES["discrete"])
    with pytest.raises(ValueError, match=r"`observation` must be a numpy array.*as in `obs, info = env.reset\(\)`"):
        MaskableREINFORCE("MlpPolicy", env, policy_kwargs=SMALL).predict(env.reset(), action_masks=env.action_masks())


@pytest.mark.parametrize("masks", [[True, True], [[True] * 4] * 3, [[False] * 4, [True] * 4]])
def test_predict_refuses_masks_that_do_not_fit(masks):
    model = MaskableREINFORCE("MlpPolicy", strict(ACTION_SPACES["discrete"]), policy_kwargs=SMALL, seed=0)
    with pytest.raises(ValueError, match="`action_masks`"):
        model.predict(np.zeros((2, 3), dtype=np.float32), action_masks=np.array(masks))


def test_masks_are_not_made_up_for_an_environment_without():
    model = MaskableREINFORCE("MlpPolicy", "CartPole-v1", n_episodes=1, policy_kwargs=SMALL, seed=0)
    with pytest.raises(ValueError, match=r"must have a method `action_masks\(\)`"):
        model.learn(10)
    model.learn(10, use_masking=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env": "Pendulum-v1"}, "only supports action spaces that can be masked: Discrete"),
        ({"env": SpacesEnv(spaces.Box(-1, 1, (3,)), spaces.MultiDiscrete([[2, 2], [3, 3]]))}, "of one dimension"),
        ({"use_sde": True}, "only be used with continuous actions"),
        ({"policy": "MlpLstmPolicy"}, "MlpLstmPolicy"),
        ({"policy": REINFORCE.policy_aliases["MlpPolicy"]}, "must be a name or a subclass of MaskableActorCriticPolicy"),
    ],
)
def test_what_cannot_be_masked_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskableREINFORCE(**{"policy": "MlpPolicy", "env": "CartPole-v1", **arguments})


def test_without_sb3_contrib_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sb3_reinforce.contrib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    monkeypatch.delitem(vars(sb3_reinforce), "MaskableREINFORCE")
    with pytest.raises(ImportError, match=r"pip install 'sb3_reinforce\[contrib\]'"):
        sb3_reinforce.MaskableREINFORCE  # noqa: B018
