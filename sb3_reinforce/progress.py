"""Progress of a run whose last batch overshoots ``total_timesteps``."""

from itertools import chain

from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback, ProgressBarCallback
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_reinforce.guards import callbacks_within


class BoundedProgressBarCallback(ProgressBarCallback):
    """SB3's progress bar, which stays at its end while the last batch overshoots ``total_timesteps``."""

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._num_timesteps_at_start = self.model.num_timesteps

    def _on_step(self) -> bool:
        # Not the number of environments: other processes take steps, too, and some only reset an environment.
        done = self.num_timesteps - self._num_timesteps_at_start
        if self.pbar.total is not None:  # as it is of an infinite number of steps
            done = min(done, self.pbar.total)
        self.pbar.update(done - self.pbar.n)
        return True


def with_bounded_progress_bars(callback: MaybeCallback, progress_bar: bool) -> MaybeCallback:
    """The callbacks that ``learn`` is given, with a bar if it is asked for. A bar of SB3's among them becomes one of ours.

    It stays the same object: RL Zoo gives ``learn`` a bar, and closes it in the end.
    """
    given = as_callbacks(callback)
    for each in chain.from_iterable(map(callbacks_within, given)):
        if type(each) is ProgressBarCallback:
            each.__class__ = BoundedProgressBarCallback
    return [*given, BoundedProgressBarCallback()] if progress_bar else callback


def as_callbacks(callback: MaybeCallback) -> list[BaseCallback]:
    """The callbacks as SB3 makes them of what ``learn`` is given."""
    given = callback if isinstance(callback, list) else [callback]
    return [each if isinstance(each, BaseCallback) else ConvertCallback(each) for each in given if each is not None]
