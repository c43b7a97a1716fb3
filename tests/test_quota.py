"""The first m episodes started are the batch, each to its end: against arithmetic on scripted lengths."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_reinforce.quota import EpisodeQuota

NEVER = 10**6


class Episode(NamedTuple):
    """Recorded from the step before ``start`` was taken to the one that made it ``stop``."""

    start: int
    env: int
    stop: int


def collected(lengths: list[list[int]], m: int, horizon: int = NEVER) -> list[Episode]:
    """What a rollout records, asking the quota as ``collect_rollouts`` does.

    :param lengths: for each environment the lengths of its episodes, from the beginning again after the last
    """
    n_envs = len(lengths)
    begun, age = np.ones(n_envs, dtype=int), np.zeros(n_envs, dtype=int)
    quota = EpisodeQuota(m, n_envs, horizon)
    episodes: list[Episode] = []
    told: list[tuple[int, int]] = []
    n_steps = 0
    while quota.n_recording > 0:
        for env in np.flatnonzero(quota.recording):
            if age[env] == 0:
                episodes.append(Episode(n_steps, int(env), n_steps))
            last = max(i for i, episode in enumerate(episodes) if episode.env == env)
            episodes[last] = episodes[last]._replace(stop=n_steps + 1)
        n_steps += 1
        assert n_steps <= m * min(max(map(max, lengths)), horizon), "longer than the m episodes one after the other"
        age += 1
        dones = np.array([age[env] == each[(begun[env] - 1) % len(each)] for env, each in enumerate(lengths)])
        begun += dones
        age[dones] = 0
        if dones.any() or n_steps == quota.deadline:
            ended, cut = quota.advance(dones, [{"episode": (n_steps, env)} for env in range(n_envs)], n_steps)
            recorded = [(episode.env, age[episode.env]) for episode in episodes if episode.stop == n_steps]
            assert ended == sorted(env for env, since in recorded if since == 0)
            assert cut == sorted(env for env, since in recorded if since == horizon)
            told += [(n_steps, env) for env in ended]
            if quota.n_recording == 0 and quota.n_owed > 0:
                begun += age > 0
                age[:] = 0
                quota.start(np.ones(n_envs, dtype=bool), n_steps)
    assert quota.n_owed == 0
    assert sorted(info["episode"] for info in quota.infos[0].values()) == sorted(told)
    return episodes


def first_started(lengths: list[list[int]], m: int, horizon: int = NEVER) -> list[Episode]:
    """The same by arithmetic: an episode starts when those before it in its environment have taken their steps.

    Only where all recorded episodes were cut, and the next start lies beyond, are all environments reset.
    """
    kept: list[Episode] = []
    begun, at = [0] * len(lengths), 0
    while True:
        starts: list[Episode] = []
        for env, each in enumerate(lengths):
            start = at
            for k in range(m):
                length = each[(begun[env] + k) % len(each)]
                starts.append(Episode(start, env, start + min(length, horizon)))
                start += length
        stop = at
        for episode in sorted(starts):
            if episode.start > stop:
                break
            kept.append(episode)
            stop = max(stop, episode.stop)
            if len(kept) == m:
                return kept
        begun = [k + sum(e.env == env and e.start < stop for e in starts) for env, k in enumerate(begun)]
        at = stop


def test_a_long_episode_is_not_dropped_for_short_ones() -> None:
    """Two environments with episodes of 3 and 7 steps: both first episodes are the batch.

    The first two to *finish* are both the short environment's, which would over-sample short episodes.
    """
    assert collected([[3], [7]], m=2) == [Episode(0, 0, 3), Episode(0, 1, 7)]


def test_the_third_starts_where_the_first_ends() -> None:
    """Of the episodes that follow, the one that starts first is the third: the short environment's, at step 3."""
    assert collected([[3], [5]], m=3) == [Episode(0, 0, 3), Episode(0, 1, 5), Episode(3, 0, 6)]


def test_starts_in_one_step_are_numbered_by_environment() -> None:
    """Three end together and two more are owed: the environments of lowest index begin them."""
    assert collected([[2], [2], [2]], m=5)[3:] == [Episode(2, 0, 4), Episode(2, 1, 4)]


def test_a_horizon_cuts_and_the_environment_waits() -> None:
    """Cut after 2 of its 7 steps, environment 1 owes its rest to nobody; environment 0 goes on."""
    assert collected([[2], [7]], m=4, horizon=2) == [
        Episode(0, 0, 2),
        Episode(0, 1, 2),
        Episode(2, 0, 4),
        Episode(4, 0, 6),
    ]


def test_unlike_environments_share_by_their_lengths() -> None:
    """Of 16 trajectories, an environment of 20 steps runs 14 or so while one of 200 runs 2; the rule is not one of each."""
    episodes = collected([[20], [200]], 16)
    assert np.bincount([episode.env for episode in episodes]).tolist() == [14, 2]


def test_where_several_start_at_once_the_first_is_told() -> None:
    """From ``first_env`` on and around; in later steps too."""
    quota = EpisodeQuota(3, 4, NEVER, first_env=2)
    assert quota.recording.tolist() == [True, False, True, True]
    assert quota.numbers == [2, 0, 0, 1]
    quota = EpisodeQuota(5, 4, NEVER, first_env=2)
    quota.start(np.array([True, False, False, True]), 7)
    assert quota.recording.tolist() == [False, True, True, True]
    assert quota.numbers[3] == 4


def test_when_all_were_cut_all_start_anew() -> None:
    """No environment ends within the horizon, so that a reset begins two episodes at a time."""
    assert collected([[NEVER], [NEVER]], m=3, horizon=4) == [Episode(0, 0, 4), Episode(0, 1, 4), Episode(4, 0, 8)]


def test_an_episode_that_ends_at_the_horizon_is_not_cut() -> None:
    """The 4th step ends it and reaches the horizon: the next episode starts by itself, and nothing is reported as cut."""
    quota = EpisodeQuota(n_episodes=2, n_envs=1, max_length=4)
    assert quota.deadline == 4
    quota.start(np.array([True]), 4)
    assert quota.cut(4) == []
    assert (quota.n_recording, quota.n_owed, quota.deadline) == (1, 0, 8)


def test_who_was_cut_is_told() -> None:
    """Environment 1 started two steps later, so only environments 0 and 2 reach the limit of 5 at step 5."""
    quota = EpisodeQuota(n_episodes=4, n_envs=3, max_length=5)
    quota.start(np.array([False, True, False]), 2)
    assert quota.deadline == 5
    assert quota.cut(4) == []
    assert quota.cut(5) == [0, 2]
    assert quota.recording.tolist() == [False, True, False]
    assert quota.deadline == 7
    assert quota.cut(6) == []


@pytest.mark.parametrize("m", [1, 2, 3, 8, 20])  # smaller than, equal to and larger than the number of environments
@pytest.mark.parametrize("n_envs", [1, 2, 3, 8])
@pytest.mark.parametrize("horizon", [1, 3, NEVER])
def test_exactly_m_are_recorded(m: int, n_envs: int, horizon: int) -> None:
    """Neither more nor fewer than m, whatever the number of environments, each environment with its own length."""
    lengths = [[1 + (3 * env) % 5] for env in range(n_envs)]
    episodes = collected(lengths, m, horizon)
    assert len(episodes) == m
    assert episodes == first_started(lengths, m, horizon)


SCRIPTS = st.sampled_from([1, 2, 3, 8]).flatmap(
    lambda n: st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=4), min_size=n, max_size=n)
)


@settings(max_examples=200)
@given(SCRIPTS, st.integers(1, 12), st.one_of(st.just(NEVER), st.integers(1, 8)))
def test_any_script_agrees_with_arithmetic(lengths: list[list[int]], m: int, horizon: int) -> None:
    """The quota, told only what ended when, records the episodes that sorting all starts would choose."""
    assert collected(lengths, m, horizon) == first_started(lengths, m, horizon)
